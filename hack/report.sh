#!/usr/bin/env bash
# Writes sample reports and opens them in headless Chromium: hack/report.sh DIR. Screenshots are
# left in DIR. It installs Debian's chromium where there is none, and the npm packages that
# hack/report/package-lock.json pins.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:?usage: hack/report.sh DIR}
mkdir -p "$dir"
dir=$(realpath "$dir")
for tool in chromium npm; do
  command -v "$tool" >/dev/null || { apt-get update -q && apt-get install -qy --no-install-recommends chromium npm fonts-dejavu-core; break; }
done
cp hack/report/* "$dir"
(cd "$dir" && npm ci --silent --no-audit --no-fund --ignore-scripts)
REPORT_SAMPLES=$dir go test -count 1 -run TestWriteSamples ./cmd/kubectl-sakeeper/report
node "$dir/check.mjs" "$dir" "$(command -v chromium)"
