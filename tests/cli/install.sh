#!/usr/bin/env bash
# What `make install` lays down is enough to build against: the examples in C through pkg-config, with both libraries,
# and the header in C++.
set -eu
cd "$(dirname "$0")/../.."
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
make --no-print-directory install PREFIX="$root" >/dev/null
export PKG_CONFIG_PATH=$root/lib/pkgconfig
warnings="-Wall -Wextra -Wpedantic -Werror"
cp examples/*.c "$root"
for source in "$root"/*.c; do
    program=${source%.c}
    # shellcheck disable=SC2046,SC2086 # the flags are words
    gcc -std=c17 $warnings "$source" -o "$program-shared" $(pkg-config --cflags --libs sardonyx) -lm
    # shellcheck disable=SC2046
    gcc -std=c17 "$source" -o "$program-static" $(pkg-config --cflags sardonyx) "$root/lib/libsardonyx.a" \
        $(pkg-config --static --libs sardonyx | sed 's/-lsardonyx//')
done
folder=tests/data/zoo/bert-classify-bin/checkpoint
LD_LIBRARY_PATH=$root/lib "$root/answer-shared" classify $folder 'what is AI?' > "$root/said"
"$root/answer-static" classify $folder 'what is AI?' | diff "$root/said" -
printf '#include <sardonyx.h>\nint main() { return sdx_default_threads() < 1; }\n' > "$root/try.cc"
# shellcheck disable=SC2046,SC2086
g++ -std=c++11 $warnings "$root/try.cc" -o "$root/try" $(pkg-config --cflags --libs sardonyx)
LD_LIBRARY_PATH=$root/lib "$root/try"
"$root/bin/sardonyx" --version
