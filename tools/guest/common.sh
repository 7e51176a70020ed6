# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the scripts of this folder and by the demo: messages, progress and packages.

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

# need_packages NAME...: install the Debian packages that are missing; without any, apt is not run.
need_packages() {
    local missing log
    mapfile -t missing < <(missing_packages "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    [[ $EUID -eq 0 ]] || die "only root can install these Debian packages: ${missing[*]}"
    log=$(mktemp)
    step 'reading the package lists' "$log" apt-get -q update
    step "installing ${missing[*]}" "$log" \
        env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 \
        -o DPkg::Lock::Timeout=120 install --no-install-recommends "${missing[@]}"
    rm -f "$log"
}

# fetch_package FOLDER NAME: download a Debian package and unpack it into FOLDER, uninstalled.
fetch_package() {
    local folder=$1 name=$2 debs
    debs=$(mktemp -d "$folder.XXXXXX")
    if ! (cd "$debs" && apt-get -q -o APT::Sandbox::User=root download "$name") \
        >"$debs/log" 2>&1; then
        # Old package lists name files that are gone, or there are no lists yet.
        if ! { apt-get -q update &&
            (cd "$debs" && apt-get -q -o APT::Sandbox::User=root download "$name"); } \
            >"$debs/log" 2>&1; then
            cat "$debs/log" >&2
            rm -rf "$debs"
            die "apt-get could not download $name"
        fi
    fi
    mkdir -p "$folder"
    dpkg-deb -x "$debs"/*.deb "$folder"
    rm -rf "$debs"
}

# newest_dependency NAME PREFIX: the package PREFIX* that the meta package NAME stands for.
newest_dependency() {
    local found
    found=$(dependency "$@")
    if [[ -z $found && $EUID -eq 0 ]]; then
        apt-get -q update >/dev/null
        found=$(dependency "$@")
    fi
    [[ -n $found ]] || die "Debian's package $1 names no $2*"
    printf '%s\n' "$found"
}

dependency() {
    { apt-cache depends "$1" 2>/dev/null || true; } |
        awk -v prefix="$2" '$1 == "Depends:" && index($2, prefix) == 1 {print $2; exit}'
}
