# SPDX-License-Identifier: Apache-2.0
"""What is killed or changed under servers: their guests see right data, and go on by themselves.

The libvirt of Debian 12 (9.0) knows no ``<reconnect>``: it pauses a guest whose recorder's daemon
was killed, and the keeper resumes it.
"""

import os
import pathlib
import signal

import pytest

from tests.openstack import waiting
from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost


def _kill(pids) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    'whom',
    [
        'daemon',
        'recorder',
        'both',
    ],
)
def test_killed_under_guests_that_record(
    cloud: Cloud, host: ComputeHost, cold_busy: str, whom: str
):
    servers = [cloud.boot(cold_busy) for _ in range(2)]
    for server in servers:
        server.wait_until_booted(boots=1)
        assert host.kind(server) == 'RECORD'
    recorders, daemons = set(host.recorders()), set(host.daemons())
    _kill((recorders if whom != 'daemon' else set()) | (daemons if whom != 'recorder' else set()))

    waiting.until(
        lambda: host.recorders() and (set(host.recorders()) != recorders or whom == 'daemon'),
        'a recorder',
    )
    for server in servers:
        server.wait_until_alive()
    if whom == 'recorder':
        assert set(host.daemons()) == daemons
        waiting.until(
            lambda: host.show(cold_busy).get('phase') == 'recording', 'a recorder that goes on'
        )
    else:
        # The guests come first.
        waiting.until(lambda: not host.show(cold_busy), 'the end of the dirty recording')
    third = cloud.boot(cold_busy)
    third.wait_until_booted(boots=1)
    for server in servers:
        server.wait_until_alive()
        host.require_stock_surroundings(server)


def test_killed_while_nova_compute_is_away(cloud: Cloud, host: ComputeHost, stack, cold_busy: str):
    server = cloud.boot(cold_busy)
    server.wait_until_booted(boots=1)
    stack.stop('nova-compute', signal.SIGKILL)
    try:
        _kill([*host.recorders(), *host.daemons()])
        before = server.console.count('alive')
        waiting.until(lambda: server.console.count('alive') > before + 2, 'life of the guest')
        # Between two resumes it may be paused for a moment.
        waiting.until(lambda: 'running' in host.virsh('domstate', server.domain), 'a guest')
    finally:
        stack.start('nova-compute')
    server.wait_until_alive()


def test_who_was_paused_by_the_user_stays_so(cloud: Cloud, host: ComputeHost, cold_busy: str):
    paused, other = cloud.boot(cold_busy), cloud.boot(cold_busy)
    for server in (paused, other):
        server.wait_until_booted(boots=1)
    paused.do('pause', status='PAUSED')
    _kill(host.daemons())
    other.wait_until_alive()  # whoever can go on does by now
    assert 'paused' in host.virsh('domstate', '--reason', paused.domain)
    assert paused.facts.status == 'PAUSED'
    paused.do('unpause')
    paused.wait_until_alive()


def _examined(host: ComputeHost) -> None:
    """Wait until no cache is in doubt."""
    folder = host.run_folder / 'examinations'
    waiting.until(lambda: not list(folder.glob('*.examine')), 'the examination')


def test_a_base_that_was_downloaded_again_keeps_its_cache(
    cloud: Cloud, host: ComputeHost, ready_calm: str
):
    before = host.show(ready_calm)
    host.remove_base(ready_calm)
    plain = cloud.boot(ready_calm)
    assert host.kind(plain) == 'PLAIN'
    _examined(host)
    after = host.show(ready_calm)
    assert after['state'] == 'READY'
    assert after['generation'] != before['generation']
    assert after['digest'] == before['digest'], 'it was re-tagged, not recorded again'
    plays = cloud.boot(ready_calm)
    assert host.kind(plays) == 'PLAY'
    for server in (plain, plays):
        server.wait_until_booted(boots=1)


def test_another_image_under_the_same_id(cloud: Cloud, host: ComputeHost, disks: pathlib.Path):
    """Nova goes on with the base that it has, and so does the cache; once Nova has downloaded the
    other image, nothing of the old one is used."""
    image = cloud.upload(disks / 'calm.raw')
    first = cloud.boot(image)
    first.wait_until_booted(boots=1)
    host.seal(image)

    cloud.api.image.delete_image(image)
    cloud.purge_images()
    # It differs in what GRUB reads, and nowhere else.
    cloud.upload(disks / 'busy.raw', id=image)
    assert host.kind(cloud.boot(image)) == 'PLAIN', "Glance's hash is another one"
    _examined(host)
    server = cloud.boot(image)
    assert host.kind(server) == 'PLAY', 'the base is still the one that it was made of'
    server.wait_until_booted(boots=1)

    host.remove_base(image)
    server = cloud.boot(image)
    assert host.kind(server) == 'PLAIN'
    _examined(host)
    assert host.show(image)['state'] == 'STALE'
    records = cloud.boot(image)
    assert host.kind(records) == 'RECORD'
    for each in (server, records):
        each.wait_until_booted(boots=1)
    cloud.at_end(host.forget, image)
