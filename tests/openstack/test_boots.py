# SPDX-License-Identifier: Apache-2.0
"""The first servers of an image: record, play, share a recorder."""

import pytest
import small_disk

from tests.openstack import waiting
from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost


@pytest.mark.core
def test_the_first_server_records_and_the_second_plays(
    cloud: Cloud, host: ComputeHost, cold_bootable: str
):
    before = host.base_bytes()
    first = cloud.boot(cold_bootable)
    assert host.kind(first) == 'RECORD'
    first.wait_until_booted(boots=1)
    shown = host.seal(cold_bootable)
    recorded = host.base_bytes() - before
    assert len(host.recorders()) == 1  # its guest still reads through it

    before = host.base_bytes()
    second = cloud.boot(cold_bootable)
    assert host.kind(second) == 'PLAY'
    overlay, cache, base = host.chain(second)
    assert overlay.endswith('/disk')
    assert cache == shown['path']
    assert base == host.backing_file(second)
    second.wait_until_booted(boots=1)
    played = host.base_bytes() - before
    # Nova itself looks at the base while it makes an overlay.
    assert played < recorded / 100 + small_disk.MIB, (recorded, played)

    host.require_nova_owns(host.host.outside(cache))
    second.delete()
    host.require_nova_owns(host.host.outside(cache))
    first.wait_until_alive()


def test_three_servers_of_a_cold_image_share_one_recorder(
    cloud: Cloud, host: ComputeHost, cold_calm: str
):
    servers = [cloud.boot(cold_calm, wait='') for _ in range(3)]
    for server in servers:
        server.wait_for('ACTIVE')
    assert [host.kind(server) for server in servers] == ['RECORD'] * 3
    assert len({tuple(host.chain(server)[1:]) for server in servers}) == 1
    assert len(host.recorders()) == 1
    assert len(host.daemons()) == 1
    for server in servers:
        server.wait_until_booted(boots=1)  # it has compared what it read
    host.seal(cold_calm)
    for server in servers:
        server.wait_until_alive()
        assert host.backing_file(server).startswith(host.host.base_path)


def test_the_last_guest_takes_the_recorder_with_it(
    cloud: Cloud, host: ComputeHost, cold_calm: str
):
    server = cloud.boot(cold_calm)
    server.wait_until_booted()
    host.seal(cold_calm)
    server.delete()
    waiting.until(lambda: not host.recorders(), 'the end of the recorder')
    assert host.show(cold_calm)['state'] == 'READY'


def test_a_server_that_is_deleted_while_it_records_leaves_nothing(
    cloud: Cloud, host: ComputeHost, cold_busy: str
):
    server = cloud.boot(cold_busy)
    assert host.kind(server) == 'RECORD'
    server.delete()
    waiting.until(lambda: not host.recorders(), 'the end of the recorder')
    assert host.show(cold_busy) == {}
