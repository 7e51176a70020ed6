#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# demo.sh [OPTION...]: what nova-qcache does, measured on this machine, as root on Debian 12.
#
# Installs what is missing from Debian and PyPI, builds a Debian guest, serves it as a remote base
# at the speed of a network, and boots it plainly, recording, from the cache, and three at once
# from the cache. Prints a table, draws a picture, and leaves no process behind.
#
#   --rate BITS      speed of the network, bits per second (1G)
#   --delay MS       delay of each request in the network, milliseconds (0)
#   --quota MIB      quota of the cache (128)
#   --idle S         a recording is over when the cache has not grown for so long, seconds (15)
#   --accel auto|kvm|tcg
#   --json FILE      write the figures there, too
#   --png FILE       where the picture goes (demo.png in the working folder)
#   --trace FILE     where the reads of the plain boot go (plain.trace in the working folder)
#   --boot-timeout S deadline of one boot, seconds (300)
#   --keep           keep caches, consoles and logs
#
# All that can be used again (guests, a virtual environment) stays in the working folder:
# QCACHE_WORK, by default ~/.cache/nova-qcache, about 1.2 GB.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(dirname "$here")
# shellcheck source=tools/guest/common.sh
source "$here/guest/common.sh"

for option in "$@"; do
    if [[ $option == --help || $option == -h ]]; then
        sed -n '4,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 0
    fi
done

work=${QCACHE_WORK:-${HOME:-/root}/.cache/nova-qcache}
mkdir -p "$work"
work=$(cd "$work" && pwd)
venv=$work/demo-venv
child=

# shellcheck disable=SC2317  # the trap calls it
cleanup() {
    trap '' INT TERM HUP
    end_step
    if [[ -n $child ]]; then
        kill -TERM "$child" 2>/dev/null || true
        wait "$child" || true
    fi
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# run COMMAND...: in the background, so that a signal that reaches this shell alone is passed on at
# once; without the lock.
run() {
    local status=0
    "$@" 9>&- &
    child=$!
    wait "$child" || status=$?
    child=
    return "$status"
}

# copy_sources FOLDER: what pip builds from; so nothing is written into the checkout.
copy_sources() {
    mkdir -p "$1"
    tar -C "$repo" -c --exclude-vcs --exclude='.[a-z]*' --exclude=__pycache__ \
        --exclude='*.egg-info' --exclude=./build --exclude=./dist . | tar -C "$1" -x
}

# make_venv: nova-qcache as it is in this checkout, and matplotlib for the picture.
make_venv() {
    local sources=$work/demo-src stamp
    rm -rf "$sources"
    copy_sources "$sources"
    stamp=$(cd "$sources" && find nova_qcache pyproject.toml setup.cfg -type f -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
    if [[ -x $venv/bin/nova-qcache && $(cat "$venv/stamp" 2>/dev/null) == "$stamp" ]]; then
        rm -rf "$sources"
        return
    fi
    if [[ ! -x $venv/bin/pip || ! -f $venv/stamp ]]; then
        rm -rf "$venv"
        step 'creating a virtual environment' "$work/demo-venv.log" \
            /usr/bin/python3 -m venv "$venv"
        step 'installing nova-qcache and matplotlib' "$work/demo-venv.log" env PBR_VERSION=0.0.0 \
            "$venv/bin/pip" install --disable-pip-version-check "$sources" matplotlib
    else
        # First what it needs now, then the package itself, whose version never changes here.
        step 'installing nova-qcache' "$work/demo-venv.log" env PBR_VERSION=0.0.0 \
            "$venv/bin/pip" install --disable-pip-version-check "$sources" matplotlib
        step 'installing nova-qcache' "$work/demo-venv.log" env PBR_VERSION=0.0.0 \
            "$venv/bin/pip" install --disable-pip-version-check --no-deps --force-reinstall \
            "$sources"
    fi
    printf '%s\n' "$stamp" >"$venv/stamp"
    rm -rf "$sources"
}

exec 9>"$work/demo.lock"
flock -n 9 || die "another demo works in $work"

need_packages qemu-system-x86 qemu-system-common qemu-utils nbdkit python3 python3-venv
run "$here/guest/build_small.sh" "$work/small"
run "$here/guest/build_debian.sh" "$work/debian.raw"
make_venv
run env PATH="$venv/bin:$PATH" "$venv/bin/python" "$repo/bench/demo/boot_demo.py" --work "$work" \
    --image "$work/debian.raw" --small "$work/small" "$@"
