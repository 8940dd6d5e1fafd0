#!/usr/bin/env bash
# Writes the CustomResourceDefinition that the types in src/api describe to crds/, or with --check says how the two differ.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

file=crds/stateepochpolicies.epochwarden.io.yaml
# Examples are named only so that Cargo unifies features as it does for the tests: nothing is compiled twice.
cargo build --quiet ${CI:+--locked} --workspace --bins --examples
target=$(tools/target-dir.sh)
mkdir -p crds
fresh=$(mktemp crds/.fresh.XXXXXX)
trap 'rm -f "$fresh"' EXIT
"$target/debug/epochwarden" crd >"$fresh"
[[ -s $fresh ]] || { echo "'epochwarden crd' printed nothing." >&2; exit 1; }

if [[ ${1-} == --check ]]; then
  if ! diff -u "$file" "$fresh"; then
    echo "$file is not what src/api describes: run 'make crds' and commit the result." >&2
    exit 1
  fi
  echo "$file is up to date."
else
  chmod 644 "$fresh"
  mv "$fresh" "$file"
  echo "Wrote $file."
fi
