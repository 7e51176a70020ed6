#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# devstack.sh MODE [PHASE]: call the plugin as stack.sh, unstack.sh and clean.sh do.
#
# $STANDIN is the folder of a machine (see machine.py): its local.conf's variables are in
# $STANDIN/localrc, and what is no part of it in $STANDIN/environment.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=$here/bin:$PATH
# shellcheck source=tests/unit/devstack/standin/functions
source "$here/functions"
# shellcheck source=/dev/null
source "$STANDIN/environment"
# shellcheck source=/dev/null
source "$STANDIN/localrc"
# shellcheck source=devstack/settings
source "$PLUGIN_DIR/devstack/settings"

# What of stack.sh itself matters: it ends at the first error, and lib/nova makes nova-cpu.conf of
# nova.conf when it starts nova-compute.
function run_phase {
    # shellcheck source=devstack/plugin.sh
    source "$PLUGIN_DIR/devstack/plugin.sh" "$@"
    if [[ $* == 'stack post-config' ]]; then
        cp "$NOVA_CONF" "$NOVA_CPU_CONF"
    fi
}

if [[ $1 == stack ]]; then
    set -o errexit
fi
run_phase "$@"
