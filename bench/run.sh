#!/bin/bash
# SPDX-License-Identifier: Apache-2.0

set -euo pipefail

usage() {
    cat <<'END'
Usage: bench/run.sh [--smoke] [--json FILE] [--plots FOLDER] [OPTION]...

Measure nova-qcache against everything else that a user could choose, and its parts against the
bars that they have to hold. Prints tables and bars; the exit status is 0 if every bar was held, 1
if one was missed, 2 if something could not be measured. As root, on Debian 12; what is missing is
installed. It takes less than an hour on two processors. bench/README.rst tells what is measured.

  --smoke          a short one, under five minutes, with a small guest, judged by bytes alone
  --json FILE      write all samples there; "python -m bench.compare.report FILE" shows them again
  --parts FILE     write the figures of the parts there (see --only)
  --plots FOLDER   draw pictures there
  --only NAME      replay, kept, thinned, place, scale, choice or boot; start, pool, quota or memory,
                   which are parts of nova-qcache; may be repeated (all; --smoke: no parts)
  --rounds N       of each measurement (5; --smoke: 3)
  --boots N        real boots on each alternative (1)
  --seed N         another order (1)
  --folder FOLDER  where disks and caches go, about 20 GB at a time (TMPDIR)
  --trace FILE     replay these reads; written there if there is no such file (of a boot that is
                   measured first)

The environment variable PYTHON names a Python that has nova-qcache and matplotlib; without it, a
virtual environment is made in $QCACHE_WORK (~/.cache/nova-qcache), where the guests are as well.
END
}

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=tools/environment.sh
source "$repo/tools/environment.sh"
export NBD_PYTHON=${NBD_PYTHON:-/usr/bin/python3}

wrong() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

comparisons='replay|kept|thinned|place|scale|choice|boot'
parts='start|pool|quota|memory'
smoke=no json='' parts_json='' plots='' compare=() part_names=() common=() options=()
while [[ $# -gt 0 ]]; do
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        --smoke)
            smoke=yes
            shift
            continue
            ;;
        --json | --parts | --plots | --only | --rounds | --boots | --seed | --folder | --trace)
            [[ $# -ge 2 ]] || wrong "$1 takes an argument"
            ;;&
        --rounds | --boots | --seed)
            [[ $2 =~ ^[1-9][0-9]*$ ]] || wrong "$1 takes a number, not \"$2\""
            options+=("$1" "$2")
            ;;
        --only)
            if [[ $2 =~ ^($comparisons)$ ]]; then
                compare+=("$2")
            elif [[ $2 =~ ^($parts)$ ]]; then
                part_names+=("$2")
            else
                wrong "there is no benchmark \"$2\"; there are ${comparisons//|/, }, ${parts//|/, }"
            fi
            ;;
        --json) json=$2 ;;
        --parts) parts_json=$2 ;;
        --plots) plots=$2 ;;
        --folder) common+=("$1" "$2") ;;
        --trace) options+=("$1" "$2") ;;
        *) wrong "unknown option $1; --help lists them" ;;
    esac
    shift 2
done
if [[ ${#compare[@]} -eq 0 && ${#part_names[@]} -eq 0 ]]; then
    if [[ $smoke == yes ]]; then
        compare=(replay thinned scale)
    else
        IFS='|' read -r -a compare <<<"$comparisons"
        IFS='|' read -r -a part_names <<<"$parts"
    fi
fi

need_packages bindfs busybox-static cpio e2fsprogs iproute2 libnbd-bin mount nbdkit python3 \
    python3-libnbd python3-venv qemu-system-common qemu-system-x86 qemu-utils util-linux
work=${QCACHE_WORK:-$HOME/.cache/nova-qcache}
mkdir -p "$work"
work=$(cd "$work" && pwd)
python=${PYTHON:-}
if [[ -z $python ]]; then
    step 'installing nova-qcache' "$work/venv-bench.log" "$repo/tools/python_environment.sh" \
        "$work/venv-bench" --editable . matplotlib packaging psutil
    python=$work/venv-bench/bin/python
fi
# From the checkout: bench/ is not installed.
export PYTHONPATH=$repo:$repo/tools/guest

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

# worse STATUS: keep the worst of them.
worst=0
worse() {
    [[ $1 -le $worst ]] || worst=$1
}

if [[ ${#compare[@]} -gt 0 ]]; then
    if [[ $smoke == yes ]]; then
        run "$repo/tools/guest/build_small_disk.sh" "$work/small-disk"
        options+=(--smoke --image "$work/small-disk/calm.raw")
    else
        run "$repo/tools/guest/build_debian.sh" "$work/debian.raw"
        options+=(--image "$work/debian.raw")
    fi
    for name in "${compare[@]}"; do
        options+=(--only "$name")
    done
    code=0
    run "$python" -m bench.compare --json "${json:-$results/compare.json}" "${common[@]}" \
        "${options[@]}" || code=$?
    [[ $code -le 1 ]] || exit "$code"
fi

files=()
for name in "${part_names[@]}"; do
    say "$name ..."
    code=0
    run "$python" "$repo/bench/$name.py" --json "$results/$name.json" "${common[@]}" >/dev/null ||
        code=$?
    [[ $code -le 1 ]] || worse 2
    [[ ! -e $results/$name.json ]] || files+=("$results/$name.json")
done

if [[ ${#files[@]} -gt 0 ]]; then
    common=()
    [[ -z $parts_json ]] || common=(--json "$parts_json")
    code=0
    run "$python" "$repo/bench/figures.py" "${common[@]}" "${files[@]}" || code=$?
    worse "$code"
fi
if [[ ${#compare[@]} -gt 0 ]]; then
    common=()
    [[ -z $plots ]] || common=(--plots "$plots")
    [[ $smoke == no ]] || common+=(--smoke)
    code=0
    run "$python" -m bench.compare.report "${common[@]}" "${json:-$results/compare.json}" || code=$?
    worse "$code"
fi
exit "$worst"
