# SPDX-License-Identifier: Apache-2.0
"""Which caches go first: each policy alone, the order of the whole, and how many go."""

import math

from hypothesis import given
from hypothesis import strategies as st
import pytest

from nova_qcache.cache.eviction import Candidate
from nova_qcache.cache.eviction import choose
from nova_qcache.cache.eviction import EvictionPolicy
from nova_qcache.cache.eviction import in_order
from nova_qcache.cache.eviction import LeastRecentlyUsed
from nova_qcache.cache.eviction import LeastValuable
from nova_qcache.cache.eviction import LinkGroup
from nova_qcache.model.key import CacheKey
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import MIB

DAY = 24 * 3600.0


def cache(number=0, **changes):
    key = CacheKey(f'{IMAGE[:-12]}{number:012d}', GENERATION)
    values = {'key': key, 'allocated': MIB, 'idle_seconds': DAY, 'saved_bytes': 0}
    return Candidate(**{**values, **changes})


def link_group(number=0, frees=MIB, **changes):
    return LinkGroup((cache(number, allocated=frees, **changes),), frees)


def numbers(link_groups):
    return [int(each.caches[0].key.image_id[-12:]) for each in link_groups]


# -- policies

SIZES = st.integers(min_value=0, max_value=2**50)
SECONDS = st.floats(min_value=0, max_value=10**10)


@given(SIZES, SECONDS, SECONDS, SIZES, SIZES)
def test_the_least_valuable_in_each_of_its_figures(allocated, idle, more_idle, saved, more):
    worth = LeastValuable().worth
    this = cache(allocated=allocated, idle_seconds=idle, saved_bytes=saved)
    assert worth(this) >= worth(
        cache(allocated=allocated, idle_seconds=idle + more_idle, saved_bytes=saved)
    )
    assert worth(this) <= worth(
        cache(allocated=allocated, idle_seconds=idle, saved_bytes=saved + more)
    )
    assert worth(this) >= worth(
        cache(allocated=allocated + more, idle_seconds=idle, saved_bytes=saved)
    )


def test_savings_are_worth_time():
    """Nine times its size saved: ten times as long."""
    worth = LeastValuable().worth
    saver = worth(cache(saved_bytes=9 * MIB, idle_seconds=10 * DAY))
    assert worth(cache(idle_seconds=DAY + 10)) < saver < worth(cache(idle_seconds=DAY - 10))


def test_savings_count_for_what_they_cost():
    worth = LeastValuable().worth
    small, large = cache(saved_bytes=9 * MIB), cache(saved_bytes=9 * MIB, allocated=9 * MIB)
    assert worth(large) < worth(small)


@pytest.mark.parametrize(
    ('allocated', 'saved', 'idle', 'worth'),
    [(0, 0, 0, 1), (0, 3, 0, 4), (1, 3, 0, 4), (2, 3, 0, 2.5), (2, 3, 4, 0.5)],
)
def test_the_value_as_its_policy_says(allocated, saved, idle, worth):
    this = cache(allocated=allocated, saved_bytes=saved, idle_seconds=idle)
    assert LeastValuable().worth(this) == worth


@given(SECONDS, SIZES)
def test_the_least_recently_used_knows_time_only(idle, anything):
    worth = LeastRecentlyUsed().worth
    this = cache(idle_seconds=idle, allocated=anything, saved_bytes=anything)
    assert worth(this) == worth(cache(idle_seconds=idle))
    assert worth(this) > worth(cache(idle_seconds=idle + 1 + idle / 1000))


# -- the order


def test_what_no_boot_can_use_goes_first():
    link_groups = [
        link_group(1, idle_seconds=9 * DAY),
        link_group(2, idle_seconds=0, is_stale=True),
        link_group(3, idle_seconds=DAY, is_stale=True),
        link_group(4, idle_seconds=99 * DAY),
    ]
    assert numbers(in_order(link_groups, LeastRecentlyUsed())) == [3, 2, 4, 1]


def test_names_of_one_file_are_worth_what_the_best_of_them_is():
    old, new = cache(1, idle_seconds=99 * DAY, is_stale=True), cache(1, idle_seconds=0)
    both = LinkGroup((old, new), MIB)
    assert not both.is_stale
    assert numbers(in_order([both, link_group(2)], LeastRecentlyUsed())) == [2, 1]


def test_what_is_worth_the_same_goes_in_the_order_of_its_key():
    assert numbers(
        in_order([link_group(3), link_group(1), link_group(2)], LeastRecentlyUsed())
    ) == [1, 2, 3]


def test_a_plugin_that_divides_by_nothing_mixes_nothing_up():
    class Odd(EvictionPolicy):
        def worth(self, candidate):
            return math.nan if candidate.idle_seconds > DAY else candidate.idle_seconds

    link_groups = [
        link_group(1, idle_seconds=5),
        link_group(2, idle_seconds=2 * DAY),
        link_group(3, idle_seconds=3),
    ]
    assert numbers(in_order(link_groups, Odd())) == [2, 3, 1]


# -- how many


@pytest.mark.parametrize(
    ('wanted', 'chosen'), [(1, [1]), (MIB, [1]), (MIB + 1, [1, 2]), (3 * MIB, [1, 2, 3])]
)
def test_as_many_as_it_takes(wanted, chosen):
    assert numbers(choose([link_group(1), link_group(2), link_group(3)], wanted)) == chosen


def test_all_of_them_if_they_are_too_few():
    assert numbers(choose([link_group(1), link_group(2)], 99 * MIB)) == [1, 2]


def test_a_large_one_makes_others_needless():
    link_groups = [link_group(1), link_group(2, 2 * MIB), link_group(3, 10 * MIB), link_group(4)]
    assert numbers(choose(link_groups, 9 * MIB)) == [3]
    assert numbers(choose(link_groups, 11 * MIB)) == [1, 3]
    assert numbers(choose(link_groups, 12 * MIB)) == [2, 3]


def test_what_no_boot_can_use_goes_all_the_same():
    assert numbers(
        choose([link_group(1, is_stale=True), link_group(2), link_group(3, 10 * MIB)], 9 * MIB)
    ) == [1, 3]


def test_what_frees_nothing_stays():
    assert numbers(choose([link_group(1, 0), link_group(2)], MIB)) == [2]
    assert numbers(choose([link_group(1, 0, is_stale=True), link_group(2)], MIB)) == [2]


def test_what_frees_next_to_nothing_goes():
    assert numbers(choose([link_group(1, 1), link_group(2)], MIB + 1)) == [1, 2]


def test_no_more_are_looked_at_than_needed():
    link_groups = iter([link_group(1), link_group(2), link_group(3)])
    choose(link_groups, 2 * MIB)
    assert numbers(link_groups) == [3]
