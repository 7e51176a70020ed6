# SPDX-License-Identifier: Apache-2.0
"""What users do with a running server, while it records and while it plays."""

import pytest

from tests.openstack.cloud import Cloud
from tests.openstack.cloud import Server
from tests.openstack.compute import ComputeHost


@pytest.fixture(params=['RECORD', 'PLAY'])
def server(request, cloud: Cloud, host: ComputeHost) -> Server:
    """A server that has booted once, through a recorder or from a sealed cache."""
    image = {'RECORD': 'cold_busy', 'PLAY': 'ready_calm'}[request.param]
    made = cloud.boot(request.getfixturevalue(image))
    assert host.kind(made) == request.param
    made.wait_until_booted(boots=1)
    return made


def test_everyday_actions(server: Server, host: ComputeHost):
    kind = host.kind(server)
    host.require_stock_surroundings(server)

    before = len(host.nova_log())
    server.reboot('SOFT').wait_until_booted(boots=2)
    assert 'Instance soft rebooted successfully' in host.nova_log()[before:]
    assert host.kind(server) == kind
    host.require_stock_surroundings(server)

    # From here on a recording may have ended with its last guest: the grace time here is short.
    server.reboot('HARD').wait_until_booted(boots=3)
    assert host.kind(server) in (kind, 'PLAY')
    host.require_stock_surroundings(server)

    server.do('stop', status='SHUTOFF')
    host.require_stock_surroundings(server)
    server.do('start').wait_until_booted(boots=4)
    assert host.kind(server) in (kind, 'PLAY')
    host.require_stock_surroundings(server)

    server.do('pause', status='PAUSED').do('unpause').wait_until_alive()
    server.require_right_data()
