#!/usr/bin/env bash
# image.sh OUT.tar REFERENCE CONTEXT [DOCKERFILE]: builds an image into an archive for `cluster load`, by the machine's Docker
# engine where one answers, else by buildah, which needs neither an engine nor a registry. A Dockerfile `FROM scratch` works with
# both. Builds keep nothing: each is done anew, so several can run at once.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
[ $# -ge 3 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
out=$1 reference=$2 context=$3 dockerfile=${4:-$3/Dockerfile}
[ -d "$context" ] || fail "no such folder: $context"
[ -f "$dockerfile" ] || fail "no such Dockerfile: $dockerfile"
mkdir -p "$(dirname "$out")" "$cache/tmp"
work=$(mktemp -d "$cache/tmp/image.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT

choose_engine
if [ "$mode" = host ]; then
  quietly "build-$(basename "$out")" docker build --tag "$reference" --file "$dockerfile" "$context"
  docker save --output "$work/image.tar" "$reference"
else
  need_root buildah
  need_packages buildah
  export TMPDIR=$work
  store=(--root "$work/store" --runroot "$work/run" --storage-driver vfs)
  quietly "build-$(basename "$out")" private_mounts buildah "${store[@]}" build --isolation chroot --layers=false --tag "$reference" \
    --file "$dockerfile" "$context"
  quietly "save-$(basename "$out")" private_mounts buildah "${store[@]}" push "$reference" "oci-archive:$work/image.tar:$reference"
fi
mv "$work/image.tar" "$out"
