#!/usr/bin/env bash
# Kernels as a share of what this CPU can do at best, measured in the same run.
set -eu
cd "$(dirname "$0")/.."
build/release/kcheck --bench "$@"
