#!/usr/bin/env bash
# Has a real Prometheus scrape Pilotfish while it works, and looks at what is
# written for it: the page by promtool, each expression of the dashboard and of
# the alerts against what was scraped, the alerts by their unit tests. Debian's
# package is unpacked into a cache outside the repository, nothing is installed;
# uses loopback only, and stops what it started.
#
#   tests/real/monitoring.sh [PATH_OF_PILOTFISH]
set -euo pipefail
binary=$(realpath "${1:-target/release/pilotfish}")
cd "$(dirname "$0")"
cache=${PILOTFISH_CACHE:-$HOME/.cache/pilotfish}/prometheus

works() { "$cache/usr/bin/promtool" --version >/dev/null 2>&1; }

if ! works; then
    mkdir -p "$(dirname "$cache")"
    (
        new=$(mktemp -d "$cache.XXXXXX")
        trap 'rm -rf "$new"' EXIT
        cd "$new"
        # A list of packages that is too old names one that is gone.
        apt-get download -qq prometheus 2>/dev/null ||
            { apt-get update -qq && apt-get download -qq prometheus; }
        dpkg -x prometheus_*.deb .
        rm prometheus_*.deb
        # Another run may have been first.
        works || { rm -rf "$cache" && mv -T "$new" "$cache"; } || works
    )
fi
exec timeout 120 python3 monitoring.py --pilotfish "$binary" --prometheus "$cache/usr/bin" \
    --manifests "$(realpath ../../manifests/monitoring)"
