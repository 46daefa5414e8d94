#!/usr/bin/env bash
# Makes a container image that holds one static binary and nothing else, and loads it into docker,
# or writes it to the file ARCHIVE, for which no docker is needed.
#
# Usage: hack/image.sh IMAGE OS/ARCH VERSION [ARCHIVE]
#
# The archive is an OCI image layout, with the manifest.json that older engines look for.
# Nothing is pulled: the image begins from scratch, root certificates are in the binary.
# The binary is built by the Go that is here, or by that of GO_IMAGE where there is none.
# Its bytes depend on the source, the version and the release of Go alone. GO_BUILD is the
# command that builds (see the Makefile).
set -euo pipefail
image=$1 platform=$2 version=$3 archive=${4:-}
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
if [[ -z $archive ]] && ! "$docker" version >/dev/null 2>&1; then
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

# One layer, its config, its manifest and an index: the same bytes on every machine.
pack() { tar --create --directory "$1" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar "${@:2}"; }
layout=$out/layout
mkdir -p "$layout/blobs/sha256"
blob() { # FILE: moves it into the layout, and says its digest
  local digest
  digest=$(sha256sum "$1" | cut -d' ' -f1)
  mv "$1" "$layout/blobs/sha256/$digest"
  echo "$digest"
}
descriptor() { # MEDIA-TYPE DIGEST [MORE]
  echo "{\"mediaType\": \"$1\", \"digest\": \"sha256:$2\", \"size\": $(stat -c %s "$layout/blobs/sha256/$2")${3:-}}"
}
oci=application/vnd.oci.image
pack "$out" sakeeper >"$out/layer"
layer=$(blob "$out/layer")
cat >"$out/config" <<JSON
{"architecture": "${platform#*/}", "os": "${platform%/*}", "created": "1970-01-01T00:00:00Z",
 "config": {"Entrypoint": ["/sakeeper"], "User": "65532:65532", "Labels": {"org.opencontainers.image.title": "sakeeper",
  "org.opencontainers.image.version": "$version", "org.opencontainers.image.licenses": "Apache-2.0"}},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]},
 "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "hack/image.sh"}]}
JSON
config=$(blob "$out/config")
cat >"$out/manifest" <<JSON
{"schemaVersion": 2, "mediaType": "$oci.manifest.v1+json", "config": $(descriptor $oci.config.v1+json "$config"),
 "layers": [$(descriptor $oci.layer.v1.tar "$layer")]}
JSON
manifest=$(blob "$out/manifest")
# The kubelet asks containerd for the name as docker expands it.
full=$image
[[ $image == */* ]] || full=docker.io/library/$image
name=", \"annotations\": {\"io.containerd.image.name\": \"$full\", \"org.opencontainers.image.ref.name\": \"${image##*:}\"}"
echo '{"imageLayoutVersion": "1.0.0"}' >"$layout/oci-layout"
echo "{\"schemaVersion\": 2, \"mediaType\": \"$oci.index.v1+json\", \"manifests\": [$(descriptor $oci.manifest.v1+json "$manifest" "$name")]}" >"$layout/index.json"
echo '[{"Config": "blobs/sha256/'"$config"'", "RepoTags": ["'"$image"'"], "Layers": ["blobs/sha256/'"$layer"'"]}]' >"$layout/manifest.json"
if [[ -n $archive ]]; then
  pack "$layout" blobs index.json manifest.json oci-layout >"$archive"
else
  pack "$layout" blobs index.json manifest.json oci-layout | "$docker" load >/dev/null
fi
echo "$image: $platform, $(du --apparent-size -m "$out/sakeeper" | cut -f1) MB"
