#!/usr/bin/env bash
# e2e.sh [FILTER...]: the tests on a real cluster, then the example, from whatever is there: brings the cluster up, loads the
# images, installs the operator by Helm. `make e2e` calls it, with the operator's and the example's images built. The tests of the
# module `long` run beside the others, from the beginning, and are over before those of `alone`.
#
# CLUSTER names the cluster (aigise-test when unset); it is taken down in the end unless KEEP_CLUSTER=1. FILTERs choose tests by
# parts of their names; the example is then left out. THREADS is how many tests run at once (1 for a FILTER that takes in tests of
# the module `alone`: they strike the whole cluster).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CLUSTER=${CLUSTER:-aigise-test}
cluster=tests/kind/cluster images=target/image stage='' started=$SECONDS long='' long_log=target/e2e-long.log log=target/e2e.log
say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }

# finish: says what the run came to, with the logs where it failed, and takes the cluster down.
finish() {
  local status=$?
  trap - EXIT
  if [ -n "$long" ]; then
    # The others have failed: what takes long is not waited for.
    kill "$long" 2>/dev/null || :
    wait "$long" 2>/dev/null || :
    cat "$long_log"
  fi
  if [ $status != 0 ]; then
    say "e2e: $stage failed; the cluster's logs follow"
    "$cluster" logs || :
    say "e2e: once more, what the tests that failed have said"
    sed -n '/^failures:$/,$p' "$log" "$long_log" 2>/dev/null | head -c 20000 || :
  fi
  [ "${KEEP_CLUSTER:-}" = 1 ] || "$cluster" down || status=1
  if [ $status = 0 ]; then say "e2e: all well after $((SECONDS - started)) s"; else say "e2e: $stage failed (after $((SECONDS - started)) s)"; fi
  exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

rm -f "$log" "$long_log"
stage="bringing up the cluster"
"$cluster" up
eval "$("$cluster" env)"

stage="loading the images"
tests/images/build.sh "$images"
"$cluster" load "$images/e2e.oci.tar" "$images/e2e-user.oci.tar" "$images/crash-triage.oci.tar"

stage="installing the operator"
make --no-print-directory install
# What a run that was killed has left.
kubectl delete namespaces --selector aigise-e2e --wait=false

stage="building the tests"
cargo test --test e2e --no-run

stage="a test"
others=(--skip e2e::alone:: --skip e2e::long::)
if [ $# = 0 ]; then
  say "running the tests that take long, in the background"
  # By its path, so that what is killed is the test itself.
  binary=$(cargo test --quiet --test e2e --no-run --message-format json | sed -n 's/.*"executable":"\([^"]*\/e2e-[^"]*\)".*/\1/p')
  "$binary" --ignored --show-output e2e::long:: >"$long_log" 2>&1 &
  long=$!
else
  others=()
fi
say "running the tests"
cargo test --quiet --test e2e -- --ignored --test-threads="${THREADS:-3}" --show-output "${others[@]}" "$@" 2>&1 | tee "$log"

if [ $# = 0 ]; then
  stage="a test that takes long"
  say "waiting for the tests that take long"
  status=0
  wait "$long" || status=$?
  long=''
  cat "$long_log"
  [ $status = 0 ]

  stage="a test that strikes the whole cluster"
  say "running the tests that strike the whole cluster"
  cargo test --quiet --test e2e -- --ignored --test-threads=1 --show-output e2e::alone:: 2>&1 | tee "$log"

  stage="the example"
  say "running the example"
  examples/crash-triage/demo.sh
fi

stage="cleaning up"
say "waiting until the namespaces of the tests are gone"
kubectl wait --for=delete namespaces --selector aigise-e2e --timeout=180s
