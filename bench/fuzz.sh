#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# fuzz.sh [N] [OPTION...]: damage what others wrote (records, leases, counters, names, what comes
# over sockets), and see that everything that reads it answers or refuses it by its name.
#
# N cases for each parser (1000000: about five minutes), and N / 500 conversations with a daemon.
# The exit status is 0 if none failed, 1 if one did: it is printed with its case.
#
#   --seed TEXT   other cases; the same seed makes the same ones (0)
#   --only NAME   one target of those that the report names; may be repeated (all of them)
#   --json FILE   write the report there, too
#
# The environment variable PYTHON names a Python that has nova-qcache (python3).

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

cases=1000000
if [[ ${1:-} =~ ^[1-9][0-9]*$ ]]; then
    cases=$1
    shift
fi
options=()
while [[ $# -gt 0 ]]; do
    case $1 in
        -h | --help)
            sed -n '4,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --seed | --only | --json)
            [[ $# -ge 2 ]] || die "$1 takes an argument"
            options+=("$1" "$2")
            ;;
        *) die "unknown option $1; --help lists them" ;;
    esac
    shift 2
done

"$python" -c 'import nova_qcache' 2>/dev/null ||
    die "nova_qcache is missing for $python (pip install, or set PYTHON)"
exec "$python" "$here/fuzz.py" --cases "$cases" "${options[@]}"
