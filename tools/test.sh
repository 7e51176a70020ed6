#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Functions are called by name through "step":
# shellcheck disable=SC2317

set -euo pipefail

usage() {
    cat <<'END'
Usage: tools/test.sh [OPTION]... [-- PYTEST_ARGUMENT...]

Run the linters, the type checks and all tests. What they need and is missing is
installed first: Debian packages with apt (that takes root), Python packages into
virtual environments under $QCACHE_WORK (default: ~/.cache/nova-qcache).

  --lint          linters, type checks, the manual and release notes
  --unit          unit tests; those of the driver with Nova 31 and with Nova 34
  --functional    functional tests, with a real qemu
  --openstack     tests of the driver on a whole OpenStack, which is brought up for them
                  with tools/openstack.sh (in $QCACHE_OPENSTACK; see there) and taken down
                  again, unless it was up
  --lowest        unit tests with the versions of lower-constraints.txt
  --bench         a short run of the benchmarks, judged by ratios within it
                  (these six can be combined; none of them: all of them)
  --long          with the tests on OpenStack, those as well that take long and look at much the
                  same places as others do; with the benchmarks, tools/demo.sh as well
  --workers N     how many functional tests run at a time (default: 2)
  -h, --help      this text

All steps run, also after one has failed. The last line says how all the tests
went: "N passed, N failed, N skipped". The exit code is 0 only if no step failed.
END
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

lint=no unit=no functional=no openstack=no lowest=no bench=no long=no workers=2 which=(-m 'not long')
while [[ $# -gt 0 ]]; do
    case $1 in
        --lint) lint=yes ;;
        --unit) unit=yes ;;
        --functional) functional=yes ;;
        --openstack) openstack=yes ;;
        --lowest) lowest=yes ;;
        --bench) bench=yes ;;
        --long) long=yes which=() ;;
        --workers)
            [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die '--workers takes a number'
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
        *) die "unknown option $1; --help lists them, and pytest's come after --" ;;
    esac
    shift
done
pytest_arguments=("$@")
if [[ $lint$unit$functional$openstack$lowest$bench == nononononono ]]; then
    lint=yes unit=yes functional=yes openstack=yes lowest=yes bench=yes
fi

# The surroundings: any directory, no HOME, any locale, other Pythons.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
if [[ -z ${HOME:-} ]]; then
    HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
    export HOME=${HOME:-/root}
fi
export LC_ALL=C.UTF-8
export PATH=/usr/sbin:/usr/bin:/sbin:/bin${PATH:+:$PATH}
export PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV PIP_REQUIRE_VIRTUALENV PIP_USER PYENV_VERSION

work=${QCACHE_WORK:-$HOME/.cache/nova-qcache}
mkdir -p "$work"
work=$(cd "$work" && pwd)
python=/usr/bin/python3
reports=$(mktemp -d "$work/reports.XXXXXX")
policy=

clean_up() {
    [[ -z $policy ]] || rm -f "$policy"
    rm -rf "$reports"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Installation

installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# apt_install NAME...: install those of the packages that are missing, and start no service.
apt_install() {
    local name missing=() rc=0
    for name in "$@"; do
        installed "$name" || missing+=("$name")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    if [[ $EUID -ne 0 ]]; then
        printf 'error: only root can install the missing packages: %s\n' "${missing[*]}" >&2
        return 1
    fi
    printf 'installing %s\n' "${missing[*]}"
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    {
        apt-get -q -o DPkg::Lock::Timeout=300 update &&
            DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
                -o Dpkg::Use-Pty=0 install --no-install-recommends "${missing[@]}"
    } >"$reports/apt.log" 2>&1 </dev/null || rc=$?
    [[ $rc -eq 0 ]] || tail -n 30 "$reports/apt.log" >&2
    if [[ -n $policy ]]; then
        rm -f "$policy"
        policy=
    fi
    return "$rc"
}

# Versions of Nova that the driver's unit tests run with.
novas=(31 34)

# make_venv FOLDER PIP_ARGUMENT...: a virtual environment, kept as long as what it is made of.
make_venv() {
    local folder=$1 log stamp
    log=$reports/pip-${1##*/}.log
    shift
    stamp=$(
        printf '%s\n' "$root" "$("$python" -VV)" "$@"
        sha256sum pyproject.toml setup.cfg lower-constraints.txt
    )
    if [[ -f $folder/stamp && $(<"$folder/stamp") == "$stamp" ]]; then
        return 0
    fi
    printf 'making %s\n' "$folder"
    rm -rf "$folder"
    if ! {
        "$python" -m venv "$folder" && "$folder/bin/python" -m pip install --quiet "$@"
    } >"$log" 2>&1 </dev/null; then
        tail -n 30 "$log" >&2
        return 1
    fi
    printf '%s\n' "$stamp" >"$folder/stamp"
}

# Building for several versions of Nova, one beside the other: it is mostly waiting.
make_nova_venvs() {
    local version pid pids=() rc=0
    for version in "${novas[@]}"; do
        make_venv "$work/venv-nova-$version" --editable '.[test,nova-test]' "nova==$version.*" &
        pids+=("$!")
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || rc=1
    done
    return "$rc"
}

# The module of python3-libnbd is on no package index, and the tests want nothing else of Debian's.
link_nbd() {
    local site module
    site=$("$work/venv-test/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    for module in /usr/lib/python3/dist-packages/{nbd.py,libnbdmod.*.so}; do
        [[ ! -e $module ]] || ln -sf "$module" "$site/"
    done
}

prepare() {
    local profiles=() packages
    # Two runs at a time would make the same environments.
    exec 9>"$work/test.lock"
    flock --wait 1200 9 || return 1
    apt_install ca-certificates git python3 python3-venv || return 1

    # pbr takes the version from git. A copy of the tree without its history, or one that git does
    # not trust since it is another user's, gets a version that says so.
    if [[ -z ${PBR_VERSION:-} ]] && ! git rev-parse --quiet --verify HEAD >/dev/null 2>&1; then
        export PBR_VERSION=0.0.1.dev0
    fi

    make_venv "$work/venv-test" --editable '.[test,lint,docs]' || return 1
    if [[ $lowest == yes ]]; then
        make_venv "$work/venv-lowest" --constraint lower-constraints.txt --editable '.[test]' ||
            return 1
    fi

    # The packages without a profile are what the project itself needs.
    [[ $lint == no ]] || profiles+=(lint)
    [[ $unit$functional == nono ]] || profiles+=(test)
    packages=$("$work/venv-test/bin/bindep" --brief "${profiles[@]}") || true
    # shellcheck disable=SC2086
    apt_install $packages || return 1
    link_nbd
    if [[ $unit == yes ]]; then
        make_nova_venvs || return 1
    fi
    exec 9>&-
}

# Steps

names=() results=() seconds=() runs=() failed=0

# step NAME COMMAND...: run it, keep its result, and go on.
step() {
    local name=$1 began=$SECONDS rc=0
    shift
    printf '\n== %s\n' "$name"
    "$@" || rc=$?
    names+=("$name")
    seconds+=("$((SECONDS - began))")
    if [[ $rc -eq 0 ]]; then
        results+=(ok)
    else
        results+=(FAILED)
        failed=1
    fi
    printf -- '-- %s: %s, %d s\n' "$name" "${results[-1]}" "${seconds[-1]}"
    return 0
}

# pytest_step NAME VENV ARGUMENT...: a step whose tests are counted.
pytest_step() {
    local report="$reports/${1//[^a-z0-9]/_}.xml"
    step "$1" run_pytest "$report" "${@:2}" "${pytest_arguments[@]}"
    runs+=("$1:$(cat "$report.rc" 2>/dev/null || echo 1):$report")
}

run_pytest() {
    local report=$1 venv=$2 rc=0
    shift 2
    [[ $venv == /* ]] || venv=$work/$venv
    PATH=$venv/bin:$PATH "$venv/bin/python" -m pytest --junitxml="$report" "$@" ||
        rc=$?
    echo "$rc" >"$report.rc"
    return "$rc"
}

# openstack_step: the stack, and the tests that run on it with the Python that it brought.
openstack_step() {
    local state=${QCACHE_OPENSTACK:-/var/lib/qcache-openstack} was_up=no
    ! tools/openstack.sh --state "$state" status >/dev/null 2>&1 || was_up=yes
    step 'OpenStack up' tools/openstack.sh --state "$state" up
    QCACHE_OPENSTACK=$state QCACHE_WORK=$work \
        pytest_step 'tests on OpenStack' "$state/venv" tests/openstack --disable-warnings \
        --durations=15 "${which[@]}"
    [[ $was_up == yes ]] || step 'OpenStack down' tools/openstack.sh --state "$state" down
}

# with_files FIND_PRINT0 COMMAND...: the command on the files that a function finds, if any.
with_files() {
    local files
    mapfile -d '' files < <("$1")
    shift
    [[ ${#files[@]} -eq 0 ]] || "$@" "${files[@]}"
}

own_files() {
    find . \( -name .git -o -name .tox -o -name .venv -o -name build -o -name dist \
        -o -name '.*_cache' -o -name '*.egg-info' \) -prune -o -type f "$@"
}

shell_files() {
    local file first
    while IFS= read -r -d '' file; do
        first=
        IFS= read -r first <"$file" 2>/dev/null || true
        if [[ $file == *.sh || $first =~ ^#!.*[/\ ](ba|da)?sh($|\ ) ]]; then
            printf '%s\0' "$file"
        fi
    done < <(own_files -size -256k ! -name '*.py' -print0 | sort -z)
}

rst_files() {
    own_files -name '*.rst' -print0 | sort -z
}

# build_pages SOURCE NAME: pages of Sphinx, for its warnings alone.
build_pages() {
    "$bin/python" -m sphinx -q -a -E -W --keep-going -d "$reports/$2-trees" -b html "$1" \
        "$reports/$2"
}

printf '== what is needed\n'
if ! prepare; then
    printf -- '-- what is needed: FAILED\n'
    [[ $unit == no ]] || runs+=("unit tests:1:")
    [[ $functional == no ]] || runs+=("functional tests:1:")
    [[ $openstack == no ]] || runs+=("tests on OpenStack:1:")
    [[ $lowest == no ]] || runs+=("unit tests, lowest versions:1:")
    printf '\n== Summary\nFAILED  what is needed\n'
    printf '0 passed, %d failed, 0 skipped\n' "${#runs[@]}"
    exit 1
fi
printf -- '-- what is needed: ok, %d s\n' "$SECONDS"

bin=$work/venv-test/bin
if [[ $lint == yes ]]; then
    step 'ruff check' "$bin/ruff" check .
    step 'ruff format' "$bin/ruff" format --check .
    step 'hacking' "$bin/flake8" .
    step 'codespell' "$bin/codespell" .
    step 'doc8' with_files rst_files "$bin/doc8"
    step 'bashate' with_files shell_files "$bin/bashate" --ignore E006
    step 'shellcheck' with_files shell_files shellcheck --external-sources
    step 'mypy' "$bin/mypy"
    step 'reno lint' "$bin/reno" lint
    step 'manual' build_pages doc/source manual
    step 'release notes' build_pages releasenotes/source notes
fi
if [[ $unit == yes ]]; then
    pytest_step 'unit tests' venv-test tests/unit --ignore=tests/unit/virt
    for version in "${novas[@]}"; do
        # Nova's own deprecations are none of ours.
        pytest_step "unit tests, Nova $version" "venv-nova-$version" tests/unit/virt \
            --disable-warnings
    done
fi
if [[ $functional == yes ]]; then
    pytest_step 'functional tests' venv-test tests/functional \
        --numprocesses "$workers" --dist worksteal --max-worker-restart 2 --durations=15
fi
if [[ $openstack == yes ]]; then
    openstack_step
fi
if [[ $bench == yes ]]; then
    step 'benchmarks, a short run' env PYTHON="$bin/python" QCACHE_WORK="$work" bench/run.sh --smoke
    [[ $long == no ]] || step 'demonstration' env QCACHE_WORK="$work" tools/demo.sh
fi
if [[ $lowest == yes ]]; then
    # The benchmarks are run from a checkout, with what is current.
    pytest_step 'unit tests, lowest versions' venv-lowest tests/unit --ignore=tests/unit/virt \
        --ignore=tests/unit/bench
fi

printf '\n== Summary\n'
for index in "${!names[@]}"; do
    printf '%-7s %-28s %5d s\n' "${results[index]}" "${names[index]}" "${seconds[index]}"
done
"$python" tools/junit_totals.py "${runs[@]}" || failed=1
exit "$failed"
