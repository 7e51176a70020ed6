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

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/environment.sh
source "$tools/environment.sh"

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
    PYTHONPATH=$tools/openstack exec /usr/bin/python3 -P -B -m qcache_stack \
        --state "$state" "$command" "$@"
}

[[ $EUID -eq 0 ]] || die 'only root can do this'
[[ $command == up ]] || manage "$@"

# Installation, for "up"

trap end_step EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

umask 022
mkdir -p "$state"
state=$(cd "$state" && pwd)
[[ ${#state} -le 60 ]] || die "$state is too long: sockets lie in it, and their paths are limited"
need_profiles openstack
requirements=tools/openstack/requirements.txt
log=$(mktemp)
# What is built from sources is built with the versions of the list, too.
step 'installing OpenStack' "$log" "$tools/python_environment.sh" "$state/venv" \
    --build-constraint "$requirements" --requirement "$requirements"
rm -f "$log"
# Ordinary users run what is in it, and none of them can leave compiled modules there.
chmod -R go+rX "$state/venv"
trap - EXIT
manage "$@"
