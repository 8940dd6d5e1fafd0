#!/usr/bin/env bash
# Writes the CustomResourceDefinition that the types in src/api describe to crds/ and to the chart, or with --check says how they differ.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

file=crds/stateepochpolicies.epochwarden.io.yaml
template=charts/epochwarden/templates/crd.yaml
# Examples are named only so that Cargo unifies features as it does for the tests: nothing is compiled twice.
cargo build --quiet ${CI:+--locked} --workspace --bins --examples
target=$(tools/target-dir.sh)
mkdir -p crds
fresh=$(mktemp crds/.fresh.XXXXXX)
templated=$(mktemp crds/.fresh.XXXXXX)
trap 'rm -f "$fresh" "$templated"' EXIT
"$target/debug/epochwarden" crd >"$fresh"
[[ -s $fresh ]] || { echo "'epochwarden crd' printed nothing." >&2; exit 1; }
# The resource as it is, with what Helm has to know of it.
awk '
  NR == 1 { print "{{- if .Values.crds.enabled }}" }
  /\{\{/ { print "a line of the resource reads as a template: " $0 > "/dev/stderr"; exit 1 }
  { print }
  /^metadata:$/ {
    print "  labels:"
    print "    {{- include \"epochwarden.labels\" . | nindent 4 }}"
    print "  {{- if .Values.crds.keep }}"
    print "  annotations:"
    print "    helm.sh/resource-policy: keep"
    print "  {{- end }}"
  }
  END { print "{{- end }}" }
' "$fresh" >"$templated"

compare() {
  diff -u "$1" "$2" && return
  echo "$1 is not what src/api describes: run 'make crds' and commit the result." >&2
  return 1
}

if [[ ${1-} == --check ]]; then
  compare "$file" "$fresh"
  compare "$template" "$templated"
  echo "$file and $template are up to date."
else
  chmod 644 "$fresh" "$templated"
  mv "$fresh" "$file"
  mv "$templated" "$template"
  echo "Wrote $file and $template."
fi
