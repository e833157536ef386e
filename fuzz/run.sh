#!/usr/bin/env bash
# fuzz/run.sh [SECONDS_EACH [TARGET...]]: builds the fuzz targets, runs each for so
# long (17 s: about two minutes for all) from the seeds on, and prints what came of
# it. What makes a target fail is kept in fuzz/artifacts/<target>/; once it is
# understood it belongs in fuzz/regressions/<target>/, which the tests run too.
#
# The stable compiler is enough: libFuzzer asks it for coverage, not for a
# sanitizer; there is no unsafe code of ours to watch.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-17}
shift || true
all=(peek sse exposition query dynamic multipart connection)
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=("${all[@]}")
cache=${PILOTFISH_CACHE:-$HOME/.cache/pilotfish}
export PATH="$cache/tools/bin:$PATH"
export CARGO_TARGET_DIR=$cache/fuzz-target
command -v c++ >/dev/null || { apt-get update -qq; apt-get install -y -qq --no-install-recommends g++; }

version=0.13.2
cargo fuzz --version 2>/dev/null | grep -qF "$version" ||
    CARGO_TARGET_DIR=$cache/tools-target \
        cargo install --quiet --locked --root "$cache/tools" cargo-fuzz --version "$version"
(cd fuzz && cargo metadata --locked --format-version 1 >/dev/null)
cargo fuzz build --sanitizer none --target-dir "$CARGO_TARGET_DIR"
host=$(rustc -vV | sed -n 's/^host: //p')

failed=0
line='%-12s %10s %8s %9s %9s %7s %6s %9s\n'
rows=$(printf "$line" target runs runs/s coverage features new MiB failures)
for target in "${targets[@]}"; do
    # What was found new stays in the cache: the next run goes on from there.
    corpus=$cache/fuzz-corpus/$target
    kept=fuzz/artifacts/$target
    seeds=("fuzz/seeds/$target")
    [ ! -d "fuzz/regressions/$target" ] || seeds+=("fuzz/regressions/$target")
    mkdir -p "$corpus" "$kept"
    log=$cache/fuzz-$target.log
    before=$(find "$kept" -type f | wc -l)
    code=0
    "$CARGO_TARGET_DIR/$host/release/$target" "$corpus" "${seeds[@]}" \
        -max_total_time="$seconds" -max_len=16384 -rss_limit_mb=2048 -malloc_limit_mb=512 \
        -timeout=20 -dict=fuzz/http.dict -artifact_prefix="$kept/" \
        -print_final_stats=1 >"$log" 2>&1 || code=$?
    stat() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1; }
    last=$(grep -E 'cov: [0-9]+' "$log" | tail -n 1 || true)
    field() { sed -n "s/.* $1: \([0-9]*\).*/\1/p" <<<"$last"; }
    crashes=$(($(find "$kept" -type f | wc -l) - before))
    rows+=$'\n'$(printf "$line" "$target" "$(stat number_of_executed_units)" \
        "$(stat average_exec_per_sec)" "$(field cov)" "$(field ft)" "$(stat new_units_added)" \
        "$(stat peak_rss_mb)" "$crashes")
    if [ "$code" != 0 ]; then
        failed=1
        printf '%s failed (exit %s), the end of %s:\n' "$target" "$code" "$log" >&2
        grep -vE '^#[0-9]+' "$log" | grep -v '^stat::' | tail -n 25 >&2
    fi
done
printf '%s\n' "$rows"
exit $failed
