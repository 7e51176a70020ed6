#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# plugin.sh - DevStack plugin of nova-qcache: which function runs in which phase
#
# The contract: https://docs.openstack.org/devstack/latest/plugins.html

if is_service_enabled qcache; then
    # shellcheck source=devstack/lib/qcache
    source "$QCACHE_DIR/devstack/lib/qcache"

    case $1/${2:-} in
        stack/pre-install)
            echo_summary "Checking the settings of nova-qcache"
            check_qcache
            prepare_qcache
            ;;
        stack/install)
            echo_summary "Installing nova-qcache"
            install_qcache
            ;;
        stack/post-config)
            echo_summary "Configuring nova-qcache"
            configure_qcache
            ;;
        stack/extra)
            echo_summary "Examining whether this host is fit for nova-qcache"
            examine_qcache
            ;;
        stack/test-config)
            echo_summary "Configuring Tempest for nova-qcache"
            configure_qcache_tempest
            ;;
        unstack/*)
            stop_qcache
            ;;
        clean/*)
            cleanup_qcache
            ;;
    esac
fi
