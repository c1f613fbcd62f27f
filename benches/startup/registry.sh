# A registry whose layers take their time, for busybox: registry.sh SEED ROUNDS SECONDS PORT
#
# It has the images 127.0.0.1:PORT/slow:SEED-1 to SEED-ROUNDS, each of one layer of its own, which it sends within so many SECONDS. The
# node speaks HTTP to its loopback once TLS has failed.
set -eu
[ "${1:-}" != answer ] || {
  blobs=/tmp/blobs seconds=$2
  head() { printf 'HTTP/1.1 %s\r\nConnection: close\r\n' "$1"; }
  # A client that tries TLS first waits for an answer, and sends no line.
  first=$(dd bs=1 count=1 2>/dev/null)
  case $first in G | H) ;; *) head '400 Bad Request'; printf '\r\n'; exit ;; esac
  read -r verb path _
  verb=$first$verb
  while read -r line && [ -n "${line%$'\r'}" ]; do :; done
  name=${path##*/}
  case "$verb $path" in
  "GET /v2/" | "HEAD /v2/") head '200 OK'; printf 'Content-Length: 0\r\n\r\n'; exit ;;
  esac
  [ -e "$blobs/$name" ] || { head '404 Not Found'; printf 'Content-Length: 0\r\n\r\n'; exit; }
  kind=application/octet-stream
  case $path in */manifests/*) kind=application/vnd.oci.image.manifest.v1+json ;; esac
  digest=sha256:$(sha256sum <"$blobs/$name" | cut -d ' ' -f 1)
  size=$(wc -c <"$blobs/$name")
  head '200 OK'
  printf 'Content-Type: %s\r\nContent-Length: %s\r\nDocker-Content-Digest: %s\r\n\r\n' "$kind" "$size" "$digest"
  [ "$verb" = GET ] || exit 0
  [ -e "$blobs/$name.layer" ] || { cat "$blobs/$name"; exit; }
  part=$((size / seconds + 1)) sent=0
  while [ "$sent" -lt "$seconds" ]; do
    dd if="$blobs/$name" bs="$part" skip="$sent" count=1 2>/dev/null
    sent=$((sent + 1))
    sleep 1
  done
  exit
}

seed=$1 rounds=$2 seconds=$3 port=$4
mkdir -p /tmp/blobs
cd /tmp/blobs
keep() { # FILE: becomes a blob; prints its digest
  digest=sha256:$(sha256sum <"$1" | cut -d ' ' -f 1)
  mv "$1" "$digest"
  echo "$digest"
}
for round in $(seq "$rounds"); do
  echo "$seed $round" >mark
  tar -cf layer mark
  layer_size=$(wc -c <layer)
  layer=$(keep layer)
  touch "$layer.layer"
  printf '{"architecture":"%s","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
    "$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')" "$layer" >config
  config_size=$(wc -c <config)
  config=$(keep config)
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":%s}]}' \
    "$config" "$config_size" "$layer" "$layer_size" >manifest
  cp manifest "$seed-$round"
  keep manifest >/dev/null
done
exec nc -ll -p "$port" -e sh "$0" answer "$seconds"
