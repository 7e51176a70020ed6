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

What is missing is installed first, Python packages into a virtual environment in $QCACHE_WORK
(default: ~/.cache/nova-qcache). Nothing in the checkout changes: the tests run in copies of it.
END
}

case ${1:-} in
    -h | --help)
        usage
        exit 0
        ;;
esac

# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=${QCACHE_WORK:-$HOME/.cache/nova-qcache}
mkdir -p "$work"
work=$(cd "$work" && pwd)
venv=$work/venv-mutation
trap end_step EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

need_profiles test
step 'making the environment venv-mutation' "$work/mutation.log" tools/python_environment.sh \
    "$venv" --editable '.[test,nova-test,mutation]' 'nova==34.*'

# Nova replaces the threads of Python otherwise, also those that run the tests.
export OS_NOVA_DISABLE_EVENTLET_PATCHING=1
export PATH=$venv/bin:$PATH
exec nice -n 10 "$venv/bin/python" -B -m tests.mutation --work "$work/mutation" "$@"
