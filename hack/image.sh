#!/usr/bin/env bash
# Makes a container image that holds one static binary and nothing else.
#
# Usage: hack/image.sh IMAGE OS/ARCH VERSION
#
# Nothing is pulled: the image begins from scratch, root certificates are in the binary.
# The binary is built by the Go that is here, or by that of GO_IMAGE where there is none.
# Its bytes depend on the source, the version and the release of Go alone. GO_BUILD is the
# command that builds (see the Makefile).
set -euo pipefail
image=$1 platform=$2 version=$3
docker=${DOCKER:-docker}
cd "$(dirname "$0")/.."

out=bin/image/${platform/\//_}
# shellcheck disable=SC2206 # words of a command
build=(env ${GO_BUILD:?is not set: run make image} -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$out/sakeeper" ./cmd/sakeeper)
settings=("GOOS=${platform%/*}" "GOARCH=${platform#*/}" GOFLAGS=)

case $platform in
  */?*) ;;
  *) echo "hack/image.sh: PLATFORM is '$platform': say for example linux/amd64" >&2; exit 1 ;;
esac
if ! "$docker" version >/dev/null 2>&1; then
  echo "hack/image.sh: no docker engine answers '$docker version': start one, or name another client in DOCKER" >&2
  exit 1
fi
rm -rf "$out"
mkdir -p "$out"
if command -v go >/dev/null; then
  env "${settings[@]}" "${build[@]}"
else
  go_image=${GO_IMAGE:-golang:$(awk '$1 == "go" {print $2; exit}' go.mod)}
  "$docker" run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/src" --workdir /src \
    "${settings[@]/#/--env=}" --env=HOME=/tmp "$go_image" "${build[@]}"
fi
chmod 0755 "$out/sakeeper"

# One layer and its config, the same bytes on every machine.
digest() { sha256sum "$1" | cut -d' ' -f1; }
pack() { tar --create --directory "$1" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar "${@:2}"; }
pack "$out" sakeeper >"$out/layer.tar"
cat >"$out/config.json" <<JSON
{"architecture": "${platform#*/}", "os": "${platform%/*}", "created": "1970-01-01T00:00:00Z",
 "config": {"Entrypoint": ["/sakeeper"], "User": "65532:65532", "Labels": {"org.opencontainers.image.title": "sakeeper",
  "org.opencontainers.image.version": "$version", "org.opencontainers.image.licenses": "Apache-2.0"}},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$(digest "$out/layer.tar")"]},
 "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "hack/image.sh"}]}
JSON
echo '[{"Config": "config.json", "RepoTags": ["'"$image"'"], "Layers": ["layer.tar"]}]' >"$out/manifest.json"
pack "$out" config.json layer.tar manifest.json | "$docker" load >/dev/null
echo "$image: $platform, $(du --apparent-size -m "$out/sakeeper" | cut -f1) MB"
