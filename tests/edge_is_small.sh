#!/usr/bin/env bash
# potstill-edge needs the C library alone, and stripped it is under 5 MB.
set -euo pipefail
binary=$1
needed=$(readelf -d "$binary" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
for library in $needed; do
  case $library in
    libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.* | ld-linux*) ;;
    *) echo "error: potstill-edge needs $library, which a small machine may not have" >&2; exit 1 ;;
  esac
done
stripped=$(mktemp)
trap 'rm -f "$stripped"' EXIT
strip -o "$stripped" "$binary"
size=$(stat -c %s "$stripped")
echo "potstill-edge: $size bytes stripped; needs" $needed
[ "$size" -lt 5000000 ] || { echo "error: over 5 MB" >&2; exit 1; }
