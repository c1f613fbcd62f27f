#!/usr/bin/env bash
# bench.sh [ARGUMENT...]: how long a session takes on a real cluster, and what it costs, into target/bench.md.
#
# Arguments go to benches/startup.rs, which says what there is: bench.sh --help. Takes about 14 minutes; nothing else should use
# the cluster, or the machine, meanwhile. A cluster that was not up (CLUSTER, aigise-test when unset) is taken down again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CLUSTER=${CLUSTER:-aigise-test}
cluster=tests/kind/cluster
report=target/bench.md
# Not the release profile: the client waits nearly all the time, and `make check` has compiled what this needs.
bench() { cargo bench --quiet --profile dev --bench startup -- "$@"; }
case " $* " in *" --help "* | *" -h "*) bench --help; exit ;; esac

eval "$($cluster env)"
if ! kubectl get --raw /readyz --request-timeout 5s >/dev/null 2>&1; then
  trap '$cluster down' EXIT
fi
make --no-print-directory install
cargo bench --quiet --profile dev --bench startup --no-run
{
  printf '# Measured\n\n'
  printf 'Operator %s, ' "$(git describe --always --dirty --tags 2>/dev/null || echo '?')"
  printf 'Kubernetes %s, ' "$(kubectl get nodes -o jsonpath='{.items[0].status.nodeInfo.kubeletVersion}')"
  printf '%s nodes on one machine of %s cores and %s GB, ' "$(kubectl get nodes -o name | wc -l)" "$(nproc)" \
    "$(awk '/MemTotal/ {printf "%.0f", $2 / 1e6}' /proc/meminfo)"
  printf 'whose load was %s before' "$(cut -d ' ' -f 1 /proc/loadavg)"
  measured=$(bench --audit "$cluster audit" "$@")
  printf ' and %s after.\n%s\n' "$(cut -d ' ' -f 1 /proc/loadavg)" "$measured"
} | tee "$report.part"
mv "$report.part" "$report"
