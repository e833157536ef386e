#!/usr/bin/env bash
# Public conformance and attack tools against the proxy as it is run, and a
# table of what they found. Installs what it needs into a cache outside the
# repository (Debian's tools into the system), uses loopback only, and stops
# what it started.
#
#   tests/conformance/run.sh [PATH_OF_PILOTFISH] [--quick]
#
# --quick leaves out what takes minutes. What cannot run here is named in the
# table. Exit 1 when something is wrong; what may fail, and why, is in
# docs/conformance.md.
set -euo pipefail
binary=$(dirname "$0")/../../target/release/pilotfish
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
    binary=$1
    shift
fi
binary=$(realpath -e "$binary")
cd "$(dirname "$0")"
cache=${PILOTFISH_CACHE:-$HOME/.cache/pilotfish}
mkdir -p "$cache"

missing=()
for pair in h2load:nghttp2-client slowhttptest:slowhttptest testssl:testssl.sh openssl:openssl; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

venv=$cache/conformance-venv
if ! cmp -s requirements.txt "$venv/.installed"; then
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt "$venv/.installed"
fi

httpwg=$cache/tools/bin/httpwg
if [ ! -x "$httpwg" ]; then
    # Where it cannot be built, the table says so.
    CARGO_TARGET_DIR=$cache/tools-target cargo install --quiet --locked --root "$cache/tools" \
        httpwg-cli --version 0.2.5 || true
fi

exec timeout 1500 "$venv/bin/python" run.py "$binary" --httpwg "$httpwg" --logs "$cache" "$@"
