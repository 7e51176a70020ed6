# SPDX-License-Identifier: Apache-2.0
"""What is in use stays."""

from tests.openstack import waiting
from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost


def _refused(host: ComputeHost, image: str) -> str:
    done = host.qcache('remove', image, check=False)
    assert done.returncode == 1, done
    assert host.show(image)
    return done.stderr


def test_a_cache_in_use_is_not_removed(
    cloud: Cloud, host: ComputeHost, stack, ready_calm: str, cold_busy: str
):
    plays = cloud.boot(ready_calm)
    assert 'is in use' in _refused(host, ready_calm)
    records = cloud.boot(cold_busy)
    assert 'is in use' in _refused(host, cold_busy)

    # What a nova-compute without us leaves behind: XML with our chain that is kept.
    plays.wait_until_booted()
    running = host.live_xml(plays)
    stack.restart('nova-compute', driver='stock', kill=True)
    try:
        plays.do('suspend', status='SUSPENDED')
        waiting.until(
            lambda: host.host.cache_path not in host.kept_xml(plays),
            'a memory image from which the keeper has taken the chain',
        )
        plays.do('resume').wait_until_alive()
        assert host.kind(plays) == 'PLAIN'
        cloud.api.compute.rescue_server(plays.id)
        plays.wait_for('RESCUE')
        # Nova ends the guest first, so that even then it keeps the definition, which is plain.
        host.require_stock_surroundings(plays)
    finally:
        stack.restart('nova-compute', driver='qcache', kill=True)
    kept = host.instances / plays.id / 'unrescue.xml'
    kept.write_text(running)
    assert f'rescued instance {plays.id} names it' in _refused(host, ready_calm)
    cloud.api.compute.unrescue_server(plays.id)
    plays.wait_for('ACTIVE').wait_until_booted()
    assert host.kind(plays) == 'PLAIN'
    host.require_stock_surroundings(plays)

    host.qcache('remove', ready_calm)
    assert host.show(ready_calm) == {}
    plays.wait_until_alive()
    records.wait_until_booted(boots=1)
