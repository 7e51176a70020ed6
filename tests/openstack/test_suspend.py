# SPDX-License-Identifier: Apache-2.0
"""A suspended server's memory is kept with the XML it ran with: that must not name what may go."""

from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost


def test_suspend_while_it_records_and_resume_after_the_host_was_off(
    cloud: Cloud, host: ComputeHost, stack, cold_busy: str, driver_of_the_end: str
):
    server = cloud.boot(cold_busy)
    assert host.kind(server) == 'RECORD'
    server.wait_until_booted(boots=1)
    server.do('suspend', status='SUSPENDED')
    host.require_stock_surroundings(server)

    host.power_cycle()
    stack.restart('nova-compute', driver=driver_of_the_end)
    server.do('resume').wait_until_alive()
    assert 'QCACHE booted' not in server.console  # libvirt begins the log anew: it did not boot
    assert host.kind(server) == 'PLAIN'
    host.require_stock_surroundings(server)
    server.reboot('HARD').wait_until_booted(boots=2)


def test_suspend_and_resume_while_it_plays(cloud: Cloud, host: ComputeHost, ready_calm: str):
    server = cloud.boot(ready_calm)
    server.wait_until_booted(boots=1)
    server.do('suspend', status='SUSPENDED')
    host.require_stock_surroundings(server)
    server.do('resume').wait_until_alive()
    host.require_stock_surroundings(server)
