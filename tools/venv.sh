#!/bin/sh
# Makes build/venv with ONNX Runtime, the reference that our files must load in. Pinned; made once.
set -eu
cd "$(dirname "$0")/.."
wanted="onnx==1.23.2 onnxruntime==1.31.1 numpy"
[ -e build/venv/ready ] && [ "$(cat build/venv/ready)" = "$wanted" ] && exit 0
rm -rf build/venv
mkdir -p build
"${PYTHON:-python3}" -m venv build/venv
# shellcheck disable=SC2086 # the list is words
build/venv/bin/pip install -q --disable-pip-version-check $wanted
echo "$wanted" > build/venv/ready
