#!/usr/bin/env bash
# Builds programs of a real control plane from modules into bin/k8s/VERSION: those of the
# release that hack/tools/go.mod pins, or of another one, whose requirements are read from
# its own go.mod. What is there already is not built again.
#
# Usage: hack/assets.sh VERSION PROGRAM...
#
# KUBEBUILDER_ASSETS, where it is set, has all programs but kube-controller-manager: they are
# not built, but must be there. GO_BUILD is the command that builds (see the Makefile).
set -euo pipefail
version=$1
shift
: "${GO_BUILD:?is not set: run make assets}"
cd "$(dirname "$0")/tools"
out=$PWD/../../bin/k8s/$version
pinned=$(awk '$1 == "k8s.io/kubernetes" {print $2; exit}' go.mod)
built_from=$(cat go.mod go.sum | sha256sum)

missing=()
for name; do
  if [[ -n ${KUBEBUILDER_ASSETS:-} && $name != kube-controller-manager ]]; then
    if [[ $KUBEBUILDER_ASSETS != /* ]]; then
      echo "KUBEBUILDER_ASSETS is $KUBEBUILDER_ASSETS: give an absolute path, or unset it to build $name." >&2
      exit 1
    elif [[ ! -x $KUBEBUILDER_ASSETS/$name ]]; then
      echo "KUBEBUILDER_ASSETS: $KUBEBUILDER_ASSETS/$name is missing: unset the variable to build $name." >&2
      exit 1
    fi
  elif [[ ! -x $out/$name || $(cat "$out/.$name" 2>/dev/null) != "$built_from" ]]; then
    missing+=("$name")
  fi
done
((${#missing[@]})) || exit 0

# progress reads what go prints, and shows one line in place of those about modules that are
# downloaded and packages that are compiled. Everything else is printed as it is.
declare -A packages
progress() {
  local seen=0 next=0 every=30 begun= line status text
  [[ -t 2 ]] && every=1
  while :; do
    status=0
    IFS= read -r -t 1 line || status=$? # 1 is the end, above 128 the line did not end within a second
    line=$begun$line begun=
    ((status <= 128)) || begun=$line
    if ((status == 0)) || [[ $status == 1 && -n $line ]]; then
      if [[ $line == "go: downloading "* || -n $line && -n ${packages[$line]:-} ]]; then
        seen=$((seen + 1))
      else
        [[ -t 2 ]] && printf '\r\e[K' >&2
        printf '%s\n' "$line" >&2
      fi
    fi
    ((status != 1)) || break
    if ((SECONDS >= next)); then
      show
      next=$((SECONDS + every))
    fi
  done
  show
  [[ ! -t 2 || -z $text ]] || echo >&2
}

show() {
  # go names a package when it begins to compile it, so that the last ones are linked.
  case ${#packages[@]}/$seen in
    0/0) text= ;;
    0/*) text="$seen modules downloaded" ;;
    "$seen/$seen") text="$seen of $seen packages, linking" ;;
    *) text="$seen of ${#packages[@]} packages" ;;
  esac
  [[ -n $text ]] || return 0
  text="Kubernetes $version: $text, $((SECONDS / 60))m$((SECONDS % 60))s"
  if [[ -t 2 ]]; then printf '\r%s\e[K' "$text" >&2; else printf '%s\n' "$text" >&2; fi
}

# build builds programs of the module in this directory.
work=
trap 'rm -rf "$work"' EXIT
build() {
  local paths=() name major minor
  for name; do
    case $name in
      etcd) paths+=(go.etcd.io/etcd/server/v3) ;;
      *) paths+=("k8s.io/kubernetes/cmd/$name") ;;
    esac
  done
  IFS=. read -r major minor _ <<<"${version#v}"
  local package=k8s.io/component-base/version
  local stamp="-X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor -X $package.gitTreeState=clean"

  # Here modules are downloaded. A program that only must be linked is not compiled.
  packages=()
  env ${GO_BUILD/go build/go list} -deps \
    -f '{{if and .Stale (ne .StaleReason "not installed but available in build cache")}}{{.ImportPath}}{{end}}' \
    "${paths[@]}" 2>&1 >"$work/packages" | progress
  while IFS= read -r name; do packages[$name]=1; done <"$work/packages"
  env $GO_BUILD -v -ldflags "-s -w $stamp" -o "$work/" "${paths[@]}" 2>&1 | progress

  for name; do
    case $name in
      etcd) mv "$work/server" "$out/etcd" ;;
      *) mv "$work/$name" "$out/$name" ;;
    esac
    echo "$built_from" >"$out/.$name"
  done
}

mkdir -p "$out"
work=$(mktemp -d "$out/.build-XXXXXX")
if [[ $version == "$pinned" ]]; then
  build "${missing[@]}"
  exit
fi
kubernetes=()
for name in "${missing[@]}"; do
  if [[ $name == etcd ]]; then build etcd; else kubernetes+=("$name"); fi
done
((${#kubernetes[@]})) || exit 0
# As a module, Kubernetes needs its own libraries replaced by their published versions.
module=$out/module
mkdir -p "$module"
mod=$(cd / && go list -m -f '{{.GoMod}}' "k8s.io/kubernetes@$version")
# A newer release may need a newer Go than this machine has.
export GOTOOLCHAIN=auto
newest=$(awk '$1 == "go" {print $2}' go.mod "$mod" | sort -V | tail -n 1)
{
  printf 'module assets\n\ngo %s\n\nrequire k8s.io/kubernetes %s\n' "$newest" "$version"
  sed -n 's,^\t\(k8s\.io/[^ ]*\) => \./staging/.*,replace \1 => \1 v0.'"${version#v1.}"',p' "$mod"
} >"$module/go.mod"
cd "$module"
export GOFLAGS=-mod=mod
build "${kubernetes[@]}"
