# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the benchmarks that install what they need; they have sourced tools/guest/common.sh.

# make_venv CHECKOUT FOLDER PACKAGE...: nova-qcache as it is there, and these packages of Python's.
make_venv() {
    local repo=$1 venv=$2 sources stamp
    shift 2
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
            "$venv/bin/pip" install --disable-pip-version-check "$sources" "$@"
        step 'installing nova-qcache' "$venv.log" env PBR_VERSION=0.0.0 "$venv/bin/pip" install \
            --disable-pip-version-check --no-deps --force-reinstall "$sources"
        printf '%s\n' "$stamp" >"$venv/stamp"
    fi
    rm -rf "$sources"
}

# bench_python CHECKOUT FOLDER PACKAGE...: set "python" to $PYTHON, or to that of such a folder.
bench_python() {
    python=${PYTHON:-}
    [[ -z $python ]] || return 0
    # Two runs at a time would make the same environment.
    exec 9>"$2.lock"
    flock --wait 1200 9 || die "another run makes $2"
    make_venv "$@"
    exec 9>&-
    # shellcheck disable=SC2034  # for whoever calls
    python=$2/bin/python
}
