#!/usr/bin/env bash
# demo.sh [--keep]: the example from start to end, on the cluster of KUBECONFIG, with the operator installed and the image
# loaded. Each command is shown before it runs, and the demo ends where one does not do what it should.
# --keep leaves the session as it is, to look around.
set -euo pipefail
export LC_ALL=C                         # a point in $EPOCHREALTIME
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
namespace=crash-triage session=crash-triage operator=${OPERATOR_NAMESPACE:-aigise-system} timeout=${TIMEOUT:-180s}
keep=${1:-}

bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
heading() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
# seconds SINCE: how long ago that was.
seconds() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", to - from }'; }

output=$(mktemp) followers=()
# follow KIND: prints each step of its objects, and the time since the start.
follow() {
  kubectl -n $namespace get "$1" --watch -o \
    'jsonpath={.kind}|{.metadata.name}|{.status.phase}|{.status.conditions[?(@.type=="Ready")].message}{"\n"}' > >(narrate) &
  followers+=($!)
}
narrate() {
  local line kind name phase message
  declare -A last
  while IFS= read -r line; do
    IFS='|' read -r kind name phase message <<<"$line"
    [ "${last[$name]-}" = "$line" ] || printf '%7s  %-13s %-24s %-12s %.80s\n' "$(seconds "$started")" "$kind" "$name" "$phase" "$message"
    last[$name]=$line
  done
}
# unfollow: ends the watches; nothing else is ours to end.
unfollow() {
  for follower in ${followers[@]+"${followers[@]}"}; do
    kill "$follower" 2>/dev/null || true
    wait "$follower" 2>/dev/null || true
  done
  followers=()
}
# finish: says what the cluster knows when the demo has failed.
finish() {
  local status=$?
  unfollow
  rm -f "$output"
  [ $status = 0 ] && return
  heading "The demo failed. What the cluster says:"
  {
    kubectl -n $namespace get asess,asb,pods,pvc -o wide
    kubectl -n $namespace describe asess,asb,pods
    kubectl -n $namespace get events --sort-by=.lastTimestamp
    kubectl -n $namespace logs --selector aigise.dev/session=$session --all-containers --prefix --tail=50
    kubectl -n "$operator" get pods -o wide
    kubectl -n "$operator" logs deploy/aigise-operator --tail=100
  } 2>&1 | sed 's/^/   /' || true
  exit $status
}
trap finish EXIT

show() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; }
# run COMMAND...: shown, then run.
run() {
  show "$@"
  "$@"
}
# see STATUS TEXT COMMAND...: shown, then run; it has to end with STATUS and print TEXT, if any.
see() {
  local expected=$1 text=$2 status=0
  shift 2
  show "$@"
  "$@" >"$output" 2>&1 || status=$?
  cat "$output"
  if [ "$status" != "$expected" ]; then
    echo "demo: that ended with $status, not with $expected" >&2
    return 1
  fi
  if [ -n "$text" ] && ! grep -qF -- "$text" "$output"; then
    echo "demo: that does not say \"$text\"" >&2
    return 1
  fi
}
# inside LABEL: the start of a command in that sandbox.
inside() { sandbox=(kubectl -n "$namespace" exec "$session--$1" -c sandbox --); }

heading "A session: three typed sandboxes over three shared volumes"
echo "The files of examples/crash-triage become ConfigMaps, and session.yaml says which goes where."
if ! kubectl get namespace $namespace >/dev/null 2>&1; then run kubectl create namespace $namespace; fi
started=$EPOCHREALTIME
run kubectl -n $namespace apply -k examples/crash-triage

heading "On the way to Ready"
follow asess
follow asb
kubectl -n $namespace wait --for=condition=Ready "asess/$session" --timeout="$timeout" >/dev/null
ready=$(seconds "$started")
sleep 1                                 # for the last lines of the watches
unfollow
echo
echo "Ready after $ready:"
run kubectl -n $namespace get asess,asb,pods,pvc

heading "main has the compiler: the build script is in /sandbox_scripts, the program in /shared"
inside main
see 0 /shared/build/outline "${sandbox[@]}" sh /sandbox_scripts/build.sh

heading "The input that was found crashes it"
see 0 BBBBBBBB "${sandbox[@]}" cat /shared/poc/crash.txt
see 139 'exit code 139' "${sandbox[@]}" /shared/build/outline /shared/poc/crash.txt

heading "gdb_mcp has the debugger, and sees what main compiled: a backtrace with source lines"
inside gdb-mcp
see 0 'main (argc=2' "${sandbox[@]}" sh /sandbox_scripts/backtrace.sh
echo "The name of 24 bytes went into 16, and over the pointer behind them: line 56 copies without a look at the room there is."

heading "Of two tool roots, the session picked triage"
see 0 triage "${sandbox[@]}" ls /bash_tools
if grep -q fuzz "$output"; then
  echo "demo: fuzz was not picked" >&2
  exit 1
fi
see 0 'bytes of the input' "${sandbox[@]}" sh /bash_tools/triage/scripts/summarize-crash.sh /shared/build/outline /shared/poc/crash.txt

heading "coverage has gcov: what does the corpus reach?"
inside coverage
see 0 'total' "${sandbox[@]}" sh /sandbox_scripts/coverage.sh
echo "It reaches line 56 often, and never with a name that is too long. Main reads the report that coverage left in /shared:"
inside main
see 0 memcpy "${sandbox[@]}" grep memcpy /shared/coverage/outline.c.gcov

heading "Scripts are read-only"
see 1 'Read-only file system' "${sandbox[@]}" touch /sandbox_scripts/mine

heading "Sandboxes find each other by type"
inside coverage
see 0 main "${sandbox[@]}" getent hosts main.$session
see 0 main "${sandbox[@]}" printenv AIGISE_MAIN_HOST

if [ "$keep" = --keep ]; then
  heading "The session stays. To delete it:"
  echo "kubectl delete namespace $namespace"
  exit
fi

heading "One command deletes all of it"
read -r -a volumes < <(kubectl -n $namespace get pvc -o 'jsonpath={.items[*].spec.volumeName}' && echo)
deleted=$EPOCHREALTIME
run kubectl -n $namespace delete asess $session
kubectl -n $namespace wait --for=delete asb,pods,pvc,services,networkpolicies --all --timeout="$timeout" >/dev/null
kubectl wait --for=delete "${volumes[@]/#/pv/}" --timeout="$timeout" >/dev/null
gone=$(seconds "$deleted")
see 0 'No resources found' kubectl -n $namespace get asess,asb,pods,pvc,services,networkpolicies
see 0 '' kubectl get pv --ignore-not-found "${volumes[@]}"
[ ! -s "$output" ]
echo "Nothing is left but what you applied: the ConfigMaps."
run kubectl delete namespace $namespace

heading "That was"
printf '%-34s %s\n' "from apply to Ready" "$ready" "from delete to nothing left" "$gone" "the whole demo" "$(seconds "$started")"
