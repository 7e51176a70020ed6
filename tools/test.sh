#!/bin/bash
# SPDX-License-Identifier: Apache-2.0

set -euo pipefail

usage() {
    cat <<'END'
Usage: tools/test.sh [OPTION]... [-- PYTEST_ARGUMENT...]

Test nova-qcache, as root on Debian 12. What is missing is installed first: Debian packages with
apt, Python packages into virtual environments in $QCACHE_WORK (default: ~/.cache/nova-qcache).

Without an option: linters, type checks and the manual, the unit tests, the core of the functional
tests, and a server of a real OpenStack that records its image, and another one that plays it.

  --all           everything: the unit tests with each Nova and with the lowest versions of what
                  is needed, all functional tests with a real qemu, all tests on OpenStack, a short
                  run of the benchmarks, and the demonstration
  --lint          linters, type checks, the manual and release notes
  --unit          unit tests; those of the driver with Nova 31 and with Nova 34
  --functional    functional tests, with a real qemu
  --openstack     tests of the driver on a whole OpenStack, which is brought up for them with
                  tools/openstack.sh (in $QCACHE_OPENSTACK; see there) and taken down again,
                  unless it was up
  --lowest        unit tests with the versions of lower-constraints.txt
  --bench         a short run of the benchmarks, and the demonstration
                  (these six can be combined)
  --explore [SEED]
                  only the random tests, with many more cases than the others run, which are
                  the same each time. Without SEED another one each time; the last lines say how to
                  repeat what was found
  --debian13      the unit tests, the core of the functional tests and 15 faults on Debian 13, with
                  its own Nova, in a root folder in $QCACHE_WORK; see tools/debian13.sh
  --workers N     how many functional tests run at a time (default: 4)
  -h, --help      this text

What waits runs beside what computes. Every 15 seconds a line says what is being installed or run.
All parts run, also after one has failed; their logs are in $QCACHE_WORK/logs. The end shows the
time of each part and the ten slowest tests, and its last line how all the tests went:
"N passed, N failed, N skipped". The exit code is 0 only if nothing failed.
END
}

# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

wrong() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# Versions of Nova that the driver's unit tests run with.
novas=(31 34)

kinds=() all=no debian13=no seed='' workers=4
while [[ $# -gt 0 ]]; do
    case $1 in
        --all) all=yes ;;
        --lint | --unit | --functional | --openstack | --lowest | --bench) kinds+=("${1#--}") ;;
        --explore)
            seed=$((SRANDOM % 1000000))
            if [[ ${2:-} =~ ^[0-9]+$ ]]; then
                seed=$2
                shift
            fi
            ;;
        --debian13) debian13=yes ;;
        --workers)
            [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || wrong "--workers takes a number, not \"${2:-}\""
            workers=$2
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        --)
            shift
            break
            ;;
        *) wrong "unknown option $1; --help lists them, and pytest's come after --" ;;
    esac
    shift
done
if [[ $debian13 == yes ]]; then
    [[ ${#kinds[@]} -eq 0 && $all == no && -z $seed ]] || wrong '--debian13 goes alone'
    exec tools/debian13.sh -- "$@"
fi
options=(--workers "$workers")
if [[ -n $seed ]]; then
    [[ ${#kinds[@]} -eq 0 && $all == no ]] || wrong '--explore goes with no other kind of tests'
    printf 'seed %s; to repeat: tools/test.sh --explore %s\n' "$seed" "$seed"
    kinds=(unit functional)
    novas=()
    options+=(--seed "$seed")
elif [[ $all == yes ]]; then
    [[ ${#kinds[@]} -eq 0 ]] || wrong '--all has every kind of tests: give it alone'
    kinds=(lint unit functional openstack lowest bench)
elif [[ ${#kinds[@]} -eq 0 ]]; then
    kinds=(lint unit functional openstack)
    options+=(--core)
    novas=("${novas[-1]}")
fi

work=${QCACHE_WORK:-$HOME/.cache/nova-qcache}
mkdir -p "$work"
work=$(cd "$work" && pwd)
export QCACHE_WORK=$work
log=$(mktemp "$work/install.XXXXXX")
clean_up() {
    end_step
    rm -f "$log"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# chosen KIND: whether such tests are to be run.
chosen() {
    [[ " ${kinds[*]} " == *" $1 "* ]]
}

# environment NAME REQUIREMENT...: a virtual environment in the working folder.
environment() {
    step "making the environment $1" "$log" tools/python_environment.sh "$work/$1" "${@:2}"
}

# Two runs at a time would disturb each other. The lock stays with what is executed at the end.
exec 9>"$work/test.lock"
flock --nonblock 9 || die "another tools/test.sh works in $work"

# The packages without a profile are what the project itself needs.
profiles=()
! chosen lint || profiles+=(lint)
! { chosen unit || chosen functional || chosen lowest; } || profiles+=(test)
! chosen openstack || profiles+=(openstack)
need_profiles "${profiles[@]}"
if chosen lint || chosen unit || chosen functional || chosen bench; then
    extras=test,lint,docs
    # Only the profile test has what its module is built with.
    ! pkg-config --exists libvirt || extras+=,libvirt
    environment venv-test --editable ".[$extras]"
    # The module of python3-libnbd is on no package index; nothing else is wanted of Debian's.
    for module in /usr/lib/python3/dist-packages/{nbd.py,libnbdmod.*.so}; do
        [[ ! -e $module ]] || ln -sf "$module" "$work"/venv-test/lib/python3.*/site-packages/
    done
fi
if chosen unit; then
    for nova in "${novas[@]}"; do
        environment "venv-nova-$nova" --editable '.[test,nova-test]' "nova==$nova.*"
    done
fi
if chosen lowest; then
    environment venv-lowest --constraint lower-constraints.txt --editable '.[test]'
fi

# -P, -B: not from the current folder, and no files in the tree.
clean_up
exec env PYTHONPATH="$PWD/tools" /usr/bin/python3 -P -B -m run_tests --work "$work" \
    --stack "${QCACHE_OPENSTACK:-/var/lib/qcache-openstack}" --seconds "$SECONDS" \
    "${kinds[@]/#/--kind=}" "${novas[@]/#/--nova=}" "${options[@]}" -- "$@"
