#!/usr/bin/env bash
# base-image.sh: makes the image that kind's node image starts from, in the Docker engine: Debian trixie (its systemd still boots
# on cgroup v1, and kind's own base is trixie too), the files of kind's images/base from kind's Go module, and containerd, runc
# and CNI plugins from $bin.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
choose_engine
! docker image inspect "$base_image" >/dev/null 2>&1 || exit 0
need_root "making a Debian root file system"
need_packages mmdebstrap jq
say "building the base of the node image"
export TMPDIR=$cache/tmp/base DOCKER_BUILDKIT=0 bin
rm -rf --one-file-system "$TMPDIR"
mkdir -p "$TMPDIR"
kind_files=$(cd "$here" && GOFLAGS=-mod=readonly go mod download -json sigs.k8s.io/kind | jq -r .Dir)/images/base/files
export kind_files

# Runs on the root file system before it is packed. The steps are those of kind's images/base/Dockerfile.
customize() {
  set -euo pipefail
  local root=$1
  cp -rT --no-preserve=mode "$kind_files" "$root/.kind"
  chmod 755 "$root"/.kind/usr/local/bin/* "$root"/.kind/kind/bin/*
  cp -a "$root/.kind/." "$root/"
  rm -r "$root/.kind"
  mkdir -p "$root/etc/kubernetes/manifests" "$root/etc/kubernetes/kubelet.conf.d"
  install -t "$root/usr/local/bin" "$bin"/{containerd,containerd-shim-runc-v2,ctr}
  install -D -t "$root/opt/cni/bin" "$bin"/{host-local,loopback,ptp,portmap}
  install -D -t "$root/usr/local/sbin" "$bin/runc"
  "$bin/ctr" oci spec |
    jq '.hooks.createContainer += [{"path": "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' >"$root/etc/containerd/cri-base.json"

  # No units but kind's, no kernel log in the journal.
  rm -f "$root"/lib/systemd/system/{multi-user,local-fs,basic}.target.wants/* "$root"/etc/systemd/system/*.wants/* \
    "$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}* \
    "$root/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service"
  echo ReadKMsg=no >>"$root/etc/systemd/journald.conf"
  [ -e "$root/sbin/init" ] || ln -s /usr/lib/systemd/systemd "$root/usr/sbin/init"
  systemctl --root="$root" enable kubelet.service containerd.service undo-mount-hacks.service
  systemctl --root="$root" mask systemd-binfmt.service

  # With cgroup v1, systemd's driver has runc freeze a container that is being started, which fails under load ("unable to freeze"), and
  # takes the cgroup of a container that has ended away before containerd has looked why. The kubelet asks containerd for the driver.
  [ -e /sys/fs/cgroup/cgroup.controllers ] || sed -i 's/SystemdCgroup = true/SystemdCgroup = false/' "$root/etc/containerd/config.toml"

  # For machines with less than kind expects. Without CAP_SYS_RESOURCE nothing may lower its oom_score_adj; with cgroup v1 the
  # kubelet has to be configured for that. In the image, so that kind-config.yaml needs nothing of it.
  sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' "$root/etc/containerd/config.toml"
  sed -i 's|KUBELET_EXTRA_ARGS=|&--config-dir=/etc/kubernetes/kubelet.conf.d |' "$root/etc/default/kubelet"
  cat >"$root/etc/kubernetes/kubelet.conf.d/10-machine.conf" <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
oomScoreAdj: 0
K
  rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/log/*
}
# As a variable: the shell in between (dash) drops exported functions.
customize=$(declare -f customize)
export customize

packages=systemd,conntrack,iptables,nftables,iproute2,ethtool,mount,kmod,libseccomp2,e2fsprogs,ca-certificates,curl,jq,procps
# shellcheck disable=SC2016
quietly base-image private_mounts mmdebstrap --variant=minbase --include=$packages \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --customize-hook='bash -c "$customize; customize \"\$1\"" customize "$1"' trixie "$TMPDIR/base.tar"
quietly base-image-import docker import --change 'ENV container=docker' \
  --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' "$TMPDIR/base.tar" aigise-node-base:imported
# An import cannot set the signal that systemd stops at.
printf 'FROM aigise-node-base:imported\nSTOPSIGNAL SIGRTMIN+3\n' | quietly base-image-signal docker build --tag "$base_image" -
docker image rm aigise-node-base:imported >/dev/null
rm -rf --one-file-system "$TMPDIR"
