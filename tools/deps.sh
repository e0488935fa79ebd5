#!/bin/sh
# deps.sh [PACKAGE...]: makes sure the Debian packages that sardonyx builds with, and those named, are there: installs
# what is missing where that is permitted (root, or sudo without a password), else prints the line to type and exits 2.
set -u
PACKAGES="gcc g++ make pkg-config protobuf-c-compiler libprotobuf-c-dev libopenblas-dev libjansson-dev libutf8proc-dev
libpcre2-dev zlib1g-dev libsndfile1-dev libcurl4-openssl-dev nettle-dev check python3 python3-venv unzip"

missing=
for package in $PACKAGES "$@"; do
    case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) in
    "install ok installed") ;;
    *) missing="$missing $package" ;;
    esac
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ]; then as_root=
elif sudo -n true 2>/dev/null; then as_root="sudo -n"
else
    echo "sardonyx needs a few Debian packages. Please type:" >&2
    echo "    sudo apt-get install -y$missing" >&2
    exit 2
fi
echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq >&2
# shellcheck disable=SC2086 # the lists are words
if ! $as_root apt-get install -y -qq --no-install-recommends $missing >&2; then
    echo "apt-get failed. Please type:" >&2
    echo "    sudo apt-get install -y$missing" >&2
    exit 2
fi
