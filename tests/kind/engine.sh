#!/usr/bin/env bash
# engine.sh up|down: a dockerd of our own, for a machine without a Docker engine, and its traces removed at the end.
# Everything of it carries $engine_name or lies in $engine, so that `down` finds it whatever became of the run that started it:
# the cgroup (every process of it is ours), the bridge of the network `kind`, the nft table with its one rule for traffic to the
# outside. dockerd itself writes no iptables rule on the machine, and its mounts are in a mount namespace of its own.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
own_engine

# The cgroup hierarchies (one, with cgroup v2), and the one by which our processes are known.
if [ -e /sys/fs/cgroup/cgroup.procs ]; then hierarchies=(/sys/fs/cgroup); else hierarchies=(/sys/fs/cgroup/*/); fi
processes=${hierarchies[0]%/}/$engine_name
[ ! -d /sys/fs/cgroup/pids ] || processes=/sys/fs/cgroup/pids/$engine_name
# Folders that dockerd and containerd make outside of the places they are configured with.
shared=(/run/containerd /run/docker)
forwarding=/proc/sys/net/ipv4/ip_forward

# dockerd of Debian trixie, unpacked, not installed (its libraries are in Debian 12 too): nothing of the machine is replaced or
# started. Debian 12's own 20.10 gives a privileged container every capability that the kernel knows, which fails where the
# machine itself was given fewer. containerd and runc are the ones in $bin.
fetch_dockerd() {
  [ -d "$dockerd" ] && return
  local work=$cache/tmp/apt mirror options
  say "fetching dockerd"
  rm -rf "$work" "$dockerd.partial"
  mkdir -p "$work"/{lists/partial,archives/partial}
  cd "$work"
  # The mirror that the machine uses.
  mirror=$(grep -rhoE --include='*.list' --include='*.sources' 'https?://[^ ]+/debian/?( |$)' /etc/apt | sed -n 1p)
  [ -n "$mirror" ] || fail "no Debian mirror in /etc/apt"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >sources.list
  options=(-qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$work/lists"
    -o "Dir::Cache=$work" -o APT::Sandbox::User=root)
  quietly dockerd-index apt-get "${options[@]}" update
  quietly dockerd-download apt-get "${options[@]}" download docker.io docker-cli
  for package in *.deb; do dpkg -x "$package" "$dockerd.partial"; done
  mv "$dockerd.partial" "$dockerd"
  rm -rf "$work"
}

up() {
  [ -e "$engine/ready" ] && engine_pid >/dev/null && answers && return
  need_root "a Docker engine of our own"
  [ ${#engine} -lt 70 ] || fail "$engine is too long a path for a socket; set AIGISE_CACHE to a shorter one"
  need_packages iptables nftables iproute2
  fetch_dockerd
  down
  say "starting dockerd"
  mkdir -p "$engine" "$processes/engine"
  # How the machine was: during which boot (after another one this is void), what it forwarded, which folders it lacked.
  { cat /proc/sys/kernel/random/boot_id $forwarding; for folder in "${shared[@]}"; do [ -e "$folder" ] || echo "$folder"; done; } >"$engine/before"
  echo 1 >$forwarding
  (
    echo $BASHPID >"$processes/engine/cgroup.procs"
    [ -z "${lock_fd:-}" ] || exec {lock_fd}>&-
    exec setsid unshare --mount --propagation slave dockerd --host "$DOCKER_HOST" --data-root "$engine/data" --exec-root "$engine/run" \
      --pidfile "$engine/pid" --storage-driver overlay2 --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$engine_name" \
      --bridge none --iptables=false --ip6tables=false --ip-forward=false </dev/null >"$engine/log" 2>&1
  ) &
  wait_until 60 "dockerd to answer" answers || { tail -n 20 "$engine/log" >&2; fail "dockerd does not start; its log is $engine/log"; }
  # What a former dockerd left is stopped for good; nodes of a cluster do not survive it.
  remove_containers
  make_network
  touch "$engine/ready"
}
answers() { docker version >/dev/null 2>&1; }
remove_containers() {
  local containers
  mapfile -t containers < <(docker ps --all --quiet)
  [ ${#containers[@]} = 0 ] || docker rm --force --volumes "${containers[@]}" >/dev/null
}

# The network that kind uses when it is there: with a bridge that is known by its name, and IPv4 only.
make_network() {
  local device mtu subnet
  read -r device < <(ip route show default | sed -n 's/.* dev \([^ ]*\).*/\1/p') || device=none
  mtu=$(cat "/sys/class/net/$device/mtu" 2>/dev/null || echo 1500)
  docker network rm kind >/dev/null 2>&1 || :
  docker network create --driver bridge --opt "com.docker.network.bridge.name=$engine_name" \
    --opt "com.docker.network.driver.mtu=$mtu" kind >/dev/null
  subnet=$(docker network inspect kind --format '{{(index .IPAM.Config 0).Subnet}}')
  nft -f - <<N
table ip $engine_name {}
delete table ip $engine_name
table ip $engine_name {
  chain outside {
    type nat hook postrouting priority srcnat
    ip saddr $subnet oifname != "$engine_name" masquerade
  }
}
N
}

down() {
  local pid before
  if pid=$(engine_pid); then
    say "stopping dockerd"
    ! answers || { remove_containers; docker network rm kind >/dev/null 2>&1 || :; }
    kill "$pid"
    wait_until 20 "dockerd (process $pid) to end" ended "$pid" || :
  fi
  # What is left when dockerd could not clear up after itself.
  wait_until 20 "the processes in $processes to end" kill_processes || fail "cannot end them: $(list_processes | tr '\n' ' ')"
  for hierarchy in "${hierarchies[@]}"; do remove_cgroup "${hierarchy%/}/$engine_name"; done
  ! ip link show "$engine_name" >/dev/null 2>&1 || ip link delete "$engine_name"
  ! command -v nft >/dev/null || nft delete table ip "$engine_name" 2>/dev/null || :
  if [ -e "$engine/before" ]; then
    mapfile -t before <"$engine/before"
    if [ "${before[0]}" = "$(cat /proc/sys/kernel/random/boot_id)" ]; then
      echo "${before[1]}" >$forwarding
      rm -rf "${before[@]:2}"
    fi
  fi
  rm -rf "$engine/ready" "$engine/before" "$engine/pid" "$engine/docker.sock" "$engine/run"
}
ended() { [ ! -e "/proc/$1" ]; }
list_processes() { find "$processes" -name cgroup.procs -exec cat {} + 2>/dev/null || :; }
kill_processes() {
  local pids
  mapfile -t pids < <(list_processes)
  [ ${#pids[@]} = 0 ] || { kill -KILL "${pids[@]}" 2>/dev/null || :; return 1; }
}
# A cgroup is busy for a moment after its last process.
remove_cgroup() {
  [ -d "$1" ] || return 0
  wait_until 5 "the cgroup $1 to be empty" remove_directories "$1" || say "left behind: $1"
}
remove_directories() { find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || :; [ ! -d "$1" ]; }

case ${1:-} in
up | down) "$1" ;;
*) sed -n '2,5s/^# //p' "$0" >&2; exit 2 ;;
esac
