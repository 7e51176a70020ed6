#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# build_small_disk.sh OUT_DIR: two whole disks that a server of Nova boots in seconds, without KVM.
#
# Writes OUT_DIR/calm.raw and OUT_DIR/busy.raw, 256 MiB each, for a BIOS and a virtio disk. They
# differ in one word of grub.cfg; what it means, and what the guest does, is told at the top of
# disk_init. OUT_DIR/vmlinuz, initrd and command_line are what GRUB loads from both, for whoever
# does so without GRUB and a BIOS: emulated, these take about half of a boot. From the start of
# the disk, in MiB:
#
#     0    partition table, GRUB
#     1    partition 1, ext2: vmlinuz (Debian's cloud kernel), initrd (busybox, disk_init),
#          grub.cfg, state_head
#    64    partition 2, DATA: 128 MiB that look random and are always the same
#   192    partition 3, STATE: 1 MiB of zeros
#
# small_disk.py has the same numbers for tests. The same packages give the same bytes. No loop
# device and no mount is needed; root only if Debian packages are missing. A second call with both
# disks in place returns at once, unless one of these scripts has changed since.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/guest/common.sh
source "$here/common.sh"

[[ $# -eq 1 ]] || die "usage: ${0##*/} OUT_DIR"
mkdir -p "$1"
out=$(cd "$1" && pwd)

stamp=$(cat "$here/build_small_disk.sh" "$here/disk_init" "$here/common.sh" | sha256sum |
    cut -d' ' -f1)
built=$(cat "$out/small_disk.stamp" 2>/dev/null || true)
if [[ -s $out/calm.raw && -s $out/busy.raw && $built == "$stamp" ]]; then
    exit 0
fi

PATH=$PATH:/usr/sbin:/sbin # mke2fs, sfdisk
need_packages cpio e2fsprogs fdisk grub-common grub-pc-bin openssl xz-utils
scratch=$(mktemp -d "$out/.small_disk.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# In MiB.
disk_size=256
boot_at=1 boot_size=63
data_at=64 data_size=128
state_at=192 state_size=1
uuid=5143cac4-e000-4000-8000-000000000002
command_line='console=ttyS0 quiet loglevel=4 mitigations=off nokaslr no_timer_check panic=-1'

# make_initrd: the guest's file system, with the checksum of each block of DATA.
make_initrd() {
    local root=$scratch/root
    mkdir -p "$root"/{bin,dev,proc,sys,modules,table,etc/acpi/PWRF}
    copy_busybox "$scratch/busybox" "$root/bin"
    install -m 0755 "$here/disk_init" "$root/init"
    # busybox acpid runs this when the power button is pressed.
    ln -s /init "$root/etc/acpi/PWRF/00000080"
    copy_modules "$scratch/kernel" "$root/modules" virtio_ring virtio virtio_pci_legacy_dev \
        virtio_pci_modern_dev virtio_pci evdev button virtio_blk
    # The files table/1000, table/1001 and so on.
    # shellcheck disable=SC2016  # split sets FILE
    split -b 256K -a 4 --numeric-suffixes=1000 --filter='sha256sum | cut -c1-64 >"$FILE"' \
        "$scratch/data" "$root/table/"
    pack_initrd "$root" | gzip -9n >"$scratch/initrd"

    mkdir "$scratch/state"
    truncate -s $((3 * 512)) "$scratch/state/boot_state"
    pack_initrd "$scratch/state" >"$scratch/state_head"
    truncate -s 124 "$scratch/state_head" # 110 bytes, the name, and zeros up to a multiple of 4
}

# make_boot FILE MODE: the file system of partition 1.
make_boot() {
    local file=$1 mode=$2 name
    # The disk that the BIOS boots is hd0. state_head and three sectors of its STATE are an archive
    # of one file, boot_state; why disk_init wants it is told there. (GRUB 2.06 can make such an
    # archive itself, "newc:boot_state:(hd0,msdos3)0+3", but the kernel does not like its header.)
    cat >"$scratch/grub.cfg" <<END
linux /vmlinuz $command_line qcache.mode=$mode
initrd /initrd /state_head (hd0,msdos3)0+3
boot
END
    chmod 0644 "$scratch"/{grub.cfg,vmlinuz,initrd,state_head}
    rm -f "$file"
    truncate -s "${boot_size}M" "$file"
    # All times in the file system are this one: mke2fs -d would copy the files' own.
    export E2FSPROGS_FAKE_TIME=1000000000
    mke2fs -q -t ext2 -b 4096 -N 16 -m 0 -L qcache -U "$uuid" \
        -E "hash_seed=$uuid,root_owner=0:0" -O ^dir_index,^resize_inode "$file"
    for name in grub.cfg vmlinuz initrd state_head; do
        printf 'write %s %s\n' "$scratch/$name" "$name"
    done | debugfs -w -f - "$file" >"$scratch/log" 2>&1
    e2fsck -fn "$file" >>"$scratch/log" 2>&1 ||
        die "the boot file system is not sound: $(cat "$scratch/log")"
    for name in grub.cfg vmlinuz initrd state_head; do
        debugfs -R "cat $name" "$file" 2>/dev/null | cmp - "$scratch/$name" ||
            die "debugfs has not written $name: $(cat "$scratch/log")"
    done
}

# put FILE DISK MIB: write FILE into DISK at MIB; its zeros stay holes.
put() {
    dd if="$1" of="$2" bs=64K seek=$(($3 * 16)) conv=notrunc,sparse status=none
}

# make_disk FILE MODE
make_disk() {
    local file=$1 mode=$2
    truncate -s "${disk_size}M" "$file"
    sfdisk -q "$file" <<END
label: dos
label-id: 0x51434143
start=$((boot_at * 2048)), size=$((boot_size * 2048)), type=83, bootable
start=$((data_at * 2048)), size=$((data_size * 2048)), type=da
start=$((state_at * 2048)), size=$((state_size * 2048)), type=da
END
    make_boot "$scratch/boot" "$mode"
    put "$scratch/boot" "$file" "$boot_at"
    put "$scratch/data" "$file" "$data_at"
    install_grub "$file" "$scratch/core.img" $((boot_at * 2048))
}

say "building the small guest's disks in $out"
fetch_package "$scratch/kernel" "$(newest_dependency linux-image-cloud-amd64 linux-image-)"
fetch_package "$scratch/busybox" busybox-static
cp "$scratch"/kernel/boot/vmlinuz-* "$scratch/vmlinuz"

head -c "${data_size}M" /dev/zero |
    openssl enc -aes-128-ctr -K 51434143484500000000000000000001 \
        -iv 00000000000000000000000000000000 >"$scratch/data"
make_initrd
grub-mkimage -O i386-pc -p '(,msdos1)' -o "$scratch/core.img" biosdisk part_msdos ext2 normal linux
make_disk "$scratch/calm.raw" calm
make_disk "$scratch/busy.raw" busy

rm -f "$out/small_disk.stamp"
printf '%s\n' "$command_line" >"$scratch/command_line"
mv "$scratch"/{calm.raw,busy.raw,vmlinuz,initrd,command_line} "$out/"
printf '%s\n' "$stamp" >"$out/small_disk.stamp"
