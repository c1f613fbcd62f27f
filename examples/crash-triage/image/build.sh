#!/usr/bin/env bash
# build.sh OUT.tar: makes the image localhost/crash-triage:dev from Debian packages, as an archive for `kind load image-archive`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kind=$here/../../../tests/kind
[ $# = 1 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }

context=$(mktemp -d "${TMPDIR:-/tmp}/crash-triage.XXXXXX")
trap 'rm -rf "$context"' EXIT
"$kind/rootfs.sh" "$context/rootfs.tar" gcc libc6-dev gdb-minimal    # gcov comes with gcc
# A third of it is never run here: the link-time optimizer, and the Perl that an RPC code generator asks for.
mkdir "$context/rootfs"
tar -xf "$context/rootfs.tar" -C "$context/rootfs" --wildcards --exclude='./dev/*' --exclude='*/lto1' --exclude='*lto-dump*' \
  --exclude='./usr/share/perl' --exclude='./usr/lib/*-linux-gnu/perl'
rm "$context/rootfs.tar"
"$kind/image.sh" "$1" localhost/crash-triage:dev "$context" "$here/Dockerfile"
