#!/usr/bin/env bash
# binaries.sh [CLIENT...]: builds every Go binary that the cluster consists of, and the clients (kind, kubectl, helm), or only
# the clients that are named. About ten minutes on two cores with nothing cached; nothing to do when go.mod, go.sum and this
# file are unchanged.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
helm=v4.3.1

export GOFLAGS="-mod=readonly -buildvcs=false -trimpath" GOTOOLCHAIN=local CGO_ENABLED=0
# kube-apiserver refuses to start without a version of its own.
version=k8s.io/component-base/version
minor=${kubernetes#v1.}
stamp="-s -w -X $version.gitVersion=$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=${minor%%.*}"
stamp+=" -X $version.gitTreeState=clean -X $version.gitCommit=0000 -X $version.buildDate=2026-01-01T00:00:00Z"
build_helm() { GOFLAGS="-buildvcs=false -trimpath" GOBIN=$1 go install -ldflags "-s -w" "helm.sh/helm/v4/cmd/helm@$helm"; }

build_client() {
  case $1 in
  kind) go build -ldflags "-s -w" -o "$clients/" sigs.k8s.io/kind ;;
  kubectl) go build -ldflags "$stamp" -o "$clients/" k8s.io/kubernetes/cmd/kubectl ;;
  helm) build_helm "$clients" ;;
  *) fail "no such client: $1" ;;
  esac
}

# Apart from the rest: the provisioner (its logrus is spelled in another way), runc (its first stage is C), etcd (its package
# is called `server`), Helm (its own module pins another Kubernetes).
build_all() {
  local partial=$bin.partial tools
  mkdir -p "$partial"
  mapfile -t tools < <(sed -n '/^tool (/,/^)/s/^\t//p' go.mod | grep -v -e local-path-provisioner -e opencontainers/runc -e go.etcd.io/etcd)
  go build -ldflags "$stamp" -o "$partial/" "${tools[@]}"
  go build -ldflags "-s -w" -o "$partial/etcd" go.etcd.io/etcd/server/v3
  go build -ldflags "-s -w" -o "$partial/" github.com/rancher/local-path-provisioner
  CGO_ENABLED=1 go build -ldflags "-s -w" -tags seccomp -o "$partial/runc" github.com/opencontainers/runc
  build_helm "$partial"
  rm -rf "$bin"
  mv "$partial" "$bin"
}

need_go() { command -v go >/dev/null || fail "no 'go' in PATH to build $1 with; go.mod says which version"; }
lock binaries 1800
cd "$here"
if [ $# -gt 0 ]; then
  mkdir -p "$clients"
  for client; do
    [ -x "$clients/$client" ] && continue
    need_go "$client"
    say "building $client from Go modules (once)"
    build_client "$client"
  done
elif [ ! -d "$bin" ]; then
  need_go "the cluster"
  need_packages gcc libc6-dev pkg-config libseccomp-dev
  say "building Kubernetes $kubernetes, containerd, kind and Helm from Go modules (once; about ten minutes)"
  build_all
fi
