#!/usr/bin/env bash
# Makes a release in two clones of the current commit, in directories of different lengths, and
# fails unless every file has the same bytes.
#
# Usage: hack/reproduce.sh VERSION
set -euo pipefail
version=$1
cd "$(dirname "$0")/.."
top=$(mktemp -d)
trap 'chmod -R u+w "$top"; rm -rf "$top"' EXIT
for clone in a a-longer-name; do
  git clone --quiet . "$top/$clone"
  make --no-print-directory -C "$top/$clone" release VERSION="$version"
done
diff --recursive --brief "$top/a/bin/release/$version" "$top/a-longer-name/bin/release/$version"
(cd "$top/a/bin/release/$version" && sha256sum --check --quiet SHA256SUMS)
echo "Both clones made the same $(wc -l <"$top/a/bin/release/$version/SHA256SUMS") files."
