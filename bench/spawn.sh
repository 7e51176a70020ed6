#!/bin/bash
# SPDX-License-Identifier: Apache-2.0

set -euo pipefail

usage() {
    cat <<'END'
Usage: bench/spawn.sh [--spawns N] [--rounds N] [--rate BYTES_PER_SECOND] [--json FILE]

What the driver adds to a spawn with a READY cache, and how soon the first, second and third
server of an image are up: stock Nova and nova-qcache side by side, in one run, on a whole
OpenStack that is brought up for it (tools/openstack.sh) and taken down again. As root.

  --spawns N   spawns with each driver (default: 20)
  --rounds N   times three boots with each driver (default: 3)
  --rate N     how fast bases can be read (default: 12500000, 100 Mbit/s)
  --json FILE  write each value there as well
END
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

rate=12500000 more=()
while [[ $# -gt 0 ]]; do
    case $1 in
        --spawns | --rounds | --json)
            [[ -n ${2:-} ]] || die "$1 takes a value"
            more+=("$1" "$2")
            shift
            ;;
        --rate)
            [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die '--rate takes a number'
            rate=$2
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) die "unknown option $1; --help lists them" ;;
    esac
    shift
done

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/../tools" && pwd)
export HOME=${HOME:-/root}
# A stack of its own: a base that is limited is of no use to anybody else.
state=/var/lib/qcache-bench-openstack
disks=${QCACHE_WORK:-$HOME/.cache/nova-qcache}/small-disk
stack=("$tools/openstack.sh" --state "$state")

"$tools/guest/build_small_disk.sh" "$disks"
trap '"${stack[@]}" down >/dev/null' EXIT
"${stack[@]}" up --port-base 23000 --base-rate "$rate" --set qcache.guest_grace_seconds=3 \
    --set qcache.plan_lease_seconds=20
"$state/venv/bin/python" -W ignore "$tools/../bench/spawn.py" --state "$state" --disks "$disks" \
    "${more[@]}"
