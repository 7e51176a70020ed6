# SPDX-License-Identifier: Apache-2.0
"""Reading caches a bit at a time: every one gets its turn, and damage is found."""

import os

import pytest

from nova_qcache.cache.scrub import Scrubber
from nova_qcache.model.key import CacheKey
from nova_qcache.model.states import State
from tests.unit import builders
from tests.unit.builders import KEY
from tests.unit.builders import MIB

KEYS = [KEY, CacheKey(KEY.image_id, KEY.generation.next())]
CONTENT = bytes(range(256)) * 12 * 1024  # 3 MiB


@pytest.fixture
def scrubber(store):
    return Scrubber(store)


@pytest.fixture
def caches(store):
    return [builders.ready(store, CONTENT, key=key) for key in KEYS]


def damage(store, key):
    path = store.paths.sealed(key)
    path.chmod(0o600)
    with open(path, 'r+b') as file:
        file.seek(2 * MIB)
        file.write(b'\1')


def states(store):
    return [store.load(key).state for key in KEYS]


def test_no_cache(scrubber):
    assert scrubber.scrub(MIB) == 0


def test_nothing_is_read_without_a_budget(scrubber, caches):
    assert scrubber.scrub(0) == 0


def test_sound_caches_stay(scrubber, store, caches):
    assert scrubber.scrub(100 * MIB) == 2 * len(CONTENT), 'each once'
    assert [store.load(key) for key in KEYS] == caches


@pytest.mark.parametrize('which', [0, 1])
@pytest.mark.parametrize('budget', [100 * MIB, MIB // 2])
def test_a_damaged_one_is_retired(scrubber, store, caches, which, budget):
    damage(store, KEYS[which])
    read = 0
    while read < 2 * len(CONTENT):
        step = scrubber.scrub(budget)
        assert 0 < step <= budget
        read += step
    scrubber.scrub(1)  # its end is seen at the next look
    wanted = [State.READY, State.READY]
    wanted[which] = State.STALE
    assert states(store) == wanted
    assert 'its digest is' in store.load(KEYS[which]).stale_reason


def test_a_file_that_is_gone(scrubber, store, caches):
    store.paths.sealed(KEYS[0]).unlink()
    scrubber.scrub(100 * MIB)
    assert states(store) == [State.STALE, State.READY]
    said = 'its file cannot be read (No such file or directory)'
    assert store.load(KEYS[0]).stale_reason == said


def test_a_folder_in_its_place(scrubber, store, caches):
    path = store.paths.sealed(KEYS[0])
    path.unlink()
    path.mkdir()
    scrubber.scrub(100 * MIB)
    assert states(store) == [State.STALE, State.READY]


def test_what_is_recorded_again_meanwhile(scrubber, store, caches):
    """What was read of a cache of before says nothing about the new one."""
    scrubber.scrub(MIB)
    store.discard(KEYS[0])
    builders.ready(store, b'other' * MIB, key=KEYS[0], created_at=2e9)
    scrubber.scrub(100 * MIB)
    assert states(store) == [State.READY, State.READY]


@pytest.mark.parametrize('end', ['discard', 'retire'])
def test_what_is_gone_meanwhile(scrubber, store, caches, end):
    scrubber.scrub(MIB)
    if end == 'discard':
        store.discard(KEYS[0])
        assert scrubber.scrub(100 * MIB)
        assert store.keys() == KEYS[1:]
    else:
        store.retire(caches[0], 'x')
        scrubber.scrub(100 * MIB)
        assert store.load(KEYS[0]).stale_reason == 'x'


def test_a_record_that_cannot_be_read_is_passed_over(scrubber, store, caches):
    store.paths.record(KEYS[0]).write_bytes(b'x')
    assert scrubber.scrub(100 * MIB) == len(CONTENT)


def test_recordings_are_not_read(scrubber, store):
    builders.warm(store)
    assert scrubber.scrub(100 * MIB) == 0


def test_the_next_turn_is_the_next_ones(scrubber, store, caches):
    assert scrubber.scrub(len(CONTENT) + 1) == len(CONTENT) + 1
    damage(store, KEYS[1])
    os.truncate(store.paths.sealed(KEYS[1]), 1)
    scrubber.scrub(2)
    assert states(store) == [State.READY, State.STALE]
