#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# build_debian.sh OUT_FILE.raw [SIZE]: a whole Debian 12 disk, raw, sparse; default SIZE 4G.
#
# GRUB in the boot sector, one ext4 partition, Debian's cloud kernel, systemd, openssh-server and
# all that Debian calls important. The console is ttyS0, where `QCACHE booted` appears at the end of
# the boot; the power button shuts it down. No account has a password, the ssh host keys are made
# on the first boot.
#
# Made from Debian's packages, by this host's apt sources as far as they are Debian's own main.
# Needs root, but no loop device and no mount of the image. OUT_FILE appears when it is complete; a
# second call returns at once, unless this script or SIZE has changed since.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/guest/common.sh
source "$here/common.sh"

[[ $# -ge 1 && $# -le 2 ]] || die "usage: ${0##*/} OUT_FILE.raw [SIZE]"
size=${2:-4G}
mkdir -p "$(dirname "$1")"
out=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")

stamp="$size $(sha256sum <"$here/build_debian.sh" | cut -d' ' -f1)"
built=$(cat "$out.stamp" 2>/dev/null || true)
if [[ -s $out && $built == "$stamp" ]]; then
    exit 0
fi
[[ $EUID -eq 0 ]] || die 'building a Debian disk needs root'

suite=bookworm
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
grub=/usr/lib/grub/i386-pc
first_sector=2048 # of the partition, in sectors of 512 bytes
uuid=5143cac4-e000-4000-8000-000000000001

need_packages mmdebstrap debian-archive-keyring e2fsprogs fdisk grub-common grub-pc-bin

scratch=$(mktemp -d "$out.XXXXXX")
cleanup() {
    end_step
    rm -rf --one-file-system "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
root=$scratch/root

# debian_sources: this host's apt sources that are Debian's own, main only, one line each.
debian_sources() {
    # shellcheck disable=SC2016  # these are apt's variables
    apt-get indextargets --format \
        '$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)|$(RELEASE)' 'Created-By: Packages' |
        awk -F'|' -v suite="$suite" -v key="$keyring" '
            $1 == "Debian" && $3 == "main" && index($2, suite) == 1 && $2 !~ /backports/ {
                print "deb [signed-by=" key "]", $4, $5, "main"
            }' | sort -u
}

# proxy_options: the proxies of this host's apt, for mmdebstrap's own.
proxy_options() {
    apt-config dump --format '%f "%v";%n' Acquire::http::Proxy Acquire::https::Proxy |
        sed -n 's/^\(Acquire::https\?::Proxy\) \("[^"]\+"\);$/--aptopt=\1 \2/p'
}

make_root() {
    local options packages=(
        linux-image-cloud-amd64 initramfs-tools zstd systemd-sysv dbus systemd-timesyncd
        openssh-server sudo curl
    )
    mapfile -t options < <(proxy_options)
    # In namespaces of its own: whatever ends it, no mount and no process of it is left.
    export TMPDIR=$scratch
    exec unshare --mount-proc --pid --fork --kill-child \
        mmdebstrap --mode=root --variant=important --format=directory \
        --dpkgopt=force-unsafe-io --include="${packages[*]}" "${options[@]}" \
        "$suite" "$root" "$scratch/sources.list"
}

configure_root() {
    printf 'qcache-debian\n' >"$root/etc/hostname"
    printf '127.0.0.1 localhost\n127.0.1.1 qcache-debian\n' >"$root/etc/hosts"
    printf 'UUID=%s / ext4 errors=remount-ro 0 1\n' "$uuid" >"$root/etc/fstab"
    : >"$root/etc/machine-id" # every guest makes its own
    rm -f "$root"/var/lib/dbus/machine-id "$root"/etc/ssh/ssh_host_*
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/log/*.log

    cat >"$root/etc/systemd/network/80-dhcp.network" <<'END'
[Match]
Name=en* eth*

[Network]
DHCP=yes
END
    cat >"$root/etc/systemd/system/ssh-host-keys.service" <<'END'
[Unit]
Description=Make the ssh host keys of this guest
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key

[Install]
WantedBy=multi-user.target
END
    # By way of the kernel's log: what is written to the terminal itself is lost if getty takes it
    # over at that moment.
    cat >"$root/etc/systemd/system/qcache-booted.service" <<'END'
[Unit]
Description=Say on the serial console that the boot is over
After=multi-user.target getty.target ssh.service

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo "<1>QCACHE booted" >/dev/kmsg'

[Install]
WantedBy=multi-user.target
END
    chroot "$root" systemctl enable --quiet ssh.service ssh-host-keys.service \
        qcache-booted.service systemd-networkd.service
    chroot "$root" systemctl disable --quiet systemd-networkd-wait-online.service || true

    local kernel
    kernel=$(basename "$root"/boot/vmlinuz-*)
    mkdir -p "$root/boot/grub"
    cat >"$root/boot/grub/grub.cfg" <<END
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
set timeout=0
menuentry 'Debian GNU/Linux' {
    linux /boot/$kernel root=UUID=$uuid ro console=ttyS0,115200 quiet mitigations=off
    initrd /boot/initrd.img-${kernel#vmlinuz-}
}
END
}

# make_disk FILE: partition table, file system and boot loader.
make_disk() {
    local file=$1 blocks
    truncate -s "$size" "$file"
    printf 'label: dos\nstart=%d, type=83, bootable\n' "$first_sector" | sfdisk -q "$file"
    blocks=$((($(stat -c %s "$file") / 512 - first_sector) / 8))
    mke2fs -q -t ext4 -b 4096 -L debian -U "$uuid" -d "$root" \
        -E "offset=$((first_sector * 512))" "$file" "$blocks"

    printf 'set root=(hd0,msdos1)\nset prefix=(hd0,msdos1)/boot/grub\n' >"$scratch/core.cfg"
    grub-mkimage -O i386-pc -d "$grub" -c "$scratch/core.cfg" -p '(hd0,msdos1)/boot/grub' \
        -o "$scratch/core.img" \
        biosdisk part_msdos ext2 normal linux serial terminal test echo minicmd configfile
    install_grub "$file" "$scratch/core.img" "$first_sector"
}

debian_sources >"$scratch/sources.list"
if [[ ! -s $scratch/sources.list ]]; then
    step 'reading the package lists' "$scratch/log" apt-get -q update
    debian_sources >"$scratch/sources.list"
fi
[[ -s $scratch/sources.list ]] || die "this host has no apt source of Debian $suite"

step "installing Debian $suite into a folder" "$scratch/log" make_root
configure_root
step "writing the disk" "$scratch/log" make_disk "$scratch/disk.raw"

rm -f "$out.stamp"
mv "$scratch/disk.raw" "$out"
printf '%s\n' "$stamp" >"$out.stamp"
