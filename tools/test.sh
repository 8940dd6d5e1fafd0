#!/usr/bin/env bash
# Runs every check and every test, and goes on after a failure so that one run shows all of them. With the argument `long` it runs
# the tests that take too long for every day, and nothing else; with `model` the models with larger bounds, with `mutations` the
# simulation and some tests on broken code, with `conformance` the tests on MinIO and Azurite, with `e2e` those on a real
# node with pods. The last line is "N passed, N failed": the tests of all binaries,
# where each check that failed counts as one failure more.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

passed=0
failed=0
unsuccessful=()

fail() {
  failed=$((failed + $1))
  unsuccessful+=("$2")
}

finish() {
  if [[ ${#unsuccessful[@]} -gt 0 ]]; then
    printf '\nNot successful: %s\n' "$(IFS=';'; printf '%s' "${unsuccessful[*]}" | sed 's/;/; /g')"
  fi
  printf '%s passed, %s failed\n' "$passed" "$failed"
  [[ $failed -eq 0 ]]
  exit
}

check() {
  local name=$1
  shift
  printf '\n%s: %s\n' "$name" "$*"
  "$@" || fail 1 "$name"
}

# Runs `cargo test` with these arguments and counts what it says. Of a binary that died before it could count there is no result,
# only its place among the targets that Cargo calls failed.
run_tests() {
  local ok broken died status
  cargo test ${locked[@]+"${locked[@]}"} "$@" 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  read -r ok broken died < <(awk '
    /^test result: / {
      for (i = 2; i <= NF; i++) {
        if ($i == "passed;") ok += $(i - 1)
        if ($i == "failed;") broken += $(i - 1)
      }
      if ($3 == "FAILED.") counted++
    }
    /^error: [0-9]+ targets? failed/ { targets = $2 }
    END { print ok + 0, broken + 0, (targets > counted ? targets - counted : 0) }
  ' "$log")
  passed=$((passed + ok))
  [[ $broken -eq 0 ]] || fail "$broken" "$broken tests"
  [[ $died -eq 0 ]] || fail "$died" "$died test binaries ended without a result"
  if [[ $status -ne 0 && $broken -eq 0 && $died -eq 0 ]]; then
    fail 1 "cargo test ended with status $status"
  fi
}

locked=(${CI:+--locked})
# End-to-end tests mostly wait: for a lease to expire, a slot to come, a connection to be given up.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-8}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

if [[ ${1-} == model ]]; then
  check Lints cargo clippy ${locked[@]+"${locked[@]}"} -p epochwarden-model --test larger -- -D warnings
  printf '\nModels with larger bounds: building and searching, one after the other\n'
  run_tests -p epochwarden-model --test larger -- --nocapture --test-threads=1
  finish
fi

# Builds an extra server and names its tests; where it cannot be built they are skipped, aloud.
with_server() {
  local server=$1 tests=$2
  if tools/build.sh --extra "$server" 2>&1 | tee "$log"; then
    filters+=("$tests")
    return
  fi
  printf 'Skipped: the tests %s, because %s could not be built: %s\n' "$tests" "$server" "$(tail -n 1 "$log")"
}

if [[ ${1-} == conformance ]]; then
  filters=()
  with_server minio on_minio
  with_server azurite on_azurite
  if [[ ${#filters[@]} -gt 0 ]]; then
    printf '\nConformance: building and running\n'
    # Azurite serves from one thread, and resets connections that wait too long for their turn.
    RUST_TEST_THREADS=4
    # What a test leaves out on a store it prints, also where it passes.
    run_tests --package epochwarden-store --test conformance -- --ignored --show-output "${filters[@]}"
  fi
  finish
fi

printf 'Test servers\n'
if ! EPOCHWARDEN_TOOLS_BIN=$(tools/build.sh); then
  fail 1 "building the test servers"
  finish
fi
export EPOCHWARDEN_TOOLS_BIN

if [[ ${1-} == long ]]; then
  check Lints cargo clippy ${locked[@]+"${locked[@]}"} --test long -- -D warnings
  printf '\nLong tests: building and running\n'
  run_tests --test long
  finish
fi

if [[ ${1-} == e2e ]]; then
  reason=
  [[ $(uname -s) == Linux ]] || reason="pods run on Linux only"
  [[ -n $reason || $(id -u) == 0 ]] || reason="only root may make the namespaces that a node lives in"
  if [[ -z $reason ]] && ! tools/build.sh --node 2>&1 | tee "$log"; then
    reason="what runs pods could not be built: $(tail -n 1 "$log")"
  fi
  if [[ -n $reason ]]; then
    printf 'Skipped: all tests on a node, because %s\n' "$reason"
    finish
  fi
  tools/build.sh --extra helm || fail 1 "building helm"
  check Lints cargo clippy ${locked[@]+"${locked[@]}"} --test node -- -D warnings
  check "The example pipeline" cargo build ${locked[@]+"${locked[@]}"} --workspace --bins --examples
  printf '\nThe image: a release build (several minutes the first time)\n'
  if ! tools/image.sh; then
    fail 1 "building the image"
    finish
  fi
  # What is released is what is installed.
  export EPOCHWARDEN_IMAGE=$PWD/dist/epochwarden-image.tar
  printf '\nIn the files of the image: names, certificates, TLS\n'
  run_tests --test e2e -- image:: --nocapture
  printf '\nOn a real node: building and running, one after the other\n'
  run_tests --test node -- --test-threads=1 --show-output
  finish
fi

if [[ ${1-} == mutations ]]; then
  check Lints cargo clippy ${locked[@]+"${locked[@]}"} --workspace --test mutations -- -D warnings
  printf '\nMutations: building and running tests on code that is broken in one place after the other\n'
  run_tests --workspace --test mutations -- --ignored --nocapture
  finish
fi

printf '\nTools for the chart\n'
for tool in helm kubeconform promtool; do
  tools/build.sh --extra "$tool" || fail 1 "building $tool"
done

check Formatting cargo fmt --all --check
check Lints cargo clippy ${locked[@]+"${locked[@]}"} --workspace --all-targets -- -D warnings
check Documentation env RUSTDOCFLAGS="${RUSTDOCFLAGS-} -D warnings" cargo doc ${locked[@]+"${locked[@]}"} --workspace --no-deps

printf '\nTests: building (several minutes the first time)\n'
if ! cargo test ${locked[@]+"${locked[@]}"} --workspace --no-run; then
  fail 1 "building the tests"
  finish
fi
check CRD tools/crds.sh --check
check "README of the chart" tools/chart-readme.sh --check

printf '\nTests: running\n'
run_tests --workspace --no-fail-fast
finish
