# SPDX-License-Identifier: Apache-2.0
"""Proving a cache: what is read, and what follows from the answer."""

import collections
import random
from unittest import mock

from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st
import pytest

from nova_qcache import exception
from nova_qcache.generation import Generations
from nova_qcache.key import CacheKey
from nova_qcache.progress import silent
from nova_qcache.qemu_img import QemuImg
from nova_qcache.qemu_io import QemuIo
from nova_qcache.source import BaseIdentity
from nova_qcache.states import State
from nova_qcache.verifier import sample
from nova_qcache.verifier import SAMPLE_BYTES
from nova_qcache.verifier import SAMPLE_UNIT
from nova_qcache.verifier import Verification
from nova_qcache.verifier import Verifier
from tests import seeds
from tests.unit import builders
from tests.unit.builders import KEY

MOST_UNITS = SAMPLE_BYTES // SAMPLE_UNIT
EXTENTS = [(0, 8192), (65536, 4096)]
PARTIAL_UNITS = [
    (512, 94720),
    (95744, 98816),
    (195072, 111104),
    (306688, 119296),
    (426496, 143872),
    (570880, 152064),
    (723456, 152064),
    (876032, 152064),
]
"""Less than a sample, in more units than a sample has if each extent were cut by itself."""


@st.composite
def extents(draw, unit=SAMPLE_UNIT):
    """Extents of a disk in ascending order, none touching another."""
    found, at = [], 0
    for gap, units in draw(
        st.lists(st.tuples(st.integers(1, 9), st.integers(1, 300)), max_size=8)
    ):
        at += gap * unit
        found.append((at, units * unit))
        at += units * unit
    return found


def blocks(ranges, size):
    return [at for offset, length in ranges for at in range(offset, offset + length, size)]


@given(extents(), st.integers())
def test_sample_is_inside_never_twice_and_of_the_right_size(ranges, seed):
    there = blocks(ranges, SAMPLE_UNIT)
    chosen = sample(ranges, random.Random(seed))
    units = blocks(chosen, SAMPLE_UNIT)
    assert set(units) <= set(there)
    assert len(set(units)) == len(units) == min(len(there), MOST_UNITS)
    assert sum(length for _, length in chosen) == len(units) * SAMPLE_UNIT


@given(extents(unit=512), st.integers())
@example(PARTIAL_UNITS, 0)
def test_small_extents_are_no_less_likely(ranges, seed):
    """Subclusters have 512 bytes; a cache smaller than a sample is compared as a whole."""
    there = blocks(ranges, 512)
    chosen = blocks(sample(ranges, random.Random(seed)), 512)
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(there)
    if len(there) * 512 <= SAMPLE_BYTES:
        assert set(chosen) == set(there)
    else:  # only the last unit may be a shorter one
        assert SAMPLE_BYTES - SAMPLE_UNIT < len(chosen) * 512 <= SAMPLE_BYTES


@pytest.mark.parametrize(
    'ranges',
    [
        [(0, SAMPLE_UNIT), (8 * SAMPLE_UNIT, 500 * SAMPLE_UNIT), (2**30, 11 * SAMPLE_UNIT)],
        [(SAMPLE_UNIT * at, 512) for at in range(16 * MOST_UNITS)],
        [(0, 512), (2 * SAMPLE_UNIT, 2 * SAMPLE_BYTES - 1024), (4 * SAMPLE_BYTES, 512)],
    ],
    ids=['whole units', 'subclusters', 'a shifted extent'],
)
def test_every_byte_has_the_same_chance(ranges):
    there = blocks(ranges, 512)
    assert len(there) * 512 == 2 * SAMPLE_BYTES
    rounds = 400
    chance = random.Random(seeds.seed())
    counts = collections.Counter(
        at for _ in range(rounds) for at in blocks(sample(ranges, chance), 512)
    )
    # Binomial with p = 1/2: the standard deviation is 10, and six of them are never seen.
    assert all(abs(counts[at] - rounds / 2) < 60 for at in there)


def test_samples_differ():
    ranges = [(0, 4096 * SAMPLE_UNIT)]
    assert sample(ranges, random.Random(1)) != sample(ranges, random.Random(2))


@pytest.fixture
def source():
    return builders.MemorySource()


@pytest.fixture
def tools():
    image, reader = (
        mock.create_autospec(QemuImg, instance=True),
        mock.create_autospec(QemuIo, True),
    )
    image.cached_extents.return_value = EXTENTS
    reader.first_difference.return_value = None
    return image, reader


@pytest.fixture
def raised():
    generations = mock.create_autospec(Generations, instance=True)
    generations.current.return_value = builders.GENERATION
    generations.settled.side_effect = lambda source: generations.current(source)
    return generations


@pytest.fixture
def verifier(store, raised, tools) -> Verifier:
    return Verifier(store, raised, *tools)


def test_an_equal_sample_keeps_the_cache(verifier, store, source, raised):
    record = builders.ready(store)
    source.now = BaseIdentity(4096, 7, 5)
    assert verifier.sample_is_equal(record, source)
    after = store.load(KEY)
    assert (after.state, after.base_identity) == (State.READY, source.now)
    assert after.sealed == record.sealed
    raised.raise_before_write.assert_not_called()


def test_a_sample_is_of_what_is_cached_and_compares_with_the_base(verifier, store, source, tools):
    record = builders.ready(store)
    verifier.sample_is_equal(record, source)
    image, reader = tools
    image.cached_extents.assert_called_once_with(store.paths.sealed(KEY))
    cache, base, ranges, _ = reader.first_difference.call_args.args
    assert cache['backing'] is None, 'what is not cached must not be read from the base'
    assert cache['file']['filename'] == str(store.paths.sealed(KEY))
    assert base == source.image_node()
    assert sorted(ranges) == [(0, 4096), (4096, 4096), (65536, 4096)]


def test_the_base_is_looked_at_before_it_is_read(verifier, store, source, tools):
    """What changes it meanwhile shows the next time."""
    before = source.now

    def meanwhile(*arguments):
        source.now = BaseIdentity(1, 1, 1)

    tools[1].first_difference.side_effect = meanwhile
    record = builders.ready(store)
    verifier.sample_is_equal(record, source)
    assert store.load(KEY).base_identity == before
    source.now = before
    verifier.verify(record, source, silent)
    assert store.load(KEY).base_identity == before


def test_another_sample_retires_the_cache(verifier, store, source, raised, tools):
    tools[1].first_difference.return_value = 4096
    assert verifier.sample_is_equal(builders.ready(store), source) is False
    after = store.load(KEY)
    assert (after.state, after.stale_reason) == (State.STALE, 'the base differs at offset 4096')
    raised.raise_before_write.assert_called_once_with(source)


def test_a_difference_at_the_first_byte_is_one(verifier, store, source, tools):
    tools[1].first_difference.return_value = 0
    assert verifier.sample_is_equal(builders.ready(store), source) is False
    assert store.load(KEY).state is State.STALE


@pytest.mark.parametrize('tool', [0, 1])
@pytest.mark.parametrize(
    'error',
    [
        exception.ToolFailed(command='x', code=1, reason='y'),
        exception.DeadlinePassed(what='x', seconds=1, remedy='y'),
    ],
)
def test_what_cannot_be_read_changes_nothing(verifier, store, source, raised, tools, tool, error):
    [tools[0].cached_extents, tools[1].first_difference][tool].side_effect = error
    record = builders.ready(store)
    with pytest.raises(type(error)):
        verifier.sample_is_equal(record, source)
    with pytest.raises(type(error)):
        verifier.verify(record, source, silent)
    assert store.load(KEY) == record
    raised.raise_before_write.assert_not_called()


def test_verify_compares_all_that_is_cached(verifier, store, source, tools, raised):
    record = builders.ready(store, b'cached')
    source.now = BaseIdentity(1, 2, 3)
    told: list = []

    def progress(what, total, unit='B'):
        told.append((what, total))
        return told.append

    assert verifier.verify(record, source, progress) == Verification(KEY, '', 12288)
    assert tools[1].first_difference.call_args.args[2] == EXTENTS
    assert told == [('Reading the cache', 6), 6, ('Comparing with the base', 12288)]
    after = store.load(KEY)
    assert (after.state, after.base_identity) == (State.READY, source.now)
    assert after.sealed == record.sealed
    raised.raise_before_write.assert_not_called()


def test_verify_forgives_a_file_that_was_copied(verifier, store, source):
    """Another inode and time, and every byte proved: it is good again."""
    record = builders.ready(store, b'cached')
    path = store.paths.sealed(KEY)
    path.rename(f'{path}.old')
    path.write_bytes(b'cached')
    with pytest.raises(exception.CacheBroken):
        store.require_unchanged(record)
    assert not verifier.verify(record, source, silent).problem
    after = store.load(KEY)
    assert store.require_unchanged(after) == path
    assert after.sealed.reason is record.sealed.reason
    assert after.sealed.sealed_at == record.sealed.sealed_at


def test_verify_retires_what_differs(verifier, store, source, raised, tools):
    tools[1].first_difference.return_value = 65536
    found = verifier.verify(builders.ready(store), source, silent)
    assert found == Verification(KEY, 'the base differs at offset 65536', 12288)
    assert store.load(KEY).state is State.STALE
    raised.raise_before_write.assert_called_once_with(source)


@pytest.mark.parametrize('damage', ['forged', 'gone'])
def test_verify_retires_a_file_that_is_another(verifier, store, source, raised, tools, damage):
    record = builders.ready(store, b'cached')
    path = store.paths.sealed(KEY)
    path.unlink()
    if damage == 'forged':
        path.write_bytes(b'forged')
    found = verifier.verify(record, source, silent)
    assert found == Verification(KEY, 'the cache file is not what was sealed', 0)
    after = store.load(KEY)
    assert after.state is State.STALE
    assert record.sealed.digest in after.stale_reason
    tools[1].first_difference.assert_not_called()
    raised.raise_before_write.assert_not_called()


# -- a base that was written since

NEW = CacheKey(KEY.image_id, KEY.generation.next())


def test_an_equal_cache_is_carried_over(verifier, store, source, raised):
    record = builders.ready(store)
    raised.current.return_value = NEW.generation
    source.now = BaseIdentity(1, 2, 3)
    assert verifier.verify(record, source, silent, 'md5:1') == Verification(NEW, '', 12288)
    after = store.load(NEW)
    assert (after.state, after.base_identity) == (State.READY, source.now)
    assert (after.sealed.digest, after.image_hashes) == (record.sealed.digest, ('md5:1',))
    assert store.load(KEY).state is State.STALE
    raised.raise_before_write.assert_not_called()


def test_another_one_is_retired_and_the_new_generation_stays(
    verifier, store, source, raised, tools
):
    record = builders.ready(store)
    raised.current.return_value = NEW.generation
    tools[1].first_difference.return_value = 4096
    assert verifier.verify(record, source, silent).problem
    assert store.load(KEY).state is State.STALE
    assert store.load(NEW) is None
    raised.raise_before_write.assert_not_called()


def test_a_base_that_is_written_while_it_is_read(verifier, store, source, raised, tools):
    """What was read is of the generation of before; the next boot doubts again."""

    def meanwhile(*arguments):
        raised.current.return_value = NEW.generation.next()

    raised.current.return_value = NEW.generation
    tools[1].first_difference.side_effect = meanwhile
    assert verifier.verify(builders.ready(store), source, silent).key == NEW


def test_hashes_of_an_image_are_noted_once_and_bounded(verifier, store, source):
    record = builders.ready(store, image_hashes=('md5:1', 'md5:2'))
    verifier.verify(record, source, silent, 'md5:1')
    assert store.load(KEY).image_hashes == ('md5:2', 'md5:1')
    verifier.verify(store.load(KEY), source, silent)
    assert store.load(KEY).image_hashes == ('md5:2', 'md5:1')
    for number in range(20):
        verifier.verify(store.load(KEY), source, silent, f'md5:x{number}')
    assert len(store.load(KEY).image_hashes) == 8
    assert store.load(KEY).image_hashes[-1] == 'md5:x19'


@pytest.mark.parametrize('there', [builders.warm, builders.ready])
def test_an_equal_cache_beside_one_of_the_new_generation_is_retired(
    verifier, store, source, raised, there
):
    """It was recorded again before anybody compared."""
    record = builders.ready(store)
    newer = there(store, b'newer', key=NEW)
    raised.current.return_value = NEW.generation
    assert verifier.verify(record, source, silent) == Verification(KEY, '', 12288)
    assert store.load(NEW) == newer
    after = store.load(KEY)
    assert after.state is State.STALE
    assert 'has a cache of its own' in after.stale_reason
