#!/usr/bin/env bash
# build.sh: builds kwok, which plays nodes and Pods, and prints its path. Three minutes on two cores with nothing cached. A module
# and a folder of the cache of its own: the cluster's binaries are not made anew for it, nor it for them.
. "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
export GOFLAGS="-mod=readonly -buildvcs=false -trimpath" GOTOOLCHAIN=local CGO_ENABLED=0
kwok=$cache/kwok-$(fingerprint kwok/go.mod kwok/go.sum kwok/build.sh)
if [ ! -x "$kwok/kwok" ]; then
  command -v go >/dev/null || fail "no 'go' in PATH to build kwok with; go.mod says which version"
  lock kwok 1800
  cd "$here/kwok"
  say "building kwok from Go modules (once; about three minutes)"
  rm -rf "$kwok.partial"
  mkdir -p "$kwok.partial"
  nice go build -ldflags "-s -w" -o "$kwok.partial/" sigs.k8s.io/kwok/cmd/kwok
  rm -rf "$kwok"
  mv "$kwok.partial" "$kwok"
fi
echo "$kwok/kwok"
