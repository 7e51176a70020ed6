#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# run.sh [OPTION...]: measure nova-qcache on this machine, against the bars that it has to hold.
#
# It takes about ten minutes and installs nothing: it says what is missing. The exit status is 0 if
# every bar was held, 1 if one was missed, 2 if something could not be measured.
#
#   --only NAME      start, pool, replay, quota or memory; may be repeated (all of them)
#   --json FILE      write all figures there, too
#   --folder FOLDER  where disks and caches go, about 6 GB at a time (TMPDIR)
#   --trace FILE     replay the reads of a real boot; tools/demo.sh --trace writes such a file
#   --image FILE     the raw image that was booted then
#
# The environment variable PYTHON names a Python that has nova-qcache (python3), NBD_PYTHON one
# that has libnbd's module (/usr/bin/python3).

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
export NBD_PYTHON=${NBD_PYTHON:-/usr/bin/python3}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

only=() json='' common=() replay=()
while [[ $# -gt 0 ]]; do
    case $1 in
        -h | --help)
            sed -n '4,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --only | --json | --folder | --trace | --image)
            [[ $# -ge 2 ]] || die "$1 takes an argument"
            ;;&
        --only)
            [[ $2 =~ ^(start|pool|replay|quota|memory)$ ]] || die "there is no benchmark \"$2\""
            only+=("$2")
            ;;
        --json) json=$2 ;;
        --folder) common+=("$1" "$2") ;;
        --trace | --image) replay+=("$1" "$2") ;;
        *) die "unknown option $1; --help lists them" ;;
    esac
    shift 2
done
[[ ${#only[@]} -gt 0 ]] || only=(start pool replay quota memory)

missing=()
need() {
    command -v "$1" >/dev/null || missing+=("$1 (Debian: $2)")
}
need qemu-img qemu-utils
need qemu-io qemu-utils
need qemu-storage-daemon 'qemu-system-common, later qemu-utils'
need nbdkit nbdkit
need fallocate util-linux
need taskset util-linux
"$python" -c 'import nova_qcache' 2>/dev/null ||
    missing+=("nova_qcache for $python (pip install, or set PYTHON)")
"$NBD_PYTHON" -c 'import nbd' 2>/dev/null ||
    missing+=("the module nbd for $NBD_PYTHON (Debian: python3-libnbd)")
if [[ ${#missing[@]} -gt 0 ]]; then
    printf 'missing: %s\n' "${missing[@]}" >&2
    exit 2
fi

results=$(mktemp -d)
child=
# shellcheck disable=SC2317  # the trap calls it
cleanup() {
    trap '' INT TERM HUP
    if [[ -n $child ]]; then
        kill -TERM "$child" 2>/dev/null || true
        wait "$child" || true
    fi
    rm -rf "$results"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# In the background, so that a signal that reaches this shell alone is passed on at once.
run() {
    local status=0
    "$@" &
    child=$!
    wait "$child" || status=$?
    child=
    return "$status"
}

status=0 files=()
for name in "${only[@]}"; do
    options=("${common[@]}")
    [[ $name != replay ]] || options+=("${replay[@]}")
    printf '%s ...\n' "$name" >&2
    code=0
    run "$python" "$here/$name.py" --json "$results/$name.json" "${options[@]}" >/dev/null ||
        code=$?
    [[ $code -le 1 ]] || status=2
    [[ ! -e $results/$name.json ]] || files+=("$results/$name.json")
done

[[ ${#files[@]} -gt 0 ]] || exit 2
[[ -z $json ]] || common=(--json "$json")
[[ -n $json ]] || common=()
run "$python" "$here/figures.py" "${common[@]}" "${files[@]}" || [[ $status -ne 0 ]] || status=1
exit "$status"
