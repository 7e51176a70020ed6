#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# build_small.sh OUT_DIR: a guest that boots in seconds, also without KVM.
#
# Writes OUT_DIR/vmlinuz (Debian's cloud kernel) and OUT_DIR/initrd (busybox and small_init).
# Nothing is installed on this host but cpio; a second call with both files in place returns at
# once, unless one of these scripts has changed since. What the guest does is told at the top of
# small_init.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/guest/common.sh
source "$here/common.sh"

[[ $# -eq 1 ]] || die "usage: ${0##*/} OUT_DIR"
mkdir -p "$1"
out=$(cd "$1" && pwd)

stamp=$(cat "$here/build_small.sh" "$here/small_init" | sha256sum | cut -d' ' -f1)
built=$(cat "$out/small.stamp" 2>/dev/null || true)
if [[ -s $out/vmlinuz && -s $out/initrd && $built == "$stamp" ]]; then
    exit 0
fi

need_packages cpio xz-utils
scratch=$(mktemp -d "$out/.small.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "building the small guest in $out"
fetch_package "$scratch/kernel" "$(newest_dependency linux-image-cloud-amd64 linux-image-)"
fetch_package "$scratch/busybox" busybox-static

root=$scratch/root
mkdir -p "$root"/{bin,dev,proc,sys,modules}
copy_busybox "$scratch/busybox" "$root/bin"
install -m 0755 "$here/small_init" "$root/init"

copy_modules "$scratch/kernel" "$root/modules" virtio_ring virtio virtio_pci_legacy_dev \
    virtio_pci_modern_dev virtio_pci virtio_blk
pack_initrd "$root" >"$scratch/initrd"
cp "$scratch"/kernel/boot/vmlinuz-* "$scratch/vmlinuz"

rm -f "$out/small.stamp"
mv "$scratch/vmlinuz" "$out/vmlinuz"
mv "$scratch/initrd" "$out/initrd"
printf '%s\n' "$stamp" >"$out/small.stamp"
