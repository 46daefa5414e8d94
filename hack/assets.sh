#!/usr/bin/env bash
# Builds a real control plane from the modules that hack/tools/go.mod pins.
# Usage: hack/assets.sh VERSION DIRECTORY
set -euo pipefail
version=$1
mkdir -p "$2"
out=$(realpath "$2")
cd "$(dirname "$0")/tools"

IFS=. read -r major minor _ <<<"${version#v}"
package=k8s.io/component-base/version
stamp="-X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor -X $package.gitTreeState=clean"

export CGO_ENABLED=0
echo "Building Kubernetes $version and etcd into $2: some 5 minutes on two cores, once." >&2
go build -trimpath -ldflags "-s -w $stamp" -o "$out/" \
  k8s.io/kubernetes/cmd/kube-apiserver \
  k8s.io/kubernetes/cmd/kube-controller-manager \
  k8s.io/kubernetes/cmd/kubectl
go build -trimpath -ldflags "-s -w" -o "$out/etcd" go.etcd.io/etcd/server/v3
