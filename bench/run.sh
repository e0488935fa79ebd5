#!/usr/bin/env bash
# run.sh [OPTIONS of compare.py]: kernels as a share of what this CPU does at best in the same moment, to the terminal;
# then whole models beside the engines that bench/setup installed, as docs/benchmarks.md. About half an hour, 5 GB of files.
set -eu
cd "$(dirname "$0")/.."
build/release/kcheck --bench
bench/setup
page=docs/benchmarks.md
{
    printf '# Benchmarks\n\nWritten by `make bench`; what was measured how stands in `bench/compare.py`, what it means '
    printf 'in [performance.md](performance.md).\n\n'
    build/bench-venv/bin/python bench/compare.py build/release/sardonyx build/release/make_checkpoint \
        "$(sh tools/fetch_minilm.sh)" "$@"
} > build/benchmarks.md
mv build/benchmarks.md "$page"
echo "$page"
