#!/bin/bash
# SPDX-License-Identifier: Apache-2.0

set -euo pipefail

usage() {
    cat <<'END'
Usage: bench/faults.sh N [--seed S] [--json FILE] [--table FILE.rst] [OPTION]...

N random faults at random moments against the real product, one after the other, each on a host of
its own: killed, stopped and told to end; disks full; bases away; files removed; the power lost.
Guests read at random meanwhile and compare every byte. Prints what was tried and what was lost;
the exit status is 1 if anything was. As root, on Debian 12; what is missing is installed.

  --seed S         the same seed tries the same faults at the same moments (default: random)
  --json FILE      write it there, with a row for each fault
  --table FILE     write a table in reStructuredText
  --kind KIND      only faults of this kind; may be repeated
  --phase PHASE    only in this phase: cold, before, recording, sealing, sealed, playing or idle
  --only NUMBER    of the N faults of a seed only this one
  --scale X        times as long as usual for faults that last
  --reconnect S    seconds for which guests wait for a recorder that they lost (60)
  --burn WHAT      beside others who leave little of the host: cpu for 12 programs that compute, disk
                   for 2 that write and sync without end, cpu,disk for both; cpu=1,disk=1 for
                   other numbers of them
  --plant WHAT     plant a loss in the first round, without a fault: wrong-cluster is counted as one
                   wrong cluster, eio as one error of a guest, leak as leaks

The environment variable PYTHON names a Python that has nova-qcache and psutil; without it, a
virtual environment is made in $QCACHE_WORK (~/.cache/nova-qcache).
END
}

for option in "$@"; do
    if [[ $option == --help || $option == -h ]]; then
        usage
        exit 0
    fi
done

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=tools/environment.sh
source "$repo/tools/environment.sh"

need_packages bindfs e2fsprogs mount nbdkit python3 python3-libnbd python3-venv \
    qemu-system-common qemu-utils util-linux
work=${QCACHE_WORK:-$HOME/.cache/nova-qcache}
mkdir -p "$work"
work=$(cd "$work" && pwd)
python=${PYTHON:-}
if [[ -z $python ]]; then
    step 'installing nova-qcache' "$work/venv-faults.log" "$repo/tools/python_environment.sh" \
        "$work/venv-faults" --editable . packaging psutil
    python=$work/venv-faults/bin/python
fi

# From the checkout: the harness is made of its tests' parts.
export PYTHONPATH=$repo
exec "$python" -m bench.faults "$@"
