#!/usr/bin/env bash
# node-image.sh: makes the node image in the Docker engine, by `kind build node-image` from the base image and a Kubernetes server
# tarball that is put together here: kubeadm, kubelet, kubectl, and every image that kubeadm and kind ask for, so that nothing is
# pulled.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
choose_engine
! docker image inspect "$built_node_image" >/dev/null 2>&1 || exit 0
"$here/base-image.sh"
need_packages mmdebstrap busybox-static catatonit jq
say "building the images that Kubernetes runs"
export TMPDIR=$cache/tmp/node DOCKER_BUILDKIT=0
rm -rf --one-file-system "$TMPDIR"
mkdir -p "$TMPDIR"/{context,server,save}
kind_source=$(cd "$here" && GOFLAGS=-mod=readonly go mod download -json sigs.k8s.io/kind | jq -r .Dir)

# The names under which kubeadm and kind look for the images.
kubeadm_images=$("$bin/kubeadm" config images list --kubernetes-version "$kubernetes" 2>/dev/null)
kubeadm_name() { grep "/$1:" <<<"$kubeadm_images"; }
kind_name() { sed -n "s|.*\"\(docker.io/kindest/$1:[^\"]*\)\".*|\1|p" "$kind_source"/pkg/build/nodeimage/const_*.go; }
pause=$(sed -n 's/.*sandbox_image = "\(.*\)"/\1/p' "$kind_source/images/base/files/etc/containerd/config.toml")
etcd=$(kubeadm_name etcd) coredns=$(kubeadm_name coredns) proxy=$(kubeadm_name kube-proxy)
kindnetd=$(kind_name kindnetd) storage=$(kind_name local-path-provisioner) storage_helper=$(kind_name local-path-helper)
control_plane=(kube-apiserver kube-controller-manager kube-scheduler)

# build NAME DOCKERFILE FILE...: an image of one layer, from files of the context.
build() {
  printf '%b' "$2" >"$TMPDIR/context/Dockerfile"
  tar -C "$TMPDIR/context" -c Dockerfile "${@:3}" | quietly "image-$(basename "${1%:*}")" docker build --tag "$1" -
}
cd "$TMPDIR/context"
quietly network-tools private_mounts mmdebstrap --variant=extract --dpkgopt='path-exclude=/usr/share/*' \
  --include=base-files,dash,bash,coreutils,sed,grep,kmod,iptables,nftables,iproute2,curl,jq trixie network
# What the package's installation would have done.
for tool in ip{,6}tables{,-save,-restore}; do ln -s xtables-nft-multi "network/usr/sbin/$tool"; done
install "$here/kindnetd" kindnetd
install -D /bin/busybox busybox/bin/busybox
for applet in $(/bin/busybox --list); do [ "$applet" = busybox ] || ln -s busybox "busybox/bin/$applet"; done
cp "$(command -v catatonit)" pause
for binary in "${control_plane[@]}" kube-proxy etcd coredns local-path-provisioner; do ln "$bin/$binary" .; done

for binary in "${control_plane[@]}"; do build "$(kubeadm_name "$binary")" "FROM scratch\nCOPY $binary /usr/local/bin/\n" "$binary"; done
build "$etcd" 'FROM scratch\nCOPY etcd /usr/local/bin/\n' etcd
build "$coredns" 'FROM scratch\nCOPY coredns /\nENTRYPOINT ["/coredns"]\n' coredns
build "$pause" 'FROM scratch\nCOPY pause /\nENTRYPOINT ["/pause", "-P"]\n' pause
build "$storage" 'FROM scratch\nCOPY local-path-provisioner /usr/local/bin/\n' local-path-provisioner
build "$storage_helper" 'FROM scratch\nCOPY busybox /\nCMD ["/bin/sh"]\n' busybox
build aigise-network:build 'FROM scratch\nCOPY network /\n' network
build "$proxy" 'FROM aigise-network:build\nCOPY kube-proxy /usr/local/bin/\n' kube-proxy
build "$kindnetd" 'FROM aigise-network:build\nCOPY kindnetd /usr/local/bin/\nENTRYPOINT ["/usr/local/bin/kindnetd"]\n' kindnetd

# kind loads an archive for each of four binaries and pulls what is in none of them: the last archive carries all the others.
say "building the node image"
server=$TMPDIR/server/kubernetes others=("$proxy" "$kindnetd" "$etcd" "$coredns" "$pause" "$storage" "$storage_helper")
mkdir -p "$server/server/bin"
echo "$kubernetes" >"$server/version"
ln "$bin"/{kubeadm,kubelet,kubectl} "$server/server/bin/"
for binary in "${control_plane[@]}"; do docker save --output "$server/server/bin/$binary.tar" "$(kubeadm_name "$binary")"; done
docker save "${others[@]}" | tar -x -C "$TMPDIR/save"
# kind reads the names of several images only from `repositories`, only where that comes before manifest.json, and as written.
sed -i 's|"kindest/|"docker.io/kindest/|g' "$TMPDIR/save/repositories"
cd "$TMPDIR/save"
find . -mindepth 1 -maxdepth 1 ! -name repositories ! -name manifest.json -printf '%P\0' |
  tar -cf "$server/server/bin/kube-proxy.tar" repositories manifest.json --null -T -
tar -C "$TMPDIR/server" -c kubernetes | gzip -1 >"$TMPDIR/kubernetes-server.tar.gz"
quietly node-image kind build node-image --type file --base-image "$base_image" --image "$built_node_image" "$TMPDIR/kubernetes-server.tar.gz"
for name in "${control_plane[@]}"; do others+=("$(kubeadm_name "$name")"); done
docker image rm "${others[@]}" aigise-network:build >/dev/null
rm -rf --one-file-system "$TMPDIR"
