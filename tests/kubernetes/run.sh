#!/usr/bin/env bash
# Runs Pilotfish on a real Kubernetes API server: simulated engines stand for
# pods that are made ready, taken away, relabelled, while clients never stop
# asking; the API server is killed, put back in time, and closed to us. There is
# no kubelet and no controller: pods are what we write of them.
#
#   tests/kubernetes/run.sh [PATH_OF_PILOTFISH] [NAME_OF_A_SCENARIO ...]
#   tests/kubernetes/run.sh PATH_OF_PILOTFISH --figures       # a table of times, memory, CPU
#   tests/kubernetes/run.sh PATH_OF_PILOTFISH --list          # the scenarios
#
# The API server is, in this order,
# - that of the context of TEST_KUBECONFIG (needs kubectl, and an administrator).
#   Works in a namespace of its own, and defines the kind InferencePool if there is none;
#   takes away both again, however it ends, unless it is killed (SIGKILL): then
#   `kubectl delete namespace pilotfish-...`, and the definition, if nobody needs it.
#   NOT tested then: an API server that is killed or put back in time;
# - etcd and kube-apiserver from the folder KUBEBUILDER_ASSETS (as for envtest);
# - those that build.sh builds into a cache outside the repository, once.
# The one that is built, 1.20, knows EndpointSlices as v1beta1 only, and no lists as
# streams: EndpointSlice v1 is tested here with a newer API server alone.
#
# TEST_OUTAGE_SECONDS: for how long the API server is away (30); TEST_IDLE_SECONDS:
# over how long idle CPU is measured (20); TEST_SOON_SECONDS: within what half of the
# changes reach routing (0.1; a machine that is busy needs more).
#
# The figures take TEST_PODS (5000), TEST_EVENTS a second (100), TEST_EVENT_SECONDS (60).
#
# Everything is on loopback and on free ports, but for TEST_KUBECONFIG; what is
# started is stopped, by its process id, however this ends.
set -euo pipefail
if [[ ${1:-} == --* ]]; then set -- target/release/pilotfish "$@"; fi
binary=$(realpath "${1:-target/release/pilotfish}")
cd "$(dirname "$0")"
command -v openssl >/dev/null || { echo "needs openssl, for the certificates of the control plane" >&2; exit 1; }
cache=${PILOTFISH_CACHE:-$HOME/.cache/pilotfish}/kubernetes

if [[ -z ${TEST_KUBECONFIG:-} && -z ${KUBEBUILDER_ASSETS:-} ]]; then
    ./build.sh "$cache"
    export KUBEBUILDER_ASSETS=$cache/bin
fi
# Waits and the logs of a check belong to this tree, and to no user's Python.
export PYTHONPATH=$PWD/../real PYTHONDONTWRITEBYTECODE=1
exec timeout --kill-after=60 1800 python3 -u drive.py --pilotfish "$binary" "${@:2}"
