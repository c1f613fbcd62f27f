#!/usr/bin/env bash
# rootfs.sh OUT.tar PACKAGE...: a Debian root file system with these packages, for a Dockerfile's `ADD OUT.tar /`.
# SUITE is Debian's (bookworm when unset). Made once for each list of packages and suite, then taken from the cache; not refreshed.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
[ $# -ge 1 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
out=$1 suite=${SUITE:-bookworm}
shift
packages=$(printf '%s\n' "$@" | sort -u | paste -sd ,)
archive=$cache/rootfs-$(fingerprint rootfs.sh -- "$suite" "$packages").tar
lock "$(basename "$archive")" 900
if [ ! -e "$archive" ]; then
  need_root "making a Debian root file system"
  need_packages mmdebstrap
  say "making a Debian $suite with ${packages:-nothing else} (once)"
  export TMPDIR=$cache/tmp
  mkdir -p "$TMPDIR"
  # shellcheck disable=SC2016
  quietly "$(basename "$archive")" private_mounts mmdebstrap --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/log/*' "$suite" "$archive.partial.tar"
  mv "$archive.partial.tar" "$archive"
fi
mkdir -p "$(dirname "$out")"
rm -f "$out"
# A link where it can be one: the archive has hundreds of megabytes.
ln "$archive" "$out" 2>/dev/null || cp "$archive" "$out"
