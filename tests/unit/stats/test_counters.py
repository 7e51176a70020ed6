# SPDX-License-Identifier: Apache-2.0
"""What is counted: sums, and what a file of it may look like."""

import dataclasses
import json

from hypothesis import given
from hypothesis import strategies as st
import pytest

from nova_qcache import exception
from nova_qcache.stats import counters
from nova_qcache.stats.counters import Counters

NUMBERS = st.integers(0, 2**40)
REASONS = st.dictionaries(st.sampled_from(['a', 'b', 'c']), NUMBERS)
KINDS: dict[object, st.SearchStrategy] = {int: NUMBERS, float: NUMBERS.map(float)}
ANY = st.builds(
    Counters,
    **{field.name: KINDS.get(field.type, REASONS) for field in dataclasses.fields(Counters)},
)


def test_each_figure_names_its_source():
    assert set(counters.SOURCES) == {field.name for field in dataclasses.fields(Counters)}
    assert all(counters.SOURCES.values())


def test_sums():
    one = Counters(boots=2, plays=1, plain={'stale': 1}, recording_seconds=1.5, saved_bytes=10)
    two = Counters(boots=3, plain={'stale': 1, 'doubt': 4}, recording_seconds=2.0)
    assert counters.add(one, two) == Counters(
        boots=5,
        plays=1,
        plain={'stale': 2, 'doubt': 4},
        recording_seconds=3.5,
        saved_bytes=10,
    )


def test_what_is_no_sum():
    one = Counters(last_boot_at=9, last_used_at=9, boot_bytes=100)
    two = Counters(last_boot_at=5, last_used_at=12, boot_bytes=40)
    total = counters.add(one, two)
    assert (total.last_boot_at, total.last_used_at, total.boot_bytes) == (9, 12, 40)
    assert counters.add(one, Counters()).boot_bytes == 100  # nothing was measured


@given(ANY, ANY)
def test_no_figure_is_forgotten_in_a_sum(one, other):
    total = counters.add(one, other)
    for field in dataclasses.fields(Counters):
        if field.name in ('last_boot_at', 'last_used_at', 'boot_bytes'):
            continue
        parts = [getattr(each, field.name) for each in (one, other, total)]
        if isinstance(parts[0], dict):
            parts = [sum(part.values()) for part in parts]
        assert parts[0] + parts[1] == parts[2], field.name


@given(ANY)
def test_a_file_says_what_was_written(some):
    read = counters.loads(counters.dumps(some), '/x')
    assert counters.dumps(read) == counters.dumps(some)
    assert read.boots == some.boots
    assert read.recording_seconds == some.recording_seconds


def test_what_a_newer_version_counts_is_left_out():
    assert counters.loads(b'{"version": 1, "boots": 3, "more": 4}', '/x') == Counters(boots=3)


@pytest.mark.parametrize(
    'text',
    [
        b'',
        b'[]',
        b'{"boots": 3}',
        b'{"version": 0, "boots": 3}',
        b'{"version": "2", "boots": 3}',
        b'{"version": 1, "boots": "3"}',
        b'{"version": 1, "boots": -3}',
        b'{"version": 1, "boots": true}',
        b'{"version": 1, "boots": 3.5}',
        b'{"version": 1, "recording_seconds": NaN}',
        b'{"version": 1, "recording_seconds": 1e400}',
        b'{"version": 1, "plain": 3}',
        b'{"version": 1, "plain": {"stale": "many"}}',
        b'\xff',
        b'[' * 100_000,
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(exception.StatisticsBroken, match='/x') as caught:
        counters.loads(text, '/x')
    assert not isinstance(caught.value, exception.StatisticsTooNew)


def test_a_newer_layout_is_refused_by_its_name():
    with pytest.raises(exception.StatisticsTooNew, match=r"'/x' have version 2, but .* up to 1"):
        counters.loads(b'{"version": 2, "boots": "in another way"}', '/x')


def test_zeros_take_no_space():
    assert json.loads(counters.dumps(Counters(boots=1))) == {'version': 1, 'boots': 1}


@pytest.mark.parametrize(
    ('audited', 'missed', 'ratio'), [(0, 0, None), (100, 0, 1.0), (100, 25, 0.75), (10, 20, 0.0)]
)
def test_hit_ratio(audited, missed, ratio):
    assert Counters(audited_bytes=audited, missed_bytes=missed).hit_ratio == ratio


def test_what_follows_from_the_counters():
    some = Counters(recorded_bytes=100, missed_bytes=10, audited_bytes=50, saved_bytes=1000)
    assert some.base_bytes == 110
    assert some.served_bytes == 1040
    assert Counters(missed_bytes=9).served_bytes == 0
