# SPDX-License-Identifier: Apache-2.0
"""Servers that change their image, their size or their disk."""

from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost


def test_rebuild_with_the_same_and_with_another_image(
    cloud: Cloud, host: ComputeHost, ready_calm: str, cold_busy: str
):
    server = cloud.boot(ready_calm)
    server.wait_until_booted(boots=1)
    first_base = host.backing_file(server)

    cloud.api.compute.rebuild_server(server.id, image=ready_calm)
    server.wait_for('ACTIVE').wait_until_booted(boots=1)
    assert host.kind(server) == 'PLAY'
    assert host.backing_file(server) == first_base
    host.require_stock_surroundings(server)

    cloud.api.compute.rebuild_server(server.id, image=cold_busy)
    server.wait_for('ACTIVE').wait_until_booted(boots=1)
    assert host.kind(server) == 'RECORD'
    assert host.backing_file(server) != first_base
    host.require_stock_surroundings(server)


def test_resize_on_the_same_host(cloud: Cloud, host: ComputeHost, ready_calm: str):
    server = cloud.boot(ready_calm, 'tiny')
    server.wait_until_booted(boots=1)
    small = cloud.flavor('small')

    cloud.api.compute.resize_server(server.id, small)
    server.wait_for('VERIFY_RESIZE').wait_until_booted(boots=2)
    cloud.api.compute.revert_server_resize(server.id)
    server.wait_for('ACTIVE').wait_until_booted(boots=2)  # with the disk of before
    assert host.kind(server) == 'PLAY'
    host.require_stock_surroundings(server)

    cloud.api.compute.resize_server(server.id, small)
    server.wait_for('VERIFY_RESIZE').wait_until_booted(boots=3)
    cloud.api.compute.confirm_server_resize(server.id)
    server.wait_for('ACTIVE').wait_until_alive()
    assert host.kind(server) == 'PLAY'
    host.require_stock_surroundings(server)


def test_shelve_and_unshelve(cloud: Cloud, host: ComputeHost, ready_calm: str):
    server = cloud.boot(ready_calm)
    server.wait_until_booted(boots=1)
    cloud.api.compute.shelve_server(server.id)
    server.wait_for('SHELVED_OFFLOADED')
    (snapshot,) = cloud.api.image.images(name=f'{server.facts.name}-shelved')
    host.wait_until_clean()
    cloud.api.compute.unshelve_server(server.id)
    server.wait_for('ACTIVE').wait_until_booted(boots=2)
    # Nova has rebased the disk on the image of before.
    assert host.kind(server) == 'PLAY'
    assert not host.caches(snapshot.id), 'it was made for this boot alone'
    host.require_stock_surroundings(server)


def _snapshot(cloud: Cloud, server) -> str:
    image = cloud.api.compute.create_server_image(server.id, f'of-{server.id}', wait=True)
    identity: str = image.id
    cloud.at_end(cloud.api.image.delete_image, identity)
    return identity


def test_snapshots_of_a_server_that_plays_and_of_one_that_records(
    cloud: Cloud, host: ComputeHost, ready_calm: str, cold_busy: str
):
    for image, kind in ((ready_calm, 'PLAY'), (cold_busy, 'RECORD')):
        server = cloud.boot(image)
        assert host.kind(server) == kind
        server.wait_until_booted(boots=1)
        live = _snapshot(cloud, server)
        server.wait_for('ACTIVE').wait_until_alive()
        host.require_stock_surroundings(server)
        server.do('stop', status='SHUTOFF')
        cold = _snapshot(cloud, server)
        server.delete()

        for snapshot in (live, cold):
            copy = cloud.boot(snapshot)
            copy.wait_until_booted(boots=2)  # it counts on where the server was
            host.require_stock_surroundings(copy)
            copy.delete()
        host.wait_until_clean()
        for snapshot in (live, cold):
            host.forget(snapshot)
