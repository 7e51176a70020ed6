#!/bin/bash
# SPDX-License-Identifier: Apache-2.0

set -euo pipefail

usage() {
    cat <<'END'
Usage: tools/debian13.sh [-- PYTEST_ARGUMENT...]

Test nova-qcache with Debian 13's own Nova, libvirt, qemu and Python: the unit tests, the core of
the functional tests, and 15 faults (bench/faults.sh). As root, on any Debian; "tools/test.sh
--debian13" calls it.

All is installed into a root folder in $QCACHE_WORK/debian13 (default: under
~/.cache/nova-qcache), which is made with mmdebstrap and kept. The tests run in it with a copy of
this tree, in mount and process namespaces of their own, so that nothing outlives them.
END
}

# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# In the namespaces: make the new root folder the only one there is. PID 1 is this script, since
# whoever is has to wait for orphans.
enter() {
    local root=$1
    shift
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/run"
    mount -t tmpfs tmpfs "$root/tmp"
    mkdir -p "$root/old"
    cd "$root"
    pivot_root . old
    cd /root/nova-qcache
    umount --lazy /old
    tools/debian13.sh --tests "$@"
}

# In Debian 13.
run_tests() {
    local work=$HOME/.cache/nova-qcache log
    mkdir -p "$work"
    log=$(mktemp)
    need_profiles test
    # Beside Nova itself, what its own tests are made with: the fakes of its libvirt are among them.
    need_packages python3-ddt python3-fixtures python3-gabbi python3-libvirt python3-nova \
        python3-oslotest python3-pip python3-placement python3-requests-mock python3-testtools \
        python3-wsgi-intercept
    step 'making the environment venv-test' "$log" environment "$work/venv-test"
    # The driver's tests find Debian's Nova in the same one.
    ln -sfn venv-test "$work/venv-nova-debian"
    rm -f "$log"
    export QCACHE_WORK=$work PYTHONPATH=$PWD/tools
    exec /usr/bin/python3 -P -B -m run_tests --work "$work" --stack "$work/no-stack" \
        --seconds "$SECONDS" --kind=unit --kind=functional --kind=faults --nova=debian --core \
        --workers 4 -- "$@"
}

# environment FOLDER: a virtual environment with Debian's Python packages and what they lack.
environment() {
    local stamp
    stamp=$(
        python3 -VV
        sha256sum pyproject.toml setup.cfg
        dpkg-query -W python3-nova
    )
    if [[ -f $1/stamp && $(<"$1/stamp") == "$stamp" ]]; then
        return
    fi
    rm -rf "$1"
    python3 -m venv --system-site-packages "$1"
    "$1/bin/pip" --quiet --disable-pip-version-check install --editable '.[test]'
    printf '%s\n' "$stamp" >"$1/stamp"
}

case ${1:-} in
    -h | --help)
        usage
        exit 0
        ;;
    --enter)
        enter "${@:2}"
        exit
        ;;
    --tests) run_tests "${@:2}" ;;
    '' | --) ;;
    *)
        usage >&2
        exit 2
        ;;
esac
[[ ${1:-} != -- ]] || shift

work=${QCACHE_WORK:-$HOME/.cache/nova-qcache}
root=$work/debian13
mkdir -p "$work"
exec 9>"$work/debian13.lock"
flock --nonblock 9 || die "another tools/debian13.sh works in $root"
need_packages ca-certificates debian-archive-keyring git mmdebstrap util-linux
log=$(mktemp "$work/install.XXXXXX")
trap 'end_step; rm -f "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [[ ! -f $root/complete ]]; then
    rm -rf "$root"
    step 'making a root folder of Debian 13' "$log" mmdebstrap --variant=minbase \
        --include=ca-certificates,git,python3 trixie "$root" http://deb.debian.org/debian
    touch "$root/complete"
fi
# Names, packages and certificates are found as on this host.
cp --dereference /etc/resolv.conf /etc/hosts "$root/etc/"
cp --dereference /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
for file in /etc/pip.conf /etc/apt/apt.conf.d/*proxy*; do
    [[ ! -e $file ]] || cp --dereference "$file" "$root$file"
done
rm -rf "$root/root/nova-qcache"
mkdir -p "$root/root/nova-qcache"
git ls-files --cached --others --exclude-standard -z |
    tar --create --null --files-from=- --ignore-failed-read |
    tar --extract --directory="$root/root/nova-qcache"

end_step
rm -f "$log"
trap - EXIT
export HOME=/root PBR_VERSION=${PBR_VERSION:-0.0.1.dev0}
exec unshare --mount --propagation private --pid --fork --kill-child \
    tools/debian13.sh --enter "$root" "$@"
