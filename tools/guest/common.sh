# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the scripts of this folder and by the demo: messages, progress and packages.

# say WORDS...: one line of progress on stderr.
say() {
    printf '%s\n' "$*" >&2
}

# die WORDS...: the error and the end.
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# The process group of the command that `step` runs at the moment; end_step ends it (for traps).
step_group=

end_step() {
    [[ -n $step_group ]] || return 0
    kill -TERM -- "-$step_group" 2>/dev/null || true
    wait "$step_group" 2>/dev/null || true
    step_group=
}

# step LABEL LOG COMMAND...: run COMMAND with its output in LOG, show LABEL and the seconds so far;
# on failure show the end of LOG and exit. Never call it under `if`, `||` or `&&`: bash would then
# ignore errors inside COMMAND, where that is a function.
step() {
    local label=$1 log=$2 begun=$SECONDS shown=-1 status=0 seconds
    shift 2
    set -m # a process group of its own
    "$@" >"$log" 2>&1 </dev/null &
    step_group=$!
    set +m
    while kill -0 "$step_group" 2>/dev/null; do
        seconds=$((SECONDS - begun))
        if [[ -t 2 ]]; then
            printf '\r\033[K%4d s  %s: %.60s' "$seconds" "$label" \
                "$(tail -n 1 "$log" | tr -cd '[:print:]')" >&2
        elif [[ $shown -lt 0 || $seconds -ge $((shown + 15)) ]]; then
            shown=$seconds
            say "$(printf '%4d s  %s' "$seconds" "$label")"
        fi
        sleep 0.2
    done
    wait "$step_group" || status=$?
    step_group=
    [[ ! -t 2 ]] || printf '\r\033[K' >&2
    if [[ $status -ne 0 ]]; then
        tail -n 25 "$log" >&2
        die "$label failed (status $status)"
    fi
    say "$(printf '%4d s  %s: done' "$((SECONDS - begun))" "$label")"
}

# missing_packages NAME...: print those of these Debian packages that are not installed.
missing_packages() {
    local name
    for name in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] ||
            printf '%s\n' "$name"
    done
}

# need_packages NAME...: install the Debian packages that are missing; without any, apt is not run.
need_packages() {
    local missing log
    mapfile -t missing < <(missing_packages "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    [[ $EUID -eq 0 ]] || die "only root can install these Debian packages: ${missing[*]}"
    log=$(mktemp)
    step 'reading the package lists' "$log" apt-get -q update
    step "installing ${missing[*]}" "$log" \
        env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 \
        -o DPkg::Lock::Timeout=120 install --no-install-recommends "${missing[@]}"
    rm -f "$log"
}

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

# copy_modules KERNEL FOLDER NAME...: copy these modules of the unpacked KERNEL into FOLDER,
# numbered in the order of loading; those that the kernel has built in are not files.
copy_modules() {
    local kernel=$1 folder=$2 number=10 name file
    shift 2
    for name in "$@"; do
        file=$(find "$kernel/lib/modules" -name "$name.ko" -print -quit)
        [[ -z $file ]] || cp "$file" "$folder/$number-$name.ko"
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
