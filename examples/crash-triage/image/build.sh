#!/usr/bin/env bash
# build.sh OUT.tar: makes the image localhost/crash-triage:dev from Debian packages and, for Python, the PyPI packages of
# requirements.txt, as an archive for `kind load image-archive`.
. "$(dirname "${BASH_SOURCE[0]}")/../../../tests/kind/env.sh"
[ $# = 1 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
image=$repository/examples/crash-triage/image
python3 -m pip --version >/dev/null 2>&1 || need_packages python3-pip

context=$(mktemp -d "${TMPDIR:-/tmp}/crash-triage.XXXXXX")
trap 'rm -rf "$context"' EXIT
root=$context/rootfs
"$here/rootfs.sh" "$context/rootfs.tar" gcc libc6-dev gdb-minimal python3    # gcov comes with gcc
# Leave out a third of the files, which the example never runs: the link-time optimizer, the Perl that an RPC code generator depends on,
# and the tests, the manuals and the compiled files (__pycache__) of Python.
mkdir "$root"
tar -xf "$context/rootfs.tar" -C "$root" --wildcards --exclude='./dev/*' --exclude='*/lto1' --exclude='*lto-dump*' \
  --exclude='./usr/share/perl' --exclude='./usr/lib/*-linux-gnu/perl' --exclude=__pycache__ \
  --exclude='./usr/lib/python3*/test' --exclude='./usr/lib/python3*/lib2to3' --exclude='./usr/lib/python3*/pydoc_data'
rm "$context/rootfs.tar"

# The wheels have to match the Python of the image, whichever Python runs pip here.
python=$(basename "$(echo "$root"/usr/lib/python3.*)")
packages=$root/usr/local/lib/$python/dist-packages
quietly crash-triage-pip python3 -m pip --disable-pip-version-check --no-cache-dir install --root-user-action=ignore \
  --target "$packages" --no-deps --no-compile --only-binary=:all: --implementation cp --python-version "${python#python}" \
  --platform "manylinux2014_$(uname -m)" --requirement "$image/requirements.txt"
rm -rf "${packages:?}/bin"
find "$packages" -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -rf {} +

"$here/image.sh" "$1" localhost/crash-triage:dev "$context" "$image/Dockerfile"
