#!/usr/bin/env bash
# What `make install` lays down is enough to build against: a C and a C++ program through pkg-config, both libraries.
set -eu
cd "$(dirname "$0")/../.."
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
make --no-print-directory install DESTDIR="$root" PREFIX=/usr >/dev/null
cat > "$root/try.c" <<'C'
#include <sardonyx.h>
#include <stdio.h>
int main(void)
{
    sdx_error err = {0};
    sdx_model *model = NULL;
    if (sdx_model_open("/nowhere.onnx", &model, &err) == SDX_OK || !err.message[0]) return 1;
    return printf("%s\n", sdx_cpu_isa()) < 0;
}
C
sed 's/sdx_error err = {0}/sdx_error err = {}/' "$root/try.c" > "$root/try.cc"
export PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_PATH=$root/usr/lib/pkgconfig
flags=$(pkg-config --cflags --libs sardonyx)
# shellcheck disable=SC2086
gcc -std=c17 -Wall -Wextra -Werror -pedantic "$root/try.c" -I"$root/usr/include" -L"$root/usr/lib" $flags -o "$root/try-so"
LD_LIBRARY_PATH=$root/usr/lib "$root/try-so"
static=$(pkg-config --static --libs sardonyx)
# shellcheck disable=SC2086
gcc -std=c17 "$root/try.c" -I"$root/usr/include" "$root/usr/lib/libsardonyx.a" ${static//-lsardonyx/} -o "$root/try-a"
"$root/try-a"
g++ -x c++ -std=c++17 -Wall -Wextra -Werror -fsyntax-only -I"$root/usr/include" "$root/try.cc"
"$root/usr/bin/sardonyx" --version
