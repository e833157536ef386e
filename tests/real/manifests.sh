#!/usr/bin/env bash
# Renders the manifests and looks at what comes of it: the schemas of several
# versions of Kubernetes, strictly, and what is easily lost on the way. Tools go
# into a cache outside the repository; no cluster is asked.
#
#   tests/real/manifests.sh [PATH_OF_PILOTFISH]
set -euo pipefail
binary=$(realpath "${1:-target/release/pilotfish}")
cd "$(dirname "$0")"
venv=${PILOTFISH_CACHE:-$HOME/.cache/pilotfish}/manifests
if ! cmp -s manifests-requirements.txt "$venv/.installed"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r manifests-requirements.txt
    cp manifests-requirements.txt "$venv/.installed"
fi
# Debian's own is of 2021 and knows half of it.
kubectl=$venv/bin/kubectl
"$kubectl" kustomize --help >/dev/null 2>&1 || kubectl=kubectl
exec timeout 120 "$venv/bin/python" manifests.py --pilotfish "$binary" --kubectl "$kubectl" \
    --manifests "$(realpath ../../manifests)"
