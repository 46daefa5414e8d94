#!/usr/bin/env bash
# Makes a container image that holds one static binary and nothing else.
#
# Usage: hack/image.sh IMAGE OS/ARCH VERSION
#
# Nothing is pulled: the image begins from scratch, root certificates are in the binary.
# The binary is built by the Go that is here, or by that of GO_IMAGE where there is none.
# Its bytes depend on the source, the version and the release of Go alone.
set -euo pipefail
image=$1 platform=$2 version=$3
docker=${DOCKER:-docker}
cd "$(dirname "$0")/.."

out=bin/image/${platform/\//_}
build=(go build -trimpath -buildvcs=false -tags "${TAGS:-}" -ldflags "-s -w -X main.version=$version" -o "$out/sakeeper" ./cmd/sakeeper)
settings=(CGO_ENABLED=0 "GOOS=${platform%/*}" "GOARCH=${platform#*/}" GOFLAGS=)

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

# One layer, the same bytes on every machine.
tar --create --directory "$out" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar sakeeper |
  "$docker" import --platform "$platform" \
    --change 'ENTRYPOINT ["/sakeeper"]' \
    --change 'USER 65532:65532' \
    --change "LABEL org.opencontainers.image.title=sakeeper org.opencontainers.image.version=$version org.opencontainers.image.licenses=Apache-2.0" \
    - "$image" >/dev/null
echo "$image: $platform, $(du --apparent-size -m "$out/sakeeper" | cut -f1) MB"
