# SPDX-License-Identifier: Apache-2.0
"""nova-compute comes and goes, with the plugin and without; guests notice nothing."""

from tests.openstack import waiting
from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost


def test_guests_survive_the_death_and_the_absence_of_nova_compute(
    cloud: Cloud, host: ComputeHost, stack, cold_busy: str
):
    first = cloud.boot(cold_busy)
    assert host.kind(first) == 'RECORD'
    first.wait_until_booted(boots=1)
    recorders = host.recorders()

    stack.stop('nova-compute', 9)
    seen = host.show(cold_busy)['cache_bytes']
    host_alive(host, first)
    stack.start('nova-compute')
    first.wait_until_alive()
    assert host.recorders() == recorders
    waiting.until(lambda: host.show(cold_busy)['cache_bytes'] > seen, 'a recording that goes on')

    second = cloud.boot(cold_busy)
    assert host.chain(second)[1:] == host.chain(first)[1:]  # the recorder was found again
    second.wait_until_booted(boots=1)
    stack.restart('nova-compute')
    first.wait_until_alive()
    second.wait_until_alive()


def test_the_plugin_is_switched_off_and_on_again(
    cloud: Cloud, host: ComputeHost, stack, ready_calm: str, cold_busy: str
):
    plays = cloud.boot(ready_calm)
    stopped = cloud.boot(ready_calm)
    records = cloud.boot(cold_busy)
    for server in (plays, stopped, records):
        server.wait_until_booted(boots=1)
    stopped.do('stop', status='SHUTOFF')

    stack.restart('nova-compute', driver='stock', kill=True)
    try:
        for server in (plays, records):
            server.wait_until_alive()
            server.reboot('SOFT').wait_until_booted(boots=2)
            assert host.kind(server) == 'PLAIN'
            server.reboot('HARD').wait_until_booted(boots=3)
        stopped.do('start').wait_until_booted(boots=2)
        assert host.kind(stopped) == 'PLAIN'
    finally:
        stack.restart('nova-compute', driver='qcache', kill=True)

    for server in (plays, stopped):
        server.wait_until_alive()
        server.reboot('HARD')
        assert host.kind(server) == 'PLAY'
        server.wait_until_booted()


def host_alive(host: ComputeHost, server) -> None:
    """Without nova-compute there is no console: ask the host's libvirt."""
    assert 'running' in host.virsh('domstate', server.domain)
