# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the scripts of this folder: what they build guests with.

# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"

# fetch_package FOLDER NAME: download a Debian package and unpack it into FOLDER, uninstalled.
fetch_package() {
    local folder=$1 name=$2 debs
    debs=$(mktemp -d "$folder.XXXXXX")
    if ! (cd "$debs" && apt-get -q -o APT::Sandbox::User=root download "$name") \
        >"$debs/log" 2>&1; then
        # Old package lists name files that are gone, or there are no lists yet.
        if ! { apt-get -q update &&
            (cd "$debs" && apt-get -q -o APT::Sandbox::User=root download "$name"); } \
            >"$debs/log" 2>&1; then
            cat "$debs/log" >&2
            rm -rf "$debs"
            die "apt-get could not download $name"
        fi
    fi
    mkdir -p "$folder"
    dpkg-deb -x "$debs"/*.deb "$folder"
    rm -rf "$debs"
}

# newest_dependency NAME PREFIX: the package PREFIX* that the meta package NAME stands for.
newest_dependency() {
    local found
    found=$(dependency "$@")
    if [[ -z $found && $EUID -eq 0 ]]; then
        apt-get -q update >/dev/null
        found=$(dependency "$@")
    fi
    [[ -n $found ]] || die "Debian's package $1 names no $2*"
    printf '%s\n' "$found"
}

dependency() {
    { apt-cache depends "$1" 2>/dev/null || true; } |
        awk -v prefix="$2" '$1 == "Depends:" && index($2, prefix) == 1 {print $2; exit}'
}

# copy_busybox PACKAGE FOLDER: copy the program of the unpacked busybox-static, and let it be sh.
copy_busybox() {
    local file
    file=$(find "$1" -path '*/bin/busybox' -print -quit) # below usr since Debian 13
    cp "$file" "$2/busybox"
    ln -s busybox "$2/sh"
}

# copy_modules KERNEL FOLDER NAME...: copy these modules of the unpacked KERNEL into FOLDER,
# numbered in the order of loading; those that the kernel has built in are not files.
copy_modules() {
    local kernel=$1 folder=$2 number=10 name file
    shift 2
    for name in "$@"; do
        # Since Debian 13 they are packed, and below usr.
        file=$(find "$kernel" -path "*/lib/modules/*" -name "$name.ko*" -print -quit)
        case $file in
            '') ;;
            *.xz) xz --decompress --stdout "$file" >"$folder/$number-$name.ko" ;;
            *) cp "$file" "$folder/$number-$name.ko" ;;
        esac
        number=$((number + 1))
    done
}

# pack_initrd ROOT: print the folder ROOT as an initramfs. The same files give the same bytes:
# fixed times, owner, order and inode numbers.
pack_initrd() {
    find "$1" -exec touch -h -d @0 {} +
    chmod -R u=rwX,go=rX "$1"
    (cd "$1" && find . -mindepth 1 -print0 | LC_ALL=C sort -z |
        cpio --quiet --null --create --format=newc --reproducible --owner=0:0)
}

# install_grub DISK CORE SECTORS: put GRUB's boot.img into the boot sector of the file DISK and the
# image CORE of grub-mkimage behind it, where SECTORS are free (the boot sector included).
install_grub() {
    local disk=$1 core=$2 sectors=$3 boot=/usr/lib/grub/i386-pc/boot.img
    # boot.img loads sector 1, and the first sector of the core loads the rest from sector 2 on:
    # both are GRUB's defaults (8 bytes at 0x5c of boot.img, 8 at 0x1f4 of the core), so the core
    # goes there unchanged. grub-mkimage has set how long it is.
    [[ $(od -An -tu8 -j $((0x5c)) -N 8 "$boot") -eq 1 &&
        $(od -An -tu8 -j $((0x1f4)) -N 8 "$core") -eq 2 ]] ||
        die 'this GRUB does not load its core from sector 1'
    [[ $(stat -c %s "$core") -le $(((sectors - 1) * 512)) ]] ||
        die "GRUB's core does not fit before the partition"
    dd if="$boot" of="$disk" bs=440 count=1 conv=notrunc status=none
    dd if="$core" of="$disk" bs=512 seek=1 conv=notrunc status=none
}
