#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Run in a new mount namespace: namespace.sh FOLDER READY
# Mounts what is below the folder where a compute host has it, makes the file READY, and stays.

set -eu
root=$1
ready=$2

# Without --no-mtab, mount makes /run/mount on the machine.
bind() {
    mount --no-mtab --bind "$1" "$2"
}

bind "$root/run" /run
bind "$root/etc" /etc
bind "$root/cache-libvirt" /var/cache/libvirt
bind "$root/log-libvirt" /var/log/libvirt

# The folders that a host has of its own in /var/lib need not be on the machine, and nothing is made
# there to be mounted over: whoever removes such a folder, another stack for example, unmounts it
# here. So /var/lib is a new one, and the machine's other folders are mounted in it.
new=/run/new-var-lib
mkdir "$new"
mount --no-mtab -t tmpfs -o mode=755 var-lib "$new"
for each in /var/lib/*; do
    name=${each##*/}
    case $name in
        libvirt | nova) continue ;;
    esac
    if [ -d "$each" ] && [ ! -L "$each" ]; then
        mkdir "$new/$name"
        mount --no-mtab --rbind "$each" "$new/$name"
    else
        cp -a "$each" "$new/"
    fi
done
for name in libvirt nova; do
    mkdir "$new/$name"
    bind "$root/$name" "$new/$name"
done
mount --no-mtab --move "$new" /var/lib
rmdir "$new"

# Guests are emulated, so a host has no /dev/kvm. Where qemu's user may not open that device,
# libvirt is of two minds about it and asks qemu for all its abilities again and again, 4 s each.
# (A mount on the device alone would not do: libvirt fails to move that to a guest's own /dev. The
# former /dev goes, since libvirt takes mounts in it that are hidden for ones that can be moved.)
new=/run/new-dev
mkdir "$new"
mount --no-mtab -t tmpfs -o mode=755 dev "$new"
cp -ax /dev/. "$new"
rm -f "$new/kvm"
for name in pts shm mqueue hugepages; do
    if mountpoint -q "/dev/$name"; then
        bind "/dev/$name" "$new/$name"
    fi
done
while mountpoint -q /dev; do
    umount --no-mtab --lazy /dev
done
mount --no-mtab --move "$new" /dev
rmdir "$new"

: >"$ready"
exec sleep infinity
