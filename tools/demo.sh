#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# demo.sh [OPTION...]: what nova-qcache does, measured on this machine, as root on Debian 12.
#
# Installs what is missing from Debian and PyPI, builds a Debian guest, and serves its image over a
# network of 1 Gbit/s in a namespace of its own. On 2 processors without KVM that takes less than 8
# minutes in all, and less than 3 once the guest is built. It shows, in this order:
#
#   1. how long stock Nova copies the image before the first server starts (a part is copied, the
#      whole is extrapolated);
#   2. real guests: one that records and one that plays; with KVM also a plain one, and three at
#      once that play. Without KVM their seconds are those of an emulated processor, and are marked;
#   3. the reads of that boot replayed without a guest: plain, recording, playing, and from a local
#      raw file, in turns, with 0 ms and (a part of them) with 20 ms for each request.
#
# Prints a table, draws a picture, and leaves no process behind.
#
#   --rate BITS      speed of the network, bits per second (1G)
#   --delay MS       delay of each request of real guests in the network, milliseconds (0)
#   --quota MIB      quota of the cache (128)
#   --idle S         the recording guest runs on for so long after its boot, seconds (5)
#   --accel auto|kvm|tcg
#   --json FILE      write the figures there, too; what was not measured is null: without KVM
#                    "play3" and the seconds of "plain", whose bytes are those of the replay
#   --png FILE       where the picture goes (demo.png in the working folder)
#   --trace FILE     where the reads of the boot go (boot.trace in the working folder), for
#                    bench/run.sh --trace
#   --boot-timeout S deadline of one boot, seconds (900)
#   --keep           keep caches, consoles and logs
#
# All that can be used again (guests, virtual environments) stays in the working folder:
# QCACHE_WORK, by default ~/.cache/nova-qcache, about 1 GB.

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

work=${QCACHE_WORK:-$HOME/.cache/nova-qcache}
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

build_guests() {
    "$here/guest/build_debian.sh" "$work/debian.raw"
    # It tells whether KVM works.
    [[ ! -r /dev/kvm || ! -w /dev/kvm ]] || "$here/guest/build_small.sh" "$work/small"
}

# prepare: the guests, and beside them nova-qcache as it is in this checkout, and matplotlib for the
# picture.
prepare() {
    local guests environment
    trap 'wait; exit 143' TERM
    build_guests 9>&- &
    guests=$!
    "$here/python_environment.sh" "$venv" --editable . matplotlib 9>&- &
    environment=$!
    wait "$environment" || {
        kill "$guests" && wait "$guests"
        return 1
    }
    wait "$guests"
}

exec 9>"$work/demo.lock"
flock -n 9 || die "another demo works in $work"

# All that is needed for what follows, so that apt works but once, and nothing waits for its lock.
need_packages ca-certificates cpio debian-archive-keyring e2fsprogs fdisk git grub-common \
    grub-pc-bin iproute2 mmdebstrap nbdkit python3 python3-venv qemu-system-common \
    qemu-system-x86 qemu-utils util-linux
step 'building a Debian guest and a virtual environment' "$work/demo.log" prepare
run env PATH="$venv/bin:$PATH" PYTHONPATH="$repo:$here/guest" "$venv/bin/python" -m bench.demo \
    --work "$work" --image "$work/debian.raw" --small "$work/small" "$@"
