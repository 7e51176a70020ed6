# SPDX-License-Identifier: Apache-2.0
"""How a quota is divided: the parts never meet, whatever the quota."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from nova_qcache.recorder import quota
from tests.unit.builders import MIB

clusters = st.sampled_from([2**power for power in range(12, 22)])


@given(st.integers(1, 2**20), clusters)
def test_parts_are_in_order(mib, cluster_size):
    whole = mib * MIB
    limit = quota.write_limit(whole, cluster_size)
    at = quota.threshold(whole, cluster_size)
    assert 0 < at <= limit < quota.file_limit(whole) < whole
    assert limit >= whole // 2, 'most of a quota is for what is recorded'


@given(st.integers(1, 2**20), clusters)
def test_what_is_in_flight_reaches_no_block_of_reference_counts(mib, cluster_size):
    limit = quota.write_limit(mib * MIB, cluster_size)
    stretch = 8 * cluster_size**2
    if stretch >= 1024 * MIB:
        assert (limit - 1) // stretch == (limit + 256 * MIB - 1) // stretch


@given(st.integers(1, 2**20), clusters)
def test_tables_have_room_behind_the_limit(mib, cluster_size):
    whole = mib * MIB
    room = quota.file_limit(whole) - quota.write_limit(whole, cluster_size)
    assert room >= min(64 * cluster_size, whole // 4)


@given(st.integers(1, 2**20))
def test_the_file_system_has_room_for_its_own_tables(mib):
    """An extent of ext4's tree has 12 bytes and may be as small as one block of 4 KiB."""
    whole = mib * MIB
    assert whole - quota.file_limit(whole) >= max(16384, whole // 4096 * 12)


@pytest.mark.parametrize(('empty', 'cluster_size'), [(200 * 1024, 4096), (400 * 1024, 65536)])
def test_least_has_room_for_something(empty, cluster_size):
    least = quota.least(empty, cluster_size)
    assert quota.threshold(least, cluster_size) - empty >= 16 * cluster_size
