#!/usr/bin/env bash
# bench.sh PART [ARGUMENT...]: measures on a real cluster, into target/bench-PART.md.
#
#   startup  how long a session takes, and what it costs; about 18 minutes
#   cache    how long a session takes that starts from a cache; about 10 minutes
#   scale    what thousands of sandboxes cost the operator, on nodes that kwok plays; about 10 minutes
#
# Arguments go to benches/PART.rs, which says what there is: bench.sh PART --help. Nothing else should use the cluster, or the
# machine, meanwhile. A cluster that was not up (CLUSTER, aigise-test when unset) is taken down again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CLUSTER=${CLUSTER:-aigise-test}
cluster=tests/kind/cluster
part=${1:-}
program=${part/cache/startup}
if [ -z "$part" ] || [ ! -e "benches/$program.rs" ]; then
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
shift
report=target/bench-$part.md
# Not the release profile: the client waits nearly all the time, and `make check` has compiled what this needs.
bench() { cargo bench --quiet --profile dev --bench "$program" -- "$@"; }
case " $* " in *" --help "* | *" -h "*) bench --help; exit ;; esac

at_exit=:
trap 'eval "$at_exit"' EXIT
eval "$($cluster env)"
if ! kubectl get --raw /readyz --request-timeout 5s >/dev/null 2>&1; then
  at_exit="$cluster down"
  $cluster up
fi
case $part in
startup | cache)
  # The metrics are read through the API server, whose address no peer of a policy can name.
  make --no-print-directory install VALUES='--set networkPolicy.enabled=false'
  tests/images/build.sh target/image
  "$cluster" load target/image/e2e.oci.tar
  arguments=()
  [ "$part" = startup ] || arguments=(--only cache --patience 300)
  ;;
scale)
  make --no-print-directory binaries
  # The chart for its rights; the operator itself is a process of the benchmark.
  helm upgrade --install aigise charts/aigise-operator -n aigise-system --create-namespace >/dev/null
  kubectl -n aigise-system scale deploy/aigise-operator --replicas 0 >/dev/null
  kubectl -n aigise-system wait pod --all --for delete --timeout 60s >/dev/null
  kubeconfig=$PWD/target/bench-operator.kubeconfig
  at_exit="rm -f $kubeconfig; kubectl -n aigise-system scale deploy/aigise-operator --replicas 1 >/dev/null; $at_exit"
  (umask 077 && kubectl config view --raw --flatten --minify >"$kubeconfig")
  kubectl --kubeconfig "$kubeconfig" config set-credentials operator >/dev/null \
    --token "$(kubectl -n aigise-system create token aigise-operator --duration 8h)"
  kubectl --kubeconfig "$kubeconfig" config set-context --current --user operator >/dev/null
  arguments=(--operator-kubeconfig "$kubeconfig" --kwok "$(tests/kind/kwok/build.sh)" --relist "$cluster restart-apiserver")
  ;;
esac
cargo bench --quiet --profile dev --bench "$program" --no-run
{
  printf '# Measured\n\n'
  printf 'Operator %s, ' "$(git describe --always --dirty --tags 2>/dev/null || echo '?')"
  printf 'Kubernetes %s, ' "$(kubectl get nodes -o jsonpath='{.items[0].status.nodeInfo.kubeletVersion}')"
  printf '%s nodes on one machine of %s cores and %s GB, ' "$(kubectl get nodes -o name | wc -l)" "$(nproc)" \
    "$(awk '/MemTotal/ {printf "%.0f", $2 / 1e6}' /proc/meminfo)"
  printf 'whose load was %s before' "$(cut -d ' ' -f 1 /proc/loadavg)"
  status=0
  measured=$(bench --audit "$cluster audit" "${arguments[@]}" "$@") || status=$?
  printf ' and %s after.\n%s\n' "$(cut -d ' ' -f 1 /proc/loadavg)" "$measured"
  if [ "$part" = cache ]; then
    printf '\n## Layers, beside `tar` and `zstd` over the same files\n\n```\n'
    cargo test --quiet --lib layer::tests::measure -- --ignored --nocapture --test-threads 1 | grep -v '^$\|^running\|^test \|^\.$'
    printf '```\n'
  fi
  [ "$status" = 0 ]
} | tee "$report"
