# SPDX-License-Identifier: Apache-2.0
"""Proving a cache: what is read, and what follows from the answer."""

from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.bases.generation import Generations
from nova_qcache.cache.verify import Verification
from nova_qcache.cache.verify import Verifier
from nova_qcache.model.key import CacheKey
from nova_qcache.model.source import BaseIdentity
from nova_qcache.model.states import State
from nova_qcache.qemu.img import QemuImg
from nova_qcache.qemu.io import QemuIo
from nova_qcache.system.progress import silent
from tests.unit import builders
from tests.unit.builders import KEY

EXTENTS = [(0, 8192), (65536, 4096)]


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
def verifier(catalog, raised, tools) -> Verifier:
    return Verifier(catalog, raised, *tools)


@pytest.mark.parametrize('rate', [0, 5000])
def test_what_is_cached_is_compared_with_the_base(verifier, catalog, source, tools, rate):
    record = builders.ready(catalog)
    verifier.verify(record, source, silent, '', rate)
    image, reader = tools
    image.cached_extents.assert_called_once_with(catalog.paths.sealed(KEY))
    cache, base, ranges, _, limit = reader.first_difference.call_args.args
    assert cache['backing'] is None, 'what is not cached must not be read from the base'
    assert cache['file']['filename'] == str(catalog.paths.sealed(KEY))
    assert base == source.image_node()
    assert (ranges, limit) == (EXTENTS, rate)


def test_the_base_is_looked_at_before_it_is_read(verifier, catalog, source, tools):
    """What changes it meanwhile shows the next time."""
    before = source.now

    def meanwhile(*arguments):
        source.now = BaseIdentity(1, 1, 1)

    tools[1].first_difference.side_effect = meanwhile
    record = builders.ready(catalog)
    verifier.verify(record, source, silent)
    assert catalog.load(KEY).base_identity == before


def test_a_difference_at_the_first_byte_is_one(verifier, catalog, source, tools):
    tools[1].first_difference.return_value = 0
    assert verifier.verify(builders.ready(catalog), source, silent).problem
    assert catalog.load(KEY).state is State.STALE


@pytest.mark.parametrize('tool', [0, 1])
@pytest.mark.parametrize(
    'error',
    [
        exception.ToolFailed(command='x', code=1, reason='y'),
        exception.DeadlinePassed(what='x', seconds=1, remedy='y'),
    ],
)
def test_what_cannot_be_read_changes_nothing(
    verifier, catalog, source, raised, tools, tool, error
):
    [tools[0].cached_extents, tools[1].first_difference][tool].side_effect = error
    record = builders.ready(catalog)
    with pytest.raises(type(error)):
        verifier.verify(record, source, silent)
    assert catalog.load(KEY) == record
    raised.raise_before_write.assert_not_called()


def test_verify_compares_all_that_is_cached(verifier, catalog, source, tools, raised):
    record = builders.ready(catalog, b'cached')
    source.now = BaseIdentity(1, 2, 3)
    told: list = []

    def progress(what, total, unit='B'):
        told.append((what, total))
        return told.append

    assert verifier.verify(record, source, progress) == Verification(KEY, '', 12288)
    assert tools[1].first_difference.call_args.args[2] == EXTENTS
    assert told == [('Reading the cache', 6), 6, ('Comparing with the base', 12288)]
    after = catalog.load(KEY)
    assert (after.state, after.base_identity) == (State.READY, source.now)
    assert after.sealed == record.sealed
    raised.raise_before_write.assert_not_called()


def test_verify_forgives_a_file_that_was_copied(verifier, catalog, source):
    """Another inode and time, and every byte proved: it is good again."""
    record = builders.ready(catalog, b'cached')
    path = catalog.paths.sealed(KEY)
    path.rename(f'{path}.old')
    path.write_bytes(b'cached')
    with pytest.raises(exception.CacheBroken):
        catalog.require_unchanged(record)
    assert not verifier.verify(record, source, silent).problem
    after = catalog.load(KEY)
    assert catalog.require_unchanged(after) == path
    assert after.sealed.reason is record.sealed.reason
    assert after.sealed.sealed_at == record.sealed.sealed_at


def test_verify_retires_what_differs(verifier, catalog, source, raised, tools):
    tools[1].first_difference.return_value = 65536
    found = verifier.verify(builders.ready(catalog), source, silent)
    assert found == Verification(KEY, 'the base differs at offset 65536', 12288)
    assert catalog.load(KEY).state is State.STALE
    raised.raise_before_write.assert_called_once_with(source)


@pytest.mark.parametrize('damage', ['forged', 'gone'])
def test_verify_retires_a_file_that_is_another(verifier, catalog, source, raised, tools, damage):
    record = builders.ready(catalog, b'cached')
    path = catalog.paths.sealed(KEY)
    path.unlink()
    if damage == 'forged':
        path.write_bytes(b'forged')
    found = verifier.verify(record, source, silent)
    assert found == Verification(KEY, 'the cache file differs from what was sealed', 0)
    after = catalog.load(KEY)
    assert after.state is State.STALE
    said = {
        'forged': f' and was {record.sealed.digest} when it was sealed',
        'gone': 'its file cannot be read (No such file or directory)',
    }
    assert after.stale_reason.endswith(said[damage])
    tools[1].first_difference.assert_not_called()
    raised.raise_before_write.assert_not_called()


# -- a base that was written since

NEW = CacheKey(KEY.image_id, KEY.generation.next())


def test_an_equal_cache_is_retagged(verifier, catalog, source, raised):
    record = builders.ready(catalog)
    raised.current.return_value = NEW.generation
    source.now = BaseIdentity(1, 2, 3)
    assert verifier.verify(record, source, silent, 'md5:1') == Verification(NEW, '', 12288)
    after = catalog.load(NEW)
    assert (after.state, after.base_identity) == (State.READY, source.now)
    assert (after.sealed.digest, after.image_hashes) == (record.sealed.digest, ('md5:1',))
    assert catalog.load(KEY).state is State.STALE
    raised.raise_before_write.assert_not_called()


def test_another_one_is_retired_and_the_new_generation_stays(
    verifier, catalog, source, raised, tools
):
    record = builders.ready(catalog)
    raised.current.return_value = NEW.generation
    tools[1].first_difference.return_value = 4096
    assert verifier.verify(record, source, silent).problem
    assert catalog.load(KEY).state is State.STALE
    assert catalog.load(NEW) is None
    raised.raise_before_write.assert_not_called()


def test_a_base_that_is_written_while_it_is_read(verifier, catalog, source, raised, tools):
    """What was read is of the generation of before; the next boot doubts again."""

    def meanwhile(*arguments):
        raised.current.return_value = NEW.generation.next()

    raised.current.return_value = NEW.generation
    tools[1].first_difference.side_effect = meanwhile
    assert verifier.verify(builders.ready(catalog), source, silent).key == NEW


def test_hashes_of_an_image_are_noted_once_and_bounded(verifier, catalog, source):
    record = builders.ready(catalog, image_hashes=('md5:1', 'md5:2'))
    verifier.verify(record, source, silent, 'md5:1')
    assert catalog.load(KEY).image_hashes == ('md5:2', 'md5:1')
    verifier.verify(catalog.load(KEY), source, silent)
    assert catalog.load(KEY).image_hashes == ('md5:2', 'md5:1')
    for number in range(20):
        verifier.verify(catalog.load(KEY), source, silent, f'md5:x{number}')
    assert len(catalog.load(KEY).image_hashes) == 8
    assert catalog.load(KEY).image_hashes[-1] == 'md5:x19'


@pytest.mark.parametrize('there', [builders.warm, builders.ready])
def test_an_equal_cache_beside_one_of_the_new_generation_is_retired(
    verifier, catalog, source, raised, there
):
    """It was recorded again before anybody compared."""
    record = builders.ready(catalog)
    newer = there(catalog, b'newer', key=NEW)
    raised.current.return_value = NEW.generation
    assert verifier.verify(record, source, silent) == Verification(KEY, '', 12288)
    assert catalog.load(NEW) == newer
    after = catalog.load(KEY)
    assert after.state is State.STALE
    assert 'of its base has another cache' in after.stale_reason
