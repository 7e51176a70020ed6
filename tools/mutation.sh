#!/bin/bash
# SPDX-License-Identifier: Apache-2.0

set -euo pipefail

usage() {
    cat <<'END'
Usage: tools/mutation.sh [OPTION]... [MODULE]...

Change one thing at a time in the modules that decide, and see whether a unit test fails. Prints
each change that no test noticed, and the score of each module. The exit code is 0 if at least
90 % were noticed in each.

MODULE is a name or a file from tests/mutation/modules.toml; all of them by default.

  --list         only print the modules
  --survivors    leave out the changes that were noticed before
  -h, --help     this text

Python packages go into a virtual environment under $QCACHE_WORK (default:
~/.cache/nova-qcache). Nothing in the checkout changes: the tests run in copies of it.
END
}

case ${1:-} in
    -h | --help)
        usage
        exit 0
        ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -z ${HOME:-} ]]; then
    HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
    export HOME=${HOME:-/root}
fi
export LC_ALL=C.UTF-8
export PATH=/usr/sbin:/usr/bin:/sbin:/bin${PATH:+:$PATH}
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV
work=${QCACHE_WORK:-$HOME/.cache/nova-qcache}
mkdir -p "$work"
work=$(cd "$work" && pwd)
venv=$work/venv-mutation

uv=$(command -v uv) || uv=$work/uv/bin/uv
if [[ ! -x $uv ]]; then
    printf 'making %s\n' "$work/uv"
    /usr/bin/python3 -m venv "$work/uv"
    "$work/uv/bin/python" -m pip install --quiet uv
fi
export UV_CACHE_DIR=${UV_CACHE_DIR:-$work/uv-cache}
# pbr takes the version from git; a copy of the tree without its history gets one that says so.
if [[ -z ${PBR_VERSION:-} ]] && ! git rev-parse --quiet --verify HEAD >/dev/null 2>&1; then
    export PBR_VERSION=0.0.1.dev0
fi
if [[ ! -x $venv/bin/python ]]; then
    printf 'making %s\n' "$venv"
    "$uv" venv --quiet --python /usr/bin/python3 "$venv"
fi
"$uv" pip install --quiet --python "$venv/bin/python" --editable '.[test,nova-test,mutation]' \
    'nova==34.*'

# Nova replaces the threads of Python otherwise, also those that run the tests.
export OS_NOVA_DISABLE_EVENTLET_PATCHING=1
export PATH=$venv/bin:$PATH
exec nice -n 10 "$venv/bin/python" -B -m tests.mutation --work "$work/mutation" "$@"
