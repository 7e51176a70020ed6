# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the scripts of tools and bench: surroundings, messages, progress and packages.

# The surroundings: any directory, no HOME, any locale, other Pythons.
if [[ -z ${HOME:-} ]]; then
    HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
    export HOME=${HOME:-/root}
fi
export LC_ALL=C.UTF-8
export PATH=/usr/sbin:/usr/bin:/sbin:/bin${PATH:+:$PATH}
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV PYENV_VERSION

# say WORDS...: one line of progress on stderr.
say() {
    printf '%s\n' "$*" >&2
}

# die WORDS...: the error and the end.
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# The process group of the command that `step` runs at the moment; end_step ends it (for traps).
step_group=

end_step() {
    [[ -n $step_group ]] || return 0
    kill -TERM -- "-$step_group" 2>/dev/null || true
    wait "$step_group" 2>/dev/null || true
    step_group=
}

# step LABEL LOG COMMAND...: run COMMAND with its output in LOG, show LABEL and the seconds so far;
# on failure show the end of LOG and exit. Never call it under `if`, `||` or `&&`: bash would then
# ignore errors inside COMMAND, where that is a function.
step() {
    local label=$1 log=$2 begun=$SECONDS shown=-1 status=0 seconds
    shift 2
    set -m # a process group of its own
    "$@" >"$log" 2>&1 </dev/null &
    step_group=$!
    set +m
    while kill -0 "$step_group" 2>/dev/null; do
        seconds=$((SECONDS - begun))
        if [[ -t 2 ]]; then
            printf '\r\033[K%4d s  %s: %.60s' "$seconds" "$label" \
                "$(tail -n 1 "$log" | tr -cd '[:print:]')" >&2
        elif [[ $shown -lt 0 || $seconds -ge $((shown + 15)) ]]; then
            shown=$seconds
            say "$(printf '%4d s  %s' "$seconds" "$label")"
        fi
        sleep 0.2
    done
    wait "$step_group" || status=$?
    step_group=
    [[ ! -t 2 ]] || printf '\r\033[K' >&2
    if [[ $status -ne 0 ]]; then
        tail -n 25 "$log" >&2
        die "$label failed (status $status)"
    fi
    say "$(printf '%4d s  %s: done' "$((SECONDS - begun))" "$label")"
}

# missing_packages NAME...: print those of these Debian packages that are not installed.
missing_packages() {
    local name
    for name in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] ||
            printf '%s\n' "$name"
    done
}

# need_packages NAME...: install the Debian packages that are missing, without starting their
# services; without any, apt is not run.
need_packages() {
    local missing log
    mapfile -t missing < <(missing_packages "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    [[ $EUID -eq 0 ]] || die "only root can install these Debian packages: ${missing[*]}"
    log=$(mktemp)
    step 'reading the package lists' "$log" \
        apt-get -q -o DPkg::Lock::Timeout=300 update
    step "installing ${#missing[@]} Debian packages: ${missing[*]}" "$log" \
        install_packages "${missing[@]}"
    rm -f "$log"
}

# shellcheck disable=SC2317  # step calls it
install_packages() (
    policy=/usr/sbin/policy-rc.d # what Debian asks before it starts a service
    if [[ ! -e $policy ]]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Use-Pty=0 install --no-install-recommends "$@"
)

# need_profiles PROFILE...: install what bindep.txt has for these and for the project itself.
need_profiles() {
    local tools venv log packages
    tools=$(dirname "${BASH_SOURCE[0]}")
    venv=${QCACHE_WORK:-$HOME/.cache/nova-qcache}/venv-bindep
    log=$(mktemp)
    step 'looking for Debian packages' "$log" "$tools/python_environment.sh" "$venv" \
        "$(grep -o 'bindep==[0-9.]*' "$tools/../pyproject.toml")"
    rm -f "$log"
    # It fails where a package is missing.
    packages=$(cd "$tools/.." && "$venv/bin/bindep" --brief "$@") || true
    # shellcheck disable=SC2086
    need_packages $packages
}
