#!/usr/bin/env bash
# Builds a real control plane from modules: the release that hack/tools/go.mod pins, or
# another one, whose requirements are read from its own go.mod.
# Usage: hack/assets.sh VERSION DIRECTORY
set -euo pipefail
version=$1
mkdir -p "$2"
out=$(realpath "$2")
cd "$(dirname "$0")/tools"
pinned=$(awk '$1 == "k8s.io/kubernetes" {print $2; exit}' go.mod)

IFS=. read -r major minor _ <<<"${version#v}"
package=k8s.io/component-base/version
stamp="-X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor -X $package.gitTreeState=clean"

export CGO_ENABLED=0
echo "Building Kubernetes $version and etcd into $2: some 5 minutes on two cores, once." >&2
go build -trimpath -ldflags "-s -w" -o "$out/etcd" go.etcd.io/etcd/server/v3
if [[ $version != "$pinned" ]]; then
  # As a module, Kubernetes needs its own libraries replaced by their published versions.
  module=$out/module
  mkdir -p "$module"
  mod=$(cd / && go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^\t"GoMod": "\(.*\)",\{0,1\}$/\1/p')
  {
    printf 'module assets\n\ngo %s\n\nrequire k8s.io/kubernetes %s\n' "$(awk '$1 == "go" {print $2; exit}' go.mod)" "$version"
    sed -n 's,^\t\(k8s\.io/[^ ]*\) => \./staging/.*,replace \1 => \1 v0.'"${version#v1.}"',p' "$mod"
  } >"$module/go.mod"
  cd "$module"
  export GOFLAGS=-mod=mod
fi
go build -trimpath -ldflags "-s -w $stamp" -o "$out/" \
  k8s.io/kubernetes/cmd/kube-apiserver \
  k8s.io/kubernetes/cmd/kube-controller-manager \
  k8s.io/kubernetes/cmd/kubectl
