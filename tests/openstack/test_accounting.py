# SPDX-License-Identifier: Apache-2.0
"""What the pool takes of the instances' disk is reserved in Placement.

The bases of this cloud are on a device of their own, so all that Nova reports is the pool.
"""

import math

import pytest

from tests.openstack import waiting
from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost

_GIB = 1024**3
_QUOTA_MIB = 3000


@pytest.mark.options(
    DEFAULT={'update_resources_interval': 1},
    workarounds={'reserve_disk_resource_for_image_cache': True},
    qcache={'quota': _QUOTA_MIB},
)
def test_the_pool_is_reserved_in_placement(
    cloud: Cloud, host: ComputeHost, lone_calm: str, cold_busy: str
):
    def require_reserved(gib: int) -> None:
        assert math.ceil(host.figures()['pool_allocated_bytes'] / _GIB) == gib
        waiting.until(lambda: cloud.reserved_disk_gib() == gib, f'{gib} GiB reserved')

    require_reserved(1)
    server = cloud.boot(cold_busy)
    assert host.kind(server) == 'RECORD'
    require_reserved(3)  # with what is not written yet
    host.seal(cold_busy)
    require_reserved(1)
    server.delete()
    for image in (lone_calm, cold_busy):
        host.forget(image)
    require_reserved(0)
