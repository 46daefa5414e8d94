#!/usr/bin/env bash
# Makes everything that a release has, in bin/release/VERSION: binaries, image archives, manifests,
# the chart, the plugin's archives and its krew manifest, bills of materials, sums and provenance.
#
# Usage: hack/release.sh VERSION        (v1.2.3, or v1.2.3-rc.1)
#
# Nothing is uploaded. The bytes depend on the commit, the version and the release of Go alone, so
# that anybody can make them again and compare (make test-release does).
set -euo pipefail
version=${1:-}
cd "$(dirname "$0")/.."
fail() { echo "hack/release.sh: $*" >&2; exit 1; }

[[ $version =~ ^v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?$ ]] ||
  fail "VERSION is '$version': say a semantic version with a v before it, for example v0.1.0"
[[ -z $(git status --porcelain) ]] || fail "there are changes that are not committed: a release is of one commit"
commit=$(git rev-parse HEAD)
if tagged=$(git rev-parse --quiet --verify "refs/tags/$version^{commit}") && [[ $tagged != "$commit" ]]; then
  fail "the tag $version is of commit $tagged, and $commit is checked out"
fi
source=https://github.com/sakeeper/sakeeper
export SOURCE_DATE_EPOCH=0

out=bin/release/$version work=bin/release/work
rm -rf "$out" "$work"
mkdir -p "$out" "$work"

build() { # OS ARCH PACKAGE FILE
  echo "Building $(basename "$4") for $1/$2"
  # shellcheck disable=SC2086 # GO_BUILD is a command with words
  env GOOS="$1" GOARCH="$2" GOFLAGS= ${GO_BUILD:?is not set: run make release} -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$4" "./cmd/$3"
}
pack() { # DIRECTORY FILE NAME...: a tar.gz that is the same everywhere
  tar --create --directory "$1" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --format=ustar "${@:3}" | gzip --no-name --best >"$2"
}
sum() { sha256sum "$1" | cut -d' ' -f1; }

for arch in amd64 arm64; do
  hack/image.sh "sakeeper:$version" "linux/$arch" "$version" "$out/sakeeper-$version-linux-$arch.oci.tar"
  cp "bin/image/linux_$arch/sakeeper" "$out/sakeeper-linux-$arch"
done

krew=cmd/kubectl-sakeeper/krew.yaml
for platform in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64; do
  os=${platform%/*} arch=${platform#*/} dir=$work/${platform/\//-} name=kubectl-sakeeper
  [[ $os != windows ]] || name+=.exe
  mkdir -p "$dir"
  build "$os" "$arch" kubectl-sakeeper "$dir/$name"
  cp LICENSE "$dir/"
  pack "$dir" "$out/kubectl-sakeeper-$os-$arch.tar.gz" LICENSE "$name"
done
while IFS= read -r line; do
  line=${line//'{{ .TagName }}'/$version}
  if [[ $line =~ ^([[:space:]]*)\{\{addURIAndSha\ \"([^\"]*)\" ]]; then
    indent=${BASH_REMATCH[1]} uri=${BASH_REMATCH[2]}
    line="${indent}uri: $uri"$'\n'"${indent}sha256: $(sum "$out/${uri##*/}")"
  fi
  [[ $line == '#'* ]] || printf '%s\n' "$line"
done <"$krew" >"$out/krew.yaml"

for file in manifests/rendered/*.yaml; do
  mkdir -p "$work/manifests"
  sed "s,image: sakeeper:dev\$,image: sakeeper:$version," "$file" >"$work/manifests/$(basename "$file")"
done
pack "$work" "$out/manifests-$version.tar.gz" manifests

echo "Packaging the chart"
"${HELM:?is not set: run make release}" package manifests/charts/sakeeper --version "${version#v}" --app-version "$version" --destination "$out" >/dev/null

bom=${CYCLONEDX:?is not set: run make release}
for main in sakeeper kubectl-sakeeper; do
  GOOS=linux GOARCH=amd64 "$bom" app -json -noserial -notimestamp -std -main "cmd/$main" -output "$out/$main.cdx.json" . 2>"$work/bom.log" ||
    { cat "$work/bom.log" >&2; fail "the bill of materials of $main"; }
done

(cd "$out" && sha256sum -- * >"../work/SHA256SUMS" && mv ../work/SHA256SUMS .)

# An in-toto statement about all files: https://slsa.dev/spec/v1.0/provenance. It says what they
# were made from; who made them is what a signature over it says.
subjects=$(awk '{printf "%s{\"name\": \"%s\", \"digest\": {\"sha256\": \"%s\"}}", sep, $2, $1; sep = ",\n  "}' "$out/SHA256SUMS")
cat >"$out/provenance.intoto.json" <<JSON
{"_type": "https://in-toto.io/Statement/v1",
 "subject": [$subjects],
 "predicateType": "https://slsa.dev/provenance/v1",
 "predicate": {
  "buildDefinition": {
   "buildType": "$source/blob/main/hack/release.sh",
   "externalParameters": {"command": "make release VERSION=$version"},
   "resolvedDependencies": [
    {"uri": "git+$source@$commit", "digest": {"gitCommit": "$commit"}},
    {"uri": "pkg:golang/stdlib@$(go env GOVERSION)"}]},
  "runDetails": {"builder": {"id": "$source/blob/main/hack/release.sh"}}}}
JSON
rm -rf "$work"
echo "Made $(find "$out" -type f | wc -l) files in $out"
