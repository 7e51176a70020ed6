# SPDX-License-Identifier: Apache-2.0
"""Rescue keeps the XML of before for its end, which may come long after the cache has gone."""

from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost


def test_rescue_while_it_records_and_unrescue_without_a_cache(
    cloud: Cloud, host: ComputeHost, stack, cold_busy: str, driver_of_the_end: str
):
    server = cloud.boot(cold_busy)
    assert host.kind(server) == 'RECORD'
    server.wait_until_booted(boots=1)

    cloud.api.compute.rescue_server(server.id)
    server.wait_for('RESCUE')
    assert host.kind(server) == 'PLAIN'
    host.require_stock_surroundings(server)
    host.forget(cold_busy)
    host.power_cycle()
    stack.restart('nova-compute', driver=driver_of_the_end)

    cloud.api.compute.unrescue_server(server.id)
    server.wait_for('ACTIVE').wait_until_booted(boots=2)
    host.require_stock_surroundings(server)
    server.reboot('HARD').wait_until_booted(boots=3)
