#!/usr/bin/env bash
# demo.sh [--keep]: runs the example from start to end, on the cluster of KUBECONFIG, with the operator installed and the image
# loaded. The script shows each command before it runs, and stops at the first command with an unexpected result.
# --keep leaves the session running at the end.
set -euo pipefail
export LC_ALL=C                         # so $EPOCHREALTIME has a decimal point
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
namespace=crash-triage session=crash-triage operator=${OPERATOR_NAMESPACE:-aigise-system} timeout=${TIMEOUT:-180s}
keep=${1:-}

bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
heading() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
# seconds SINCE: the time since then.
seconds() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", to - from }'; }

output=$(mktemp) followers=()
# follow KIND: prints each change of phase or message of its objects, and the time since the start.
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
# unfollow: ends the watches that this script started.
unfollow() {
  for follower in ${followers[@]+"${followers[@]}"}; do
    kill "$follower" 2>/dev/null || true
    wait "$follower" 2>/dev/null || true
  done
  followers=()
}
# finish: prints the state of the cluster if the demo has failed.
finish() {
  local status=$?
  unfollow
  rm -f "$output"
  [ $status = 0 ] && return
  heading "The demo failed. The state of the cluster:"
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

# show COMMAND...: prints the command, quoted for a shell.
show() {
  local word line='$'
  for word; do
    case $word in *[!-A-Za-z0-9_./:=,@+%]*) word=${word@Q} ;; esac
    line+=" $word"
  done
  printf '%s%s%s\n' "$bold" "$line" "$plain"
}
# run COMMAND...: shows the command and runs it.
run() {
  show "$@"
  "$@"
}
# see STATUS TEXT COMMAND...: shows the command and runs it; it has to exit with STATUS and print TEXT, if any.
see() {
  local expected=$1 text=$2 status=0
  shift 2
  show "$@"
  "$@" >"$output" 2>&1 || status=$?
  cat "$output"
  if [ "$status" != "$expected" ]; then
    echo "demo: the command exited with $status, not with $expected" >&2
    return 1
  fi
  if [ -n "$text" ] && ! grep -qF -- "$text" "$output"; then
    echo "demo: the output does not contain \"$text\"" >&2
    return 1
  fi
}
# inside LABEL: sets $sandbox to the start of a command in that sandbox.
inside() { sandbox=(kubectl -n "$namespace" exec "$session--$1" -c sandbox --); }

heading "A session: three typed sandboxes over three shared volumes"
echo "The files of examples/crash-triage become ConfigMaps, and session.yaml maps them to folders of the volumes."
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

heading "main compiled the program before it became ready: the script is in /sandbox_scripts, the program in /shared"
inside main
see 0 compile "${sandbox[@]}" /aigise/sandboxd status
see 0 /shared/build/outline "${sandbox[@]}" /aigise/sandboxd log

heading "The given input crashes the program"
see 0 BBBBBBBB "${sandbox[@]}" cat /shared/poc/crash.txt
see 139 'exit code 139' "${sandbox[@]}" /shared/build/outline /shared/poc/crash.txt

heading "gdb_mcp has the debugger, and waited for main to compile the program: its first look at the crash"
inside gdb-mcp
see 0 'main (argc=2' "${sandbox[@]}" /aigise/sandboxd log
echo "A name of 24 bytes overran an array of 16, and overwrote the pointer behind it: line 56 copies without checking the size of the array."

heading "gdb_mcp is an MCP server, too: main asks it for its tools, for a backtrace, and for a variable of a caller"
see 0 :1111/sse kubectl -n $namespace get asb $session--gdb-mcp -o 'jsonpath={.status.endpoints.gdb}{"\n"}'
endpoint=$(cat "$output")
inside main
ask=("${sandbox[@]}" python3 /sandbox_scripts/ask_gdb.py "$endpoint")
see 0 inspect "${ask[@]}"
see 0 'main (argc=2' "${ask[@]}" backtrace
see 0 'length = 24' "${ask[@]}" inspect 'expression=*record' frame=1

heading "Of two tool roots, the session selected triage"
see 0 triage "${sandbox[@]}" ls /bash_tools
if grep -q fuzz "$output"; then
  echo "demo: fuzz is there, but was not selected" >&2
  exit 1
fi
inside gdb-mcp
see 0 'bytes of the input' "${sandbox[@]}" sh /bash_tools/triage/scripts/summarize-crash.sh /shared/build/outline /shared/poc/crash.txt

heading "coverage has gcov: which lines does the corpus reach?"
inside coverage
see 0 total "${sandbox[@]}" /aigise/sandboxd log
echo "The corpus reaches line 56 often, but never with a name that is too long. main reads the report that coverage left in /shared:"
inside main
see 0 memcpy "${sandbox[@]}" grep memcpy /shared/coverage/outline.c.gcov

heading "Scripts are read-only"
see 1 'Read-only file system' "${sandbox[@]}" touch /sandbox_scripts/mine

heading "Sandboxes find each other by type"
inside coverage
see 0 main "${sandbox[@]}" getent hosts main.$session
see 0 main "${sandbox[@]}" printenv AIGISE_MAIN_HOST

heading "A fix with an error: the semicolon is missing. main is restarted, and does not become ready"
inside main
run "${sandbox[@]}" sed -i '/^    memcpy/i\    if (length > NAME_SIZE)\n        refuse(line, "the name is too long")' /shared/src/outline.c
see 0 'too long")' "${sandbox[@]}" grep -n -B 2 memcpy /shared/src/outline.c
run kubectl -n $namespace annotate asb $session--main --overwrite aigise.dev/restart="$(date +%s)"
run kubectl -n $namespace wait --for=condition=Stalled asess/$session --timeout="$timeout"

heading "Why? The message has the compiler's last line, status.init the last output of the step"
see 0 2/3 kubectl -n $namespace get asess,asb
see 0 "error: expected ';' before 'memcpy'" \
  kubectl -n $namespace get asess $session -o 'jsonpath={.status.conditions[?(@.type=="Ready")].message}{"\n"}'
see 0 '"outcome":"Failed"' kubectl -n $namespace get asb $session--main -o 'jsonpath={.status.init}{"\n"}'

heading "The container of main has ended. gdb_mcp has the same files: the error is fixed there, and main tries again"
inside gdb-mcp
run "${sandbox[@]}" sed -i 's/the name is too long")$/&;/' /shared/src/outline.c
run kubectl -n $namespace annotate asess $session --overwrite aigise.dev/restart="$(date +%s)"
run kubectl -n $namespace wait --for=condition=Ready asess/$session --timeout="$timeout"
inside main
see 2 'line 2: the name is too long' "${sandbox[@]}" /shared/build/outline /shared/poc/crash.txt
see 0 'exited with code 02' "${ask[@]}" backtrace

if [ "$keep" = --keep ]; then
  heading "The session stays. To delete it:"
  echo "kubectl delete namespace $namespace"
  exit
fi

heading "One command deletes everything"
read -r -a volumes < <(kubectl -n $namespace get pvc -o 'jsonpath={.items[*].spec.volumeName}' && echo)
deleted=$EPOCHREALTIME
run kubectl -n $namespace delete asess $session
kubectl -n $namespace wait --for=delete asb,pods,pvc,services,networkpolicies --all --timeout="$timeout" >/dev/null
kubectl wait --for=delete "${volumes[@]/#/pv/}" --timeout="$timeout" >/dev/null
gone=$(seconds "$deleted")
see 0 'No resources found' kubectl -n $namespace get asess,asb,pods,pvc,services,networkpolicies
see 0 '' kubectl get pv --ignore-not-found "${volumes[@]}"
[ ! -s "$output" ]
echo "Only the ConfigMaps that you applied are left."
run kubectl delete namespace $namespace

heading "Times"
printf '%-34s %s\n' "from apply to Ready" "$ready" "from delete to nothing left" "$gone" "the whole demo" "$(seconds "$started")"
