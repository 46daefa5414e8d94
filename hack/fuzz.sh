#!/usr/bin/env bash
# Runs every fuzz target of the product for a while.
# Usage: hack/fuzz.sh TIME     (for example 1m)
set -euo pipefail
cd "$(dirname "$0")/.."
grep -rlE '^func Fuzz' --include='*_test.go' cmd pkg | while read -r file; do
  for target in $(sed -n 's/^func \(Fuzz[A-Za-z]*\).*/\1/p' "$file"); do
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" -fuzzminimizetime 20x "./$(dirname "$file")" </dev/null
  done
done
