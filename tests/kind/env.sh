# Settings and helpers of the test cluster; sourced by the scripts beside it, never run.
# shellcheck shell=bash disable=SC2034
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
cluster=${CLUSTER:-aigise}

# Everything that is built or stored lies under the cache, outside the checkout; it has to be on a disk, not on an overlay.
cache=${AIGISE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/aigise}
state=$cache/clusters/$cluster
kubeconfig=$state/kubeconfig

say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
fail() { say "error: $*"; exit 1; }

# fingerprint FILE... [-- WORD...]: names a build by the contents that it is made from.
fingerprint() {
  local files=() words
  while [ $# -gt 0 ] && [ "$1" != -- ]; do files+=("$here/$1"); shift; done
  words=$*
  { cat "${files[@]}"; echo "$words"; } | sha256sum | cut -c1-12
}
# module_version PATH: the version of a module in go.mod, the one place that names versions.
module_version() { sed -n "s|^\t$1 \(v[^ ]*\).*|\1|p" "$here/go.mod"; }
kubernetes=$(module_version k8s.io/kubernetes)

# The Go binaries, and the clients alone (kind, kubectl, helm, docker), which are what a user's PATH gets.
bin=$cache/bin-$(fingerprint go.mod go.sum binaries.sh)
clients=$cache/clients-${bin##*-}
export PATH=$clients:$PATH
# What kind takes where it can be pulled; kind's own default, spelled out so that another kind makes the same cluster.
public_node_image=kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5
base_image=aigise-node-base:$(fingerprint base-image.sh -- "${bin##*-}")
built_node_image=aigise-node:$(fingerprint node-image.sh kindnetd -- "${base_image##*:}")

# The Docker engine of our own (see engine.sh). Its names come from the cache's path: two caches never meet.
engine_name=aigise-$(printf %s "$cache" | sha256sum | cut -c1-6)
engine=$cache/engine
engine_host=unix://$engine/docker.sock
dockerd=$cache/dockerd-trixie
# engine_pid: prints the process of our dockerd, if it runs. A pid file may be stale, hence the look at what it names.
engine_pid() {
  local pid
  pid=$(cat "$engine/pid" 2>/dev/null) && [[ "$(tr '\0' ' ' <"/proc/$pid/cmdline")" = *dockerd*"--data-root $engine/data "* ]] &&
    echo "$pid"
} 2>/dev/null
# own_engine, host_engine: every docker command (kind's too) goes to our engine, or to the machine's.
own_engine() {
  mode=own
  export PATH=$dockerd/usr/sbin:$dockerd/usr/bin:$bin:$PATH:/usr/sbin:/sbin DOCKER_HOST=$engine_host
  unset DOCKER_CONTEXT
}
host_engine() { mode=host; }
# choose_engine: the one place that decides. The machine's engine wherever one answers; ours elsewhere, or while it runs.
choose_engine() {
  if [ "${DOCKER_HOST:-}" = "$engine_host" ] || engine_pid >/dev/null; then own_engine
  elif command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1; then host_engine
  else own_engine; fi
  export KIND_EXPERIMENTAL_PROVIDER=docker
}
# choose_node_image: and the same for the node image: kind's where it is there or can be pulled, else one that is built here.
choose_node_image() {
  if [ -n "${NODE_IMAGE:-}" ]; then node_image=$NODE_IMAGE
  elif [ "$mode" = host ] && { docker image inspect "$public_node_image" >/dev/null 2>&1 || {
    say "pulling ${public_node_image%@*}"; docker pull -q "$public_node_image" >/dev/null; }; }; then node_image=$public_node_image
  else node_image=$built_node_image; fi
}

# lock NAME SECONDS: waits until no other run holds the lock. Children inherit it: what a killed run left at work is waited for.
lock() {
  mkdir -p "$cache"
  exec {lock_fd}>"$cache/$1.lock"
  export lock_fd
  flock -n "$lock_fd" && return
  say "waiting for another run to release $cache/$1.lock"
  flock -w "$2" "$lock_fd" || fail "still locked after $2 s: see 'fuser -v $cache/$1.lock' for who holds it"
}
# wait_until SECONDS WHAT COMMAND...: polls, says what is waited for when it takes longer than a moment.
wait_until() {
  local seconds=$1 what=$2 start=$SECONDS said=
  shift 2
  until "$@"; do
    [ $((SECONDS - start)) -lt "$seconds" ] || { say "gave up after $seconds s waiting for $what"; return 1; }
    [ -n "$said" ] || { said=1; say "waiting for $what"; }
    sleep 0.1
  done
}
# quietly NAME COMMAND...: output goes to a log in the cache, and is shown when the command fails.
quietly() {
  local name=$1 log=$cache/log/$1.log
  shift
  mkdir -p "$cache/log"
  "$@" >"$log" 2>&1 || { tail -n 40 "$log" >&2; fail "$name failed; all of its output is in $log"; }
}
# private_mounts COMMAND...: whatever it mounts goes with it, even when it is killed.
private_mounts() { unshare --mount --propagation slave -- "$@"; }
need_root() { [ "$(id -u)" = 0 ] || fail "$1 needs root"; }
need_packages() {
  local package missing=()
  for package; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get >/dev/null || fail "no apt-get here to install ${missing[*]} with; without a Docker engine this needs Debian"
  need_root "installing ${missing[*]}"
  say "installing ${missing[*]}"
  [ -n "$(find /var/lib/apt/lists -name '*_Packages*' -mmin -1440 2>/dev/null)" ] || apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
    fail "apt-get could not install ${missing[*]}"
}
