#!/usr/bin/env bash
# node_tests.sh SARDONYX SHARED: the ONNX node tests at ONNX's tolerances. What is known to fail stands in
# expected_failures.tsv with its reason: a listed case that passes, or an unlisted one that fails, is a failure. None of
# the listed may be one that ONNX Runtime passes.
set -u
sdx=$(realpath "$1") shared=$(realpath "$2")
cd "$(dirname "$0")/../.." || exit 3
cases=build/node_tests
[ -e $cases/ready ] || { rm -rf $cases && build/venv/bin/python "$shared/tools/node_tests.py" $cases && touch $cases/ready; } || {
    echo "0 passed, 1 failed"
    exit 1
}
"$sdx" test $cases > build/node_tests.log 2>&1
grep '^FAILED' build/node_tests.log | sed 's/^FAILED \([^:]*\):.*/\1/' | sort > build/node_tests.failed
grep -v '^#' tests/onnx/expected_failures.tsv | cut -f1 | sort > build/node_tests.expected
tail -n 1 build/node_tests.log
unlisted=$(comm -23 build/node_tests.failed build/node_tests.expected)
outlived=$(comm -13 build/node_tests.failed build/node_tests.expected)
for name in $unlisted; do grep "^FAILED $name:" build/node_tests.log; done
for name in $outlived; do echo "FAILED $name is listed in expected_failures.tsv but passes: remove the line"; done
build/venv/bin/python tests/onnx/ort_passes.py $cases build/node_tests.expected > build/node_tests.ort || {
    cat build/node_tests.ort
    unlisted="$unlisted more"
}
failed=$(echo $unlisted $outlived | wc -w)
passed=$(tail -n 1 build/node_tests.log | cut -d' ' -f1)
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
