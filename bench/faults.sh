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
# shellcheck source=tools/guest/common.sh
source "$repo/tools/guest/common.sh"
export HOME=${HOME:-/root}
export LC_ALL=C.UTF-8
export PATH=/usr/sbin:/usr/bin:/sbin:/bin${PATH:+:$PATH}

# make_venv FOLDER: nova-qcache as it is in this checkout, and what its tests import.
make_venv() {
    local venv=$1 sources stamp
    sources=$(mktemp -d "$venv.XXXXXX")
    tar -C "$repo" -c --exclude-vcs --exclude='.[a-z]*' --exclude=__pycache__ \
        --exclude='*.egg-info' --exclude=./build --exclude=./dist . | tar -C "$sources" -x
    stamp=$(cd "$sources" && find nova nova_qcache pyproject.toml setup.cfg -type f -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
    if [[ ! -x $venv/bin/nova-qcache || $(cat "$venv/stamp" 2>/dev/null) != "$stamp" ]]; then
        if [[ ! -f $venv/stamp ]]; then
            rm -rf "$venv"
            step 'creating a virtual environment' "$venv.log" /usr/bin/python3 -m venv "$venv"
        fi
        # First what it needs now, then the package itself, whose version never changes here.
        step 'installing what nova-qcache needs' "$venv.log" env PBR_VERSION=0.0.0 \
            "$venv/bin/pip" install --disable-pip-version-check "$sources" psutil packaging
        step 'installing nova-qcache' "$venv.log" env PBR_VERSION=0.0.0 "$venv/bin/pip" install \
            --disable-pip-version-check --no-deps --force-reinstall "$sources"
        printf '%s\n' "$stamp" >"$venv/stamp"
    fi
    rm -rf "$sources"
}

need_packages bindfs e2fsprogs mount nbdkit python3 python3-libnbd python3-venv \
    qemu-system-common qemu-utils util-linux
python=${PYTHON:-}
if [[ -z $python ]]; then
    work=${QCACHE_WORK:-$HOME/.cache/nova-qcache}
    mkdir -p "$work"
    work=$(cd "$work" && pwd)
    # Two runs at a time would make the same environment.
    exec 9>"$work/faults.lock"
    flock --wait 1200 9 || die "another run makes $work/venv-faults"
    make_venv "$work/venv-faults"
    exec 9>&-
    python=$work/venv-faults/bin/python
fi

# From the checkout: the harness is made of its tests' parts.
export PYTHONPATH=$repo
exec "$python" -m bench.faults "$@"
