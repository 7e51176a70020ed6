# SPDX-License-Identifier: Apache-2.0
"""The catalog: which files are caches, which records are read, which files are what they were."""

import contextlib
import errno
import os
import stat
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.model.key import CacheKey
from nova_qcache.model.states import State
from nova_qcache.stats.counter_store import CounterStore
from nova_qcache.system import files
from nova_qcache.system import locks
from nova_qcache.system.paths import Paths
from tests.unit import builders
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE

FULL = OSError(errno.ENOSPC, 'No space left on device')


def test_keys_are_those_of_records_and_of_files_that_lost_theirs(catalog):
    other = CacheKey(OTHER_IMAGE, KEY.generation)
    newer = CacheKey(IMAGE, KEY.generation.next())
    folder = catalog.paths.cache_path
    for name in (
        f'{KEY.stem}.json',
        f'{KEY.stem}.qcow2',
        f'{newer.stem}.recording',
        f'{other.stem}.qcow2',
        f'.{KEY.stem}.json.abc',
        f'{KEY.stem}.txt',
        'notes.json',
        f'{IMAGE}.json',
    ):
        (folder / name).write_bytes(b'')
    assert catalog.keys() == [other, KEY, newer]
    assert catalog.keys(IMAGE) == [KEY, newer]
    assert catalog.keys('00000000-0000-0000-0000-000000000000') == []


def test_keys_where_there_is_no_folder(tmp_path):
    assert Catalog(Paths(tmp_path / 'gone', tmp_path / 'run'), 1).keys() == []


@pytest.mark.parametrize('text', [b'{', b'{}', b'\0{}'], ids=['half', 'no field', 'damaged'])
def test_a_broken_record(catalog, text):
    path = catalog.paths.record(KEY)
    path.write_bytes(text)
    with pytest.raises(exception.RecordBroken) as caught:
        catalog.load(KEY)
    assert repr(str(path)) in str(caught.value)
    assert f'`nova-qcache remove {IMAGE}` removes it' in str(caught.value)


def test_a_record_of_a_newer_version(catalog):
    catalog.paths.record(KEY).write_bytes(b'{"version": 99}')
    with pytest.raises(exception.RecordTooNew, match='upgrade nova-qcache'):
        catalog.load(KEY)


def test_a_record_that_is_a_folder(catalog):
    path = catalog.paths.record(KEY)
    path.mkdir()
    with pytest.raises(exception.RecordBroken, match='Is a directory') as caught:
        catalog.load(KEY)
    assert repr(str(path)) in str(caught.value)


def test_a_record_that_cannot_be_written(catalog):
    with (
        mock.patch.object(files, 'replace_atomically', autospec=True, side_effect=FULL),
        pytest.raises(exception.FolderUnfit) as caught,
    ):
        catalog.begin(builders.record())
    said = str(caught.value)
    assert repr(str(catalog.paths.cache_path)) in said
    assert 'the record of a cache cannot be written there (No space left on device)' in said
    assert 'Make room there' in said


def forge_in_place(path):
    path.write_bytes(b'forged')
    os.utime(path, ns=(1, 1))


def truncate_and_put_the_time_back(path):
    facts = path.stat()
    os.truncate(path, 3)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


DAMAGES = {
    'missing': lambda path: path.unlink(),
    'truncated': truncate_and_put_the_time_back,
    'empty': lambda path: os.truncate(path, 0),
    'longer': lambda path: path.write_bytes(b'cached and more'),
    'foreign': lambda path: (path.rename(f'{path}.old'), path.write_bytes(b'stolen')),
    'written to': forge_in_place,
    'a link': lambda path: (path.rename(f'{path}.old'), path.symlink_to(f'{path}.old')),
    'a folder': lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize('damage', DAMAGES.values(), ids=DAMAGES)
def test_a_file_that_is_not_what_was_sealed(catalog, damage):
    ready = builders.ready(catalog, b'cached')
    path = catalog.paths.sealed(KEY)
    damage(path)
    with pytest.raises(exception.CacheBroken) as caught:
        catalog.require_unchanged(ready)
    said = str(caught.value)
    assert repr(str(path)) in said
    assert f'`nova-qcache remove {IMAGE}` removes it' in said
    assert 'the next boot records it again' in said


def test_why_a_file_cannot_be_looked_at(catalog):
    ready = builders.ready(catalog)
    catalog.paths.sealed(KEY).unlink()
    with pytest.raises(exception.CacheBroken, match='No such file') as caught:
        catalog.require_unchanged(ready)
    assert str(caught.value).count(str(catalog.paths.sealed(KEY))) == 1


def test_a_file_of_another_length_is_told_apart(catalog):
    ready = builders.ready(catalog, b'cached')
    os.truncate(catalog.paths.sealed(KEY), 3)
    with pytest.raises(exception.CacheBroken, match='it has 3 bytes and had another size'):
        catalog.require_unchanged(ready)


def test_a_sealed_file_has_no_writer_and_is_shared(catalog):
    path = catalog.paths.cache_path / 'file'
    path.write_bytes(b'')
    with mock.patch.object(type(catalog.paths), 'share', autospec=True) as share:
        catalog.seal_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o440
    share.assert_called_once_with(catalog.paths, path)


@pytest.mark.parametrize('begun', [True, False])
def test_a_recording_is_discarded_with_its_file(catalog, begun):
    if begun:
        builders.warm(catalog)
    else:
        catalog.paths.recording(KEY).touch()
    catalog.discard_recording(KEY)
    assert catalog.keys() == []


@pytest.mark.parametrize('state', [State.READY, State.STALE])
def test_what_came_under_the_name_of_a_recording_stays(catalog, state):
    record = builders.ready(catalog)
    if state is State.STALE:
        catalog.retire(record, 'x')
    catalog.discard_recording(KEY)
    assert catalog.load(KEY).state is state
    assert catalog.paths.sealed(KEY).exists()


def test_records_that_were_left_half_written_go(catalog):
    left = catalog.paths.cache_path / f'.{KEY.stem}.json.abc'
    foreign = catalog.paths.cache_path / '.notes.json.abc'
    left.touch()
    foreign.touch()
    with mock.patch.object(CounterStore, 'clear_leftovers', autospec=True) as clear:
        catalog.clear_leftovers()
    assert not left.exists()
    assert foreign.exists()
    clear.assert_called_once_with(catalog.counter_store)


def test_a_leftover_that_another_process_clears_away_first(catalog):
    left = catalog.paths.cache_path / f'.{KEY.stem}.json.abc'
    left.touch()

    def image(*_):
        left.unlink()
        return contextlib.nullcontext()

    with mock.patch.object(locks, 'image', autospec=True, side_effect=image):
        catalog.clear_leftovers()
    assert not left.exists()


@pytest.mark.parametrize(
    'clear', [Catalog.clear_leftovers, lambda catalog: catalog.discard_recording(KEY)]
)
def test_files_go_under_the_lock_of_their_image(paths, clear):
    left = paths.cache_path / f'.{KEY.stem}.json.abc'
    left.touch()
    with locks.image(paths.locks, IMAGE, 0), pytest.raises(exception.LockTimeout):
        clear(Catalog(paths, 0))
    assert left.exists()


def test_nobody_waits_longer_than_a_second_for_what_is_counted(paths):
    with mock.patch('nova_qcache.cache.catalog.CounterStore', autospec=True) as made:
        Catalog(paths, 30)
        Catalog(paths, 0.5)
    assert made.call_args_list == [mock.call(paths, 1), mock.call(paths, 0.5)]
