#!/bin/bash
# SPDX-License-Identifier: Apache-2.0

set -euo pipefail

usage() {
    cat <<'END'
Usage: tools/python_environment.sh FOLDER REQUIREMENT...

Make a virtual environment of Debian's Python in FOLDER, with what "uv pip install REQUIREMENT..."
installs. It is kept as long as what it is made of: the requirements, the files that they name,
Python, and with "--editable" what the tree declares. uv itself and its cache, which all
environments share, lie in $QCACHE_WORK (default: ~/.cache/nova-qcache).
END
}

# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

[[ $# -ge 2 ]] || {
    usage
    exit 2
}
folder=$(realpath -m "$1")
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=/usr/bin/python3
version=0.13.9
work=${QCACHE_WORK:-$HOME/.cache/nova-qcache}
uv=$work/uv-$version
export UV_CACHE_DIR=$work/uv-cache UV_PYTHON_DOWNLOADS=never UV_NO_CONFIG=1
# Whoever has told pip of another index means uv as well.
[[ -z ${PIP_INDEX_URL:-} ]] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}

# Two at a time would make the same environment, or uv itself.
mkdir -p "$work" "$folder"
exec 9>"$work/uv.lock"
flock --wait 1200 9 || die "another process makes environments in $work"

need_packages ca-certificates git python3 python3-venv
if [[ ! -f $uv/complete ]]; then
    rm -rf "$uv"
    "$python" -m venv "$uv"
    "$uv/bin/pip" --quiet --disable-pip-version-check install "uv==$version"
    touch "$uv/complete"
fi

# pbr takes the version from git. A copy of the tree without its history, or one that git does not
# trust since it is another user's, gets a version that says so.
if [[ -z ${PBR_VERSION:-} ]] && ! git rev-parse --quiet --verify HEAD >/dev/null 2>&1; then
    export PBR_VERSION=0.0.1.dev0
fi

files=()
for argument in "$@"; do
    [[ ! -f $argument ]] || files+=("$argument")
    [[ $argument != --editable ]] || files+=(pyproject.toml setup.cfg)
done
stamp=$(
    printf '%s\n' "$version" "$@"
    "$python" -VV
    [[ ${#files[@]} -eq 0 ]] || sha256sum "${files[@]}"
    [[ " $* " != *' --editable '* ]] || pwd
)
if [[ -f $folder/stamp && $(<"$folder/stamp") == "$stamp" ]]; then
    exit 0
fi
rm -rf "$folder"
# Some tests use the environment's own pip.
"$uv/bin/uv" venv --quiet --seed --python "$python" "$folder"
# Compiled, since those who run it may not write there.
"$uv/bin/uv" pip install --quiet --python "$folder/bin/python" --compile-bytecode "$@"
printf '%s\n' "$stamp" >"$folder/stamp"
