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
def scrubber(catalog):
    return Scrubber(catalog)


@pytest.fixture
def caches(catalog):
    return [builders.ready(catalog, CONTENT, key=key) for key in KEYS]


def damage(catalog, key):
    path = catalog.paths.sealed(key)
    path.chmod(0o600)
    with open(path, 'r+b') as file:
        file.seek(2 * MIB)
        file.write(b'\1')


def states(catalog):
    return [catalog.load(key).state for key in KEYS]


def test_no_cache(scrubber):
    assert scrubber.scrub(MIB) == 0


def test_nothing_is_read_without_a_budget(scrubber, caches):
    assert scrubber.scrub(0) == 0


def test_sound_caches_stay(scrubber, catalog, caches):
    assert scrubber.scrub(100 * MIB) == 2 * len(CONTENT), 'each once'
    assert [catalog.load(key) for key in KEYS] == caches


@pytest.mark.parametrize('which', [0, 1])
@pytest.mark.parametrize('budget', [100 * MIB, MIB // 2])
def test_a_damaged_one_is_retired(scrubber, catalog, caches, which, budget):
    damage(catalog, KEYS[which])
    read = 0
    while read < 2 * len(CONTENT):
        step = scrubber.scrub(budget)
        assert 0 < step <= budget
        read += step
    scrubber.scrub(1)  # its end is seen at the next look
    wanted = [State.READY, State.READY]
    wanted[which] = State.STALE
    assert states(catalog) == wanted
    assert 'its digest is' in catalog.load(KEYS[which]).stale_reason


def test_a_file_that_is_gone(scrubber, catalog, caches):
    catalog.paths.sealed(KEYS[0]).unlink()
    scrubber.scrub(100 * MIB)
    assert states(catalog) == [State.STALE, State.READY]
    said = 'its file cannot be read (No such file or directory)'
    assert catalog.load(KEYS[0]).stale_reason == said


def test_a_folder_in_its_place(scrubber, catalog, caches):
    path = catalog.paths.sealed(KEYS[0])
    path.unlink()
    path.mkdir()
    scrubber.scrub(100 * MIB)
    assert states(catalog) == [State.STALE, State.READY]


def test_what_is_recorded_again_meanwhile(scrubber, catalog, caches):
    """What was read of a cache of before says nothing about the new one."""
    scrubber.scrub(MIB)
    catalog.discard(KEYS[0])
    builders.ready(catalog, b'other' * MIB, key=KEYS[0], created_at=2e9)
    scrubber.scrub(100 * MIB)
    assert states(catalog) == [State.READY, State.READY]


@pytest.mark.parametrize('end', ['discard', 'retire'])
def test_what_is_gone_meanwhile(scrubber, catalog, caches, end):
    scrubber.scrub(MIB)
    if end == 'discard':
        catalog.discard(KEYS[0])
        assert scrubber.scrub(100 * MIB)
        assert catalog.keys() == KEYS[1:]
    else:
        catalog.retire(caches[0], 'x')
        scrubber.scrub(100 * MIB)
        assert catalog.load(KEYS[0]).stale_reason == 'x'


def test_a_record_that_cannot_be_read_is_passed_over(scrubber, catalog, caches):
    catalog.paths.record(KEYS[0]).write_bytes(b'x')
    assert scrubber.scrub(100 * MIB) == len(CONTENT)


def test_recordings_are_not_read(scrubber, catalog):
    builders.warm(catalog)
    assert scrubber.scrub(100 * MIB) == 0


def test_the_next_turn_is_the_next_ones(scrubber, catalog, caches):
    assert scrubber.scrub(len(CONTENT) + 1) == len(CONTENT) + 1
    damage(catalog, KEYS[1])
    os.truncate(catalog.paths.sealed(KEYS[1]), 1)
    scrubber.scrub(2)
    assert states(catalog) == [State.READY, State.STALE]
