# SPDX-License-Identifier: Apache-2.0
"""Whatever is wrong with caches, servers boot."""

import contextlib
import os
import shutil

import pytest

from tests.openstack import hanging
from tests.openstack import waiting
from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost


def _plain_servers(cloud: Cloud, host: ComputeHost, image: str, number: int = 2) -> str:
    """Boot some servers, which must be plain, and return what nova-compute logged meanwhile."""
    before = len(host.nova_log())
    servers = [cloud.boot(image, wait='') for _ in range(number)]
    for server in servers:
        server.wait_for('ACTIVE')
        assert host.kind(server) == 'PLAIN'
    servers[0].wait_until_booted(boots=1)
    for server in servers:
        server.delete()
    return host.nova_log()[before:]


def _warnings(log: str) -> list[str]:
    lines = [line for line in log.splitlines() if 'nova_qcache' in line]
    return [line for line in lines if ' WARNING ' in line or ' ERROR ' in line]


def test_the_cache_folder_vanishes(cloud: Cloud, host: ComputeHost, ready_calm: str):
    away = host.cache_folder.with_name('away')
    host.cache_folder.rename(away)
    try:
        log = _plain_servers(cloud, host, ready_calm, 3)
    finally:
        away.rename(host.cache_folder)
    (warning,) = _warnings(log)
    assert 'it has vanished' in warning
    assert host.kind(cloud.boot(ready_calm)) == 'PLAY'


def test_the_cache_folder_is_full(cloud: Cloud, host: ComputeHost, stack, cold_calm: str):
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', host.host.cache_path]
    stack.exec(mount)
    try:
        for name in ('', '/locks', '/generations'):
            path = f'{host.host.cache_path}{name}'
            stack.exec(['install', '-d', '-o', 'nova', '-g', 'nova', '-m', '711', path])
        log = _plain_servers(cloud, host, cold_calm)
        assert 'No room for another cache' in log
        assert len(_warnings(log)) <= 1, 'one for all servers, or none: it was said before'
    finally:
        # A keeper that was started for these boots has its lock there, until it sees them gone.
        umount = ['umount', host.host.cache_path]
        waiting.until(
            lambda: stack.exec(umount, check=False).returncode == 0, 'the end of the small folder'
        )


def test_the_base_is_closed_to_nova(cloud: Cloud, host: ComputeHost, ready_calm: str):
    first = cloud.boot(ready_calm)
    base = host.host.base_store / os.path.basename(host.backing_file(first))
    first.delete()
    base.chmod(0o600)
    os.chown(base, 0, 0)
    try:
        # Nova reads bases itself while it makes an overlay; where it cannot, no server boots.
        server = cloud.boot(ready_calm, wait='')
        with contextlib.suppress(AssertionError):
            server.wait_for('ACTIVE')
        assert server.facts.status == 'ERROR'
    finally:
        base.chmod(0o644)
        os.chown(base, host.nova_uid, host.nova_uid)


def test_a_chain_that_qemu_cannot_open_boots_plain(
    cloud: Cloud, host: ComputeHost, ready_calm: str
):
    cache = host.host.outside(host.show(ready_calm)['path'])
    cache.chmod(0o400)  # nova's own reading of it finds nothing wrong
    try:
        log = _plain_servers(cloud, host, ready_calm, 1)
    finally:
        cache.chmod(0o440)
    assert 'Guest failed to start with its cache' in log
    assert host.kind(cloud.boot(ready_calm)) == 'PLAY'


def test_options_that_make_no_sense(cloud: Cloud, host: ComputeHost, configure, ready_calm: str):
    # One that oslo.config refuses, and one of our own rules; unit tests have all of them.
    for option, value in (('quota', 'much'), ('cache_path', 'relative')):
        before = len(host.nova_log())
        configure(qcache={option: value})
        (message,) = _warnings(host.nova_log()[before:])
        assert 'nova-qcache is off' in message
        assert option in message
        assert value in message
    _plain_servers(cloud, host, ready_calm, 1)


@pytest.mark.options(qcache={'recording_idle_seconds': 10, 'recording_settle_seconds': 3})
def test_the_package_goes_while_a_recorder_works(
    cloud: Cloud, host: ComputeHost, stack, cold_calm: str
):
    server = cloud.boot(cold_calm)
    package = _package(stack)
    hidden = package.with_name('nova_qcache.hidden')
    shutil.move(package, hidden)
    try:
        server.wait_until_booted(boots=1)
        record = next(host.cache_folder.glob(f'{cold_calm}.*.json'))
        waiting.until(lambda: '"READY"' in record.read_text(), 'a sealed cache')
        server.wait_until_alive()
    finally:
        shutil.move(hidden, package)


_EVENTLET = {
    'concurrency_backend': 'eventlet',  # as Nova 31 and 32 are: one thread of the system for all
    'report_interval': 1,
    # Of Nova's own tasks that ask libvirt, the first one that waits would hold up all others.
    'update_resources_interval': -1,
    'sync_power_state_interval': -1,
}


@pytest.mark.options(DEFAULT=_EVENTLET)
def test_libvirt_hangs_under_eventlet(cloud: Cloud, host: ComputeHost, configure, ready_calm: str):
    server = cloud.boot(ready_calm)
    server.wait_until_booted(boots=1)
    proxy = host.host.outside('/run/libvirt-proxy')
    with hanging.serve(proxy, host.host.libvirt_socket) as libvirt:
        # Its maintenance asks libvirt each time who uses the cache that has no room in the budget.
        configure(
            DEFAULT=_EVENTLET,
            libvirt={'connection_uri': 'qemu:///system?socket=/run/libvirt-proxy'},
            image_cache={'manager_interval': 2},
            qcache={'quota': '1MiB', 'cache_budget': '1MiB'},
        )
        libvirt.hang()
        before = len(host.nova_log())
        waiting.until(
            lambda: 'no answer within' in host.nova_log()[before:],
            'a question to libvirt that is given up',
        )
        reported = cloud.last_report('nova-compute')
        waiting.until(
            lambda: cloud.last_report('nova-compute') > reported,
            'a report of a nova-compute that waits for libvirt',
        )
        libvirt.go_on()
        configure(DEFAULT=_EVENTLET)
    server.reboot('HARD').wait_until_booted(boots=2)
    assert host.kind(server) == 'PLAY'


def _package(stack):
    said = stack.exec(
        [
            f'{stack.layout.venv}/bin/python',
            '-c',
            'import nova_qcache, os; print(os.path.dirname(nova_qcache.__file__))',
        ]
    )
    return stack.layout.root.__class__(said.stdout.strip())
