#!/usr/bin/env bash
# Builds the image of the Dockerfile and runs it as Kubernetes would: not root, no
# rights, a root that cannot be written. No base image is fetched and nothing is
# compiled: a stand-in for the compiler's image has a `cargo` that looks at how it
# is called, and gives the binary that is there. One that is not static, as that of
# `cargo build --release`, is run with its libraries beside it: then it is NOT shown
# that the Dockerfile's own binary is static, nor that it runs in an empty image.
# For that, give the path of one that was built with the Dockerfile's RUSTFLAGS and
# a --target. Everything is in a temporary folder; uses loopback only, and stops
# what it started. Needs root, python3 and buildah.
#
#   tests/real/container.sh [PATH_OF_PILOTFISH]
set -euo pipefail
binary=$(realpath "${1:-target/release/pilotfish}")
cd "$(dirname "$0")/../.."
cache=${PILOTFISH_CACHE:-$HOME/.cache/pilotfish}

if ! command -v buildah >/dev/null; then
    apt-get install -y -qq --no-install-recommends buildah >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends buildah >/dev/null 2>&1; } ||
        { echo "container: NOT CHECKED, buildah cannot be installed here"; exit 0; }
fi
busybox=$cache/busybox/bin/busybox
if ! "$busybox" true 2>/dev/null; then
    new=$(mktemp -d)
    (cd "$new" && { apt-get download -qq busybox-static 2>/dev/null ||
        { apt-get update -qq && apt-get download -qq busybox-static; }; } && dpkg -x busybox-static_*.deb out)
    mkdir -p "$cache/busybox/bin"
    cp "$new/out/bin/busybox" "$busybox"
    rm -rf "$new"
fi

work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    # What is left of a mount must not be followed by rm.
    ! grep -q " $work" /proc/self/mounts || { echo "mounts are left in $work" >&2; return; }
    rm -rf "$work"
}
trap finish EXIT
container() { # COMMAND...: buildah, in our folder
    timeout 120 buildah --root "$work/store" --runroot "$work/run" --storage-driver vfs "$@"
}
fail() { echo "container: $*" >&2; exit 1; }

# The stand-in.
base=$work/base
mkdir -p "$base"/{bin,tmp,etc/ssl/certs,usr/local/bin}
cp "$busybox" "$base/bin/busybox"
for applet in sh sed cp mkdir echo; do ln -s busybox "$base/bin/$applet"; done
echo "a stand-in" > "$base/etc/ssl/certs/ca-certificates.crt"
cp "$binary" "$base/stand-in"
cat > "$base/usr/local/bin/rustc" <<'END'
#!/bin/sh
echo "host: any-target"
END
cat > "$base/usr/local/bin/cargo" <<'END'
#!/bin/sh
set -e
[ "$*" = "build --locked --release --bin pilotfish --target any-target" ]
[ "$RUSTFLAGS" = "-C target-feature=+crt-static" ]
# Whatever Cargo.toml names is there, and no more than is needed.
for name in $(sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"/\1/p' Cargo.toml); do [ -f "benches/$name.rs" ]; done
[ -f Cargo.lock ] && [ -f src/main.rs ] && [ ! -e tests ] && [ ! -e target ]
mkdir -p target/any-target/release
cp /stand-in target/any-target/release/pilotfish
END
chmod 755 "$base"/usr/local/bin/*
tag=$(sed -n 's/^ARG RUST=//p' Dockerfile)
from=$(container from scratch)
container copy -q "$from" "$base" / >/dev/null
container commit -q "$from" "docker.io/library/rust:$tag" >/dev/null
container bud -q --isolation chroot --pull-never --tag pilotfish . > "$work/bud.log" 2>&1 ||
    { cat "$work/bud.log" >&2; fail "the Dockerfile does not build"; }

said=$(container inspect --type image --format \
    '{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Cmd}}' pilotfish)
[ "$said" = "65532:65532 [/pilotfish] []" ] || fail "user, entry point and command are: $said"
root=$(container mount "$(container from --pull-never localhost/pilotfish)")
files=$(cd "$root" && find . -type f | sort | xargs)
[ "$files" = "./etc/nsswitch.conf ./etc/ssl/certs/ca-certificates.crt ./pilotfish" ] || fail "there are: $files"
cmp "$binary" "$root/pilotfish"
echo "image: $(($(stat -c %s "$binary") >> 20)) MiB, one binary, 65532, no shell: ok"

what="the static binary that was given, alone in its image"
if libraries=$(ldd "$binary" 2>/dev/null | grep -o '/[^ ]*'); then
    what="a binary that is NOT static, with its libraries beside it"
    for library in $libraries; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
    echo "NOT CHECKED: the Dockerfile's compilation (static, for an empty image): this binary is dynamic"
fi
# What a runtime makes in every container.
mkdir -p "$root"/{proc,dev,etc/pilotfish}
cp /etc/resolv.conf "$root/etc/resolv.conf"
printf '127.0.0.1 localhost\n127.0.0.1 engine.of.hosts\n' > "$root/etc/hosts"

started= # The process of the last `run`.
run() { # NAME ARGUMENT...: the image's process
    local name=$1
    shift
    # The mounts are gone with the process: the namespace is its own.
    unshare --mount --propagation private setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid,+sys_admin \
        bash -c '
        root=$1; shift
        mount --bind "$root" "$root" && mount -t proc proc "$root/proc" && mount --bind /dev "$root/dev"
        mount -o remount,bind,ro "$root"
        exec chroot --userspec=65532:65532 --groups= "$root" /pilotfish "$@"' - "$root" "$@" \
        > "$work/$name.log" 2>&1 &
    started=$!
    pids+=("$started")
}
ask() { # URL [JSON]: the answer's text, if it is one of 200
    python3 -c '
import sys, urllib.request
url, *body = sys.argv[1:]
request = urllib.request.Request(url, body[0].encode() if body else None, {"content-type": "application/json"})
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    print(opener.open(request, timeout=10).read().decode())
except OSError as error:
    sys.exit(f"{url}: {error}")' "$@"
}
answers() { # URL: waits until it is answered with 200
    for _ in $(seq 100); do
        ask "$1" >/dev/null 2>&1 && return
        sleep 0.1
    done
    cat "$work"/*.log >&2
    fail "$1 does not answer"
}
read -r port engine < <(python3 -c 'import sys; sys.path.insert(0, "tests/real")
from servers import free_ports; print(*free_ports(2))')
run engine engine --host 127.0.0.1 --port "$engine" --model m
run proxy --host 127.0.0.1 --port "$port" --service-discovery static --routing-logic leastload \
    --static-backends "http://engine.of.hosts:$engine" --drain-settle 0s --drain-timeout 5s
proxy=$started
for path in livez readyz metrics; do answers "http://127.0.0.1:$port/$path"; done
grep -qE '^Uid:\s+65532\s+65532' "/proc/$proxy/status" || fail "it is not 65532"
grep -qE '^Groups:\s*$' "/proc/$proxy/status" || fail "it has groups"
grep -qE '^CapEff:\s+0+$' "/proc/$proxy/status" || fail "it has capabilities"
grep -qE '^NoNewPrivs:\s+1$' "/proc/$proxy/status" || fail "it may get rights"
# The line of the innermost mount of its root.
grep -E "^\S+ / \S+ ro[, ]" "/proc/$proxy/mounts" >/dev/null || fail "its root can be written: $(head -3 "/proc/$proxy/mounts")"
answer=$(ask "http://127.0.0.1:$port/v1/chat/completions" \
    '{"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}')
[[ $answer == *'"choices"'* ]] || fail "the answer is: $answer"
echo "run: read-only root, no rights, a name of /etc/hosts, one answer: ok"
kill -TERM "$proxy"
wait "$proxy" || fail "it stopped with $?: $(tail -3 "$work/proxy.log")"
echo "container: ok, with $what"
