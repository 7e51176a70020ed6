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


def test_a_large_quota_gives_a_part_of_itself_to_each():
    whole = 1024 * MIB + 1023
    file_limit = whole - (4 * MIB + 3)
    write_limit = file_limit - (32 * MIB + 31)
    assert quota.file_limit(whole) == file_limit
    assert quota.write_limit(whole, 65536) == write_limit
    assert quota.threshold(whole, 65536) == write_limit - (988 * MIB // 64 + 15)


def test_a_small_quota_keeps_the_least_that_the_file_system_needs():
    whole = MIB + 7
    assert quota.file_limit(whole) == whole - 16384
    assert quota.write_limit(whole, 65536) == whole - 16384 - (MIB // 4 + 1)


def test_tables_of_large_clusters_get_64_clusters():
    assert quota.write_limit(64 * MIB, 65536) == quota.file_limit(64 * MIB) - 64 * 65536


@pytest.mark.parametrize('whole', [2100 * MIB, 1900 * MIB])
def test_a_limit_shortly_before_a_block_of_reference_counts_keeps_256_mib_from_it(whole):
    """With clusters of 16 KiB there is such a block at each multiple of 2 GiB."""
    assert quota.write_limit(whole, 16384) == 2048 * MIB - 256 * MIB


@pytest.mark.parametrize(('whole', 'cluster_size'), [(2300 * MIB, 16384), (500 * MIB, 8192)])
def test_a_limit_elsewhere_or_with_small_clusters_stays(whole, cluster_size):
    limit = quota.file_limit(whole) - whole // 32
    assert quota.write_limit(whole, cluster_size) == limit


def test_the_least_is_twice_the_tables_and_16_clusters():
    assert quota.least(200 * 1024, 4096) == 2 * (200 * 1024 + 64 * 1024)
