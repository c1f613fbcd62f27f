#!/usr/bin/env bash
# build.sh FOLDER: the images of the end-to-end tests, from Debian's busybox-static, as archives for `cluster load`:
#
#   e2e.oci.tar       localhost/aigise-e2e:dev       a shell and the usual tools, as root
#   e2e-user.oci.tar  localhost/aigise-e2e-user:dev  the same as the user 1000, who owns nothing
#
# and e2e/, the context of the first, from which a test makes an image of another name. Nothing to do when they are there and
# made from what is here now.
. "$(dirname "${BASH_SOURCE[0]}")/../kind/env.sh"
[ $# = 1 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
images=$repository/tests/images
mkdir -p "$1"
out=$(cd "$1" && pwd)
made_from() { (cd "$images" && cat build.sh rootfs/bin/*) | sha256sum; }
[ "$(made_from)" != "$(cat "$out/e2e.made-from" 2>/dev/null)" ] || exit 0

say "making the images of the tests"
work=$(mktemp -d "${TMPDIR:-/tmp}/aigise-e2e.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
command -v apt-get >/dev/null || fail "no apt-get here to download busybox-static with"
[ -n "$(find /var/lib/apt/lists -name '*_Packages*' 2>/dev/null)" ] || { need_root "apt-get update"; apt-get -qq update; }
(cd "$work" && quietly download-busybox apt-get -q download busybox-static)
dpkg-deb --extract "$work"/busybox-static_*.deb "$work/package"

rm -rf "$out/e2e" "$out/e2e-user"
mkdir -p "$out"/e2e/rootfs/{bin,etc,tmp}
rootfs=$out/e2e/rootfs
cp "$(find "$work/package" -path '*/bin/busybox')" "$rootfs/bin/busybox"
for tool in $("$rootfs/bin/busybox" --list); do [ "$tool" = busybox ] || ln -s busybox "$rootfs/bin/$tool"; done
cp "$images"/rootfs/bin/* "$rootfs/bin/"
chmod 1777 "$rootfs/tmp"
printf '%s\n' root:x:0:0:root:/:/bin/sh user:x:1000:1000:user:/tmp:/bin/sh >"$rootfs/etc/passwd"
printf 'FROM scratch\nCOPY rootfs/ /\nENV PATH=/bin\nENTRYPOINT ["/bin/own-entrypoint"]\nCMD ["of the image"]\n' >"$out/e2e/Dockerfile"
cat "$out/e2e/Dockerfile" - <<<'USER 1000:1000' >"$work/Dockerfile"

"$here/image.sh" "$out/e2e.oci.tar" localhost/aigise-e2e:dev "$out/e2e"
"$here/image.sh" "$out/e2e-user.oci.tar" localhost/aigise-e2e-user:dev "$out/e2e" "$work/Dockerfile"
made_from >"$out/e2e.made-from"
