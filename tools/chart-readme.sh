#!/usr/bin/env bash
# Writes the README of the chart from the comments in its values, or with --check says how the two differ.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../charts/epochwarden"

values() {
  # A value belongs to the comment right above it; a key without one only groups others.
  awk '
    function flush() {
      if (key != "") printf "| `%s` | %s | %s |\n", key, text, value == "" ? "see values.yaml" : "`" value "`"
      key = ""
    }
    /^ *#/ { sub(/^ *# ?/, ""); comment = comment == "" ? $0 : comment " " $0; next }
    /^ *$/ { flush(); comment = ""; next }
    {
      match($0, /^ */); depth = RLENGTH / 2
      if (key != "" && depth > level) next
      flush()
      value = $0; sub(/^[^:]*: */, "", value)
      sub(/^ */, ""); sub(/:.*/, ""); path[depth] = $0
      if (value == path[depth] ":") value = ""
      if (comment == "") next
      key = path[0]; for (n = 1; n <= depth; n++) key = key "." path[n]
      text = comment; level = depth; comment = ""
    }
    END { flush() }
  ' values.yaml
}

readme() {
  local version
  version=$(sed -n 's/^kubeVersion: ">=\(.*\)-0"$/\1/p' Chart.yaml)
  cat <<END
# The chart of Epochwarden

Made from values.yaml by \`make chart\`. [Installing](../../docs/install.md) says how to come from nothing to a policy that is Ready.

\`\`\`console
\$ helm install epochwarden charts/epochwarden --namespace epochwarden --create-namespace --set image.repository=REGISTRY/epochwarden
\`\`\`

It needs Kubernetes $version or newer, and installs two operators of which one acts, the CustomResourceDefinition (which stays when the
release goes, with all policies), a ServiceAccount with exactly the rights that the operator uses, a Service for its metrics, and a
PodDisruptionBudget. With \`rbac.aggregate\` whoever may view, edit or administer a namespace may do so with its policies. Whatever else there
is waits to be enabled. The pods keep to the restricted profile. Values that the chart does not know are
refused, but for \`global\` and \`enabled\`, which belong to charts that this one is a part of.

| value | what it is | default |
|---|---|---|
END
  values
}

fresh=$(mktemp .readme.XXXXXX)
trap 'rm -f "$fresh"' EXIT
readme >"$fresh"
if [[ ${1-} == --check ]]; then
  if ! diff -u README.md "$fresh"; then
    echo "The README of the chart is not what its values say: run 'make chart' and commit the result." >&2
    exit 1
  fi
  echo "The README of the chart is up to date."
else
  chmod 644 "$fresh"
  mv "$fresh" README.md
  echo "Wrote charts/epochwarden/README.md."
fi
