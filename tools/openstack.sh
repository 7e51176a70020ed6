#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What is needed is installed here; all else is tools/openstack/qcache_stack.

set -euo pipefail

usage() {
    cat <<'END'
Usage: tools/openstack.sh [--state DIR] COMMAND [OPTION]...

A whole OpenStack on this Debian machine, for tests and for a look around: Keystone, Glance,
Placement, Neutron (its API only: servers have no network), Nova with libvirt and emulated guests,
and nova-qcache as it is in this tree. It listens on the loopback device alone, and neither
libvirt, Nova, databases nor users of the machine are touched: compute host 1 is a mount namespace
with a /run, /etc/libvirt, /var/lib/nova and more of its own. Takes root, 1.5 GB of memory and, the
first time, 1.5 GB of packages; systemd is not needed.

  up                      start it; what is missing is installed first
    --driver NAME         nova-compute's driver: qcache (the default) or stock
    --base-rate RATE      how fast base images can be read: bytes per second, "unlimited" (the
                          default), or "none": no mount, an ordinary folder
    --set SECTION.OPTION=VALUE
                          set an option of nova-compute, as qcache.recording_idle_seconds=5; may
                          be repeated
    --port-base N         first of its nine ports (default: 21000)
                          When it is up already, "up" installs the tree if it has changed and
                          restarts nova-compute if that, the driver or a setting has changed.
  down                    end everything, guests too, from whatever state it is in; what stays are
                          packages, the folders "venv" and "cache", and the logs until the next up
    --purge               remove those folders and the logs as well
  status                  what is up and where; the exit code is 0 only if all of it is
  exec [--user NAME] [--] COMMAND [ARGUMENT]...
                          run something on compute host 1, as root or for example "nova", with the
                          administrator's OS_* variables: openstack server list, virsh list,
                          nova-qcache list
  logs [--lines N] [SERVICE]...
                          the ends of the logs
  -h, --help              this text

  --state DIR             where everything is (default: $QCACHE_OPENSTACK, or else
                          /var/lib/qcache-openstack); state.json there tells programs all they
                          need, and Python's access is tools/openstack/qcache_stack/stack.py

Servers boot from flavors "tiny" and "small" with: openstack server create --flavor tiny
--image IMAGE --nic none NAME
END
}

# The surroundings: any directory, no HOME, any locale, other Pythons.
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export HOME=${HOME:-/root} LC_ALL=C.UTF-8 PIP_DISABLE_PIP_VERSION_CHECK=1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin${PATH:+:$PATH}
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV PIP_REQUIRE_VIRTUALENV PIP_USER PYENV_VERSION
# shellcheck source=tools/guest/common.sh
source "$tools/guest/common.sh"
python=/usr/bin/python3

state=${QCACHE_OPENSTACK:-/var/lib/qcache-openstack}
while [[ $# -gt 0 ]]; do
    case $1 in
        --state)
            [[ -n ${2:-} ]] || die '--state takes a folder'
            state=$2
            shift 2
            ;;
        --state=?*)
            state=${1#*=}
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) break ;;
    esac
done
command=${1:-}
case $command in
    up | down | status | exec | logs) shift ;;
    '') die 'no command; --help lists them' ;;
    *) die "unknown command $command; --help lists them" ;;
esac
if [[ $command != exec ]]; then
    for argument in "$@"; do
        case $argument in
            -h | --help)
                usage
                exit 0
                ;;
        esac
    done
fi

manage() {
    # -P: not from the folder of whoever calls; -B: no files in the tree.
    PYTHONPATH=$tools/openstack exec "$python" -P -B -m qcache_stack \
        --state "$state" "$command" "$@"
}

[[ $EUID -eq 0 ]] || die 'only root can do this'
[[ $command == up ]] || manage "$@"

# Installation, for "up"

policy=
clean_up() {
    end_step
    [[ -z $policy ]] || rm -f "$policy"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# apt_install NAME...: install those that are missing, and start no service of theirs.
apt_install() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    need_packages "$@"
    if [[ -n $policy ]]; then
        rm -f "$policy"
        policy=
    fi
}

# The environment is kept as long as what it is made of.
make_venv() {
    local venv=$state/venv requirements=$tools/openstack/requirements.txt stamp packages log
    # Not the tools' whole path: another checkout may use the same environment.
    stamp=$("$python" -VV && cat "$requirements")
    if [[ ! -f $venv/stamp || $(<"$venv/stamp") != "$stamp" ]]; then
        apt_install ca-certificates python3 python3-venv
        log=$(mktemp)
        rm -rf "$venv"
        step 'making a virtual environment' "$log" "$python" -m venv "$venv"
        step 'installing bindep' "$log" "$venv/bin/pip" install --constraint "$requirements" bindep
    fi
    packages=$(cd "$tools/.." && "$venv/bin/bindep" --brief openstack) || true
    # shellcheck disable=SC2086
    apt_install $packages
    [[ ! -f $venv/stamp ]] || return 0
    # setuptools first: two packages are built with the one that is there.
    step 'installing setuptools' "$log" \
        "$venv/bin/pip" install --constraint "$requirements" setuptools pbr
    step 'installing OpenStack' "$log" "$venv/bin/pip" install --requirement "$requirements"
    rm -f "$log"
    # Ordinary users run what is in it, and none of them can leave compiled modules there.
    chmod -R go+rX "$venv"
    printf '%s\n' "$stamp" >"$venv/stamp"
}

umask 022
mkdir -p "$state"
state=$(cd "$state" && pwd)
[[ ${#state} -le 60 ]] || die "$state is too long: sockets lie in it, and their paths are limited"
exec 9>"$state/install.lock"
flock --wait 1200 9 || die 'another openstack.sh is installing'
make_venv
exec 9>&-
trap - EXIT
manage "$@"
