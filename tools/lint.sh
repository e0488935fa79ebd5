#!/bin/sh
# lint.sh BUILD: the house rules that a machine can check. Who may include whom; one exported symbol per kernel
# object; only sdx_ names visible in the shared library.
set -u
build=${1:-build/release}
passed=0 failed=0
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "lint: $*" >&2; }

# folder: folders whose headers it may include (its own always)
rules='
base:include
kernels:base include
graph:base include
quant:base kernels graph include
engine:base kernels quant graph include
tokenizer:base include
convert:base graph include
tasks:base tokenizer convert include
cli:include
fetch:include
'
for rule in $(echo "$rules" | tr ' ' ','); do
    folder=${rule%%:*}
    allowed=$(echo "${rule#*:},$folder" | tr ',' ' ')
    for file in $(find "$folder" -name '*.c' -o -name '*.h'); do
        dir=$(dirname "$file")
        wrong=
        for header in $(sed -n 's/^ *# *include "\([^"]*\)".*/\1/p' "$file"); do
            case $header in onnx.pb-c.h | sentencepiece.pb-c.h) continue ;; esac
            [ "$header" = sardonyx.h ] && continue
            path=$(realpath -m --relative-to=. "$dir/$header")
            top=${path%%/*}
            case " $allowed " in *" $top "*) ;; *) wrong="$wrong $header" ;; esac
        done
        if [ -z "$wrong" ]; then ok; else bad "$file may not include$wrong"; fi
    done
done

# protobuf-c stays behind the reader and the writer
for file in $(grep -rl 'protobuf-c\|pb-c.h' --include='*.[ch]' base kernels graph quant engine tokenizer convert tasks cli); do
    case $file in graph/onnx_*.[ch] | graph/tensor_pb.c | tokenizer/spiece.[ch]) ok ;; *) bad "$file knows protobuf-c" ;; esac
done

for object in "$build"/kernels/*.*.o; do
    [ -e "$object" ] || continue
    name=$(basename "$object" .o)
    symbols=$(nm -g --defined-only "$object" | awk '{print $3}' | tr '\n' ' ')
    want="sdx_${name%.*}_init_${name##*.} "
    if [ "$symbols" = "$want" ]; then ok; else bad "$object exports $symbols, not just $want"; fi
done

if [ -e "$build/libsardonyx.so" ]; then
    foreign=$(nm -D --defined-only "$build/libsardonyx.so" | awk '$3 !~ /^sdx_/ {print $3}' | tr '\n' ' ')
    if [ -z "$foreign" ]; then ok; else bad "libsardonyx.so exports $foreign"; fi
fi
echo "lint: $passed passed, $failed failed"
[ "$failed" = 0 ]
