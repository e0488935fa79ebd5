#!/bin/sh
# Makes build/venv with ONNX Runtime, the reference that our files must load in, and Hugging Face's tokenizers, the one
# that ids are compared with. Pinned; made once.
set -eu
cd "$(dirname "$0")/.."
wanted="onnx==1.23.2 onnxruntime==1.31.1 numpy tokenizers==0.22.2"
[ -e build/venv/ready ] && [ "$(cat build/venv/ready)" = "$wanted" ] && exit 0
mkdir -p build
[ -x build/venv/bin/pip ] || "${PYTHON:-python3}" -m venv --clear build/venv
# shellcheck disable=SC2086 # the list is words
build/venv/bin/pip install -q --disable-pip-version-check $wanted
echo "$wanted" > build/venv/ready
