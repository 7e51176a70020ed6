# SPDX-License-Identifier: Apache-2.0
"""Generations of bases: they only rise, wherever they are kept and whatever is lost."""

import errno
import json
import os
import pathlib
import stat
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.bases.file import FileSource
from nova_qcache.bases.generation import Generations
from nova_qcache.bases.nbd import NbdSource
from nova_qcache.model.key import Generation
from nova_qcache.system import files
from nova_qcache.system import locks
from tests.unit.builders import GENERATION

BROKEN = {
    'empty': b'',
    'no JSON': b'\xff\xfe{',
    'no object': b'[]',
    'null': b'null',
    'nested': b'[' * 100_000,
    'no epoch': b'{"n": 1}',
    'no number': b'{"epoch": "0123456789ab"}',
    'bad epoch': b'{"epoch": "../../../../", "n": 1}',
    'bad number': b'{"epoch": "0123456789ab", "n": 0}',
    'huge number': b'{"epoch": "0123456789ab", "n": 1%s}' % (b'0' * 400),
    'a float': b'{"epoch": "0123456789ab", "n": 1.0}',
}


@pytest.fixture
def source(base):
    return FileSource(str(base), 'raw')


@pytest.fixture
def counter(base):
    """The file of the base's counter."""
    return base.parent / '.nova-qcache' / 'base.json'


def write(path, generation):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({'epoch': generation.epoch, 'n': generation.n}))


def test_the_first_question_starts_an_epoch_beside_the_base(generations, source, counter):
    first = generations.current(source)
    assert first.n == 1
    assert json.loads(counter.read_bytes()) == {'epoch': first.epoch, 'n': 1}
    assert generations.current(source) == first


def everything(*folders):
    return [sorted(folder.rglob('*')) for folder in folders]


def test_who_only_looks_starts_no_epoch(generations, source, base, paths):
    before = everything(base.parent, paths.cache_path)
    assert generations.known(source) is None
    assert everything(base.parent, paths.cache_path) == before
    current = generations.current(source)
    assert generations.known(source) == current
    assert generations.raise_before_write(source) == generations.known(source) != current


@pytest.mark.parametrize('kind', ['nbd', 'read-only'])
def test_who_only_looks_finds_the_counter_of_this_host(generations, base, kind):
    (base.parent / '.nova-qcache').mkdir()
    nbd = NbdSource('nbd://host/export', 'raw')
    source = nbd if kind == 'nbd' else FileSource(str(base), 'raw')
    with mock.patch.object(os, 'access', autospec=True) as access:
        access.side_effect = lambda path, mode: mode != os.W_OK
        assert generations.known(source) is None
        current = generations.current(source)
        assert generations.known(source) == current


def test_a_counter_that_is_there_counts(generations, source, counter):
    write(counter, GENERATION)
    assert generations.current(source) == GENERATION


@pytest.mark.parametrize('umask', [0o000, 0o077])
def test_other_hosts_may_read_it_whatever_their_user(generations, source, counter, umask):
    old = os.umask(umask)
    try:
        generations.current(source)
    finally:
        os.umask(old)
    assert stat.S_IMODE(counter.stat().st_mode) == 0o644
    assert stat.S_IMODE(counter.parent.stat().st_mode) == 0o755


def test_it_rises_before_a_write(generations, source):
    old = generations.current(source)
    new = generations.raise_before_write(source)
    assert new == Generation(old.epoch, old.n + 1)
    assert generations.current(source) == new


def test_a_raised_generation_is_on_disk(generations, source, counter):
    with mock.patch.object(
        files, 'replace_atomically', autospec=True, side_effect=files.replace_atomically
    ) as replace:
        new = generations.raise_before_write(source)
    replace.assert_called_once()
    assert replace.call_args.args[0] == counter
    assert json.loads(counter.read_bytes()) == {'epoch': new.epoch, 'n': new.n}


def test_the_first_question_waits_for_no_disk(generations, source, counter):
    """A boot asks; an epoch that a power loss takes back has no cache that is READY."""
    with mock.patch.object(os, 'fsync', autospec=True) as fsync:
        first = generations.current(source)
    fsync.assert_not_called()
    with mock.patch.object(files, 'sync_file', autospec=True) as synced:
        assert generations.settled(source) == first
    assert [call.args[0] for call in synced.call_args_list] == [counter, counter.parent]


def sync(number=None):
    """A sync of a folder, which may fail with an errno."""
    error = None if number is None else OSError(number, os.strerror(number))
    return mock.patch.object(files, 'sync_folder', autospec=True, side_effect=error)


@pytest.mark.parametrize('number', [None, errno.EINVAL, errno.EROFS])
def test_a_settled_generation_is_on_disk_for_good(generations, source, counter, number):
    write(counter, GENERATION)
    with sync(number) as synced:
        assert generations.settled(source) == GENERATION
    synced.assert_called_once_with(counter.parent)


def test_a_generation_that_a_power_loss_may_take_back(generations, source, counter):
    write(counter, GENERATION)
    with sync(errno.EIO), pytest.raises(exception.FolderUnfit) as caught:
        generations.settled(source)
    assert repr(str(counter.parent)) in str(caught.value)
    assert 'Input/output error' in str(caught.value)


@pytest.mark.parametrize('removable', [True, False])
def test_a_write_clears_away_what_killed_ones_left(generations, source, counter, removable):
    old = generations.current(source)
    left = counter.with_name('.base.json.left')
    left.touch() if removable else left.mkdir()
    assert generations.raise_before_write(source) == old.next()
    assert left.exists() != removable


def test_a_counter_is_read_without_its_lock(paths, source, counter):
    write(counter, GENERATION)
    with locks.generation(counter.parent, 'base', 1):
        assert Generations(paths, 0).current(source) == GENERATION


def test_all_hosts_of_a_base_share_it(tmp_path, source, generations, paths):
    other_host = Generations(type(paths)(tmp_path / 'cache', tmp_path / 'run'), 1)
    assert other_host.current(source) == generations.current(source)
    assert other_host.raise_before_write(source) == generations.current(source)


def test_it_outlives_its_base(generations, source, base):
    old = generations.current(source)
    base.unlink()
    base.write_bytes(b'another')
    assert generations.current(source) == old


@pytest.mark.parametrize('text', BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize('ask', [Generations.current, Generations.raise_before_write])
def test_a_broken_counter_is_a_new_epoch(generations, source, counter, text, ask):
    counter.parent.mkdir()
    counter.write_bytes(text)
    found = ask(generations, source)
    assert found.n == 1
    assert found.epoch != GENERATION.epoch
    assert generations.current(source) == found


def test_a_lost_counter_is_a_new_epoch(generations, source, counter):
    old = generations.current(source)
    counter.unlink()
    assert generations.current(source).epoch != old.epoch


def test_bases_of_one_folder_have_their_own(generations, source, base):
    other = FileSource(str(base.with_name('base2')), 'raw')
    before = generations.current(other)
    generations.current(source)
    generations.raise_before_write(source)
    assert generations.current(other) == before


def test_storage_without_files_has_a_counter_of_this_host(generations, paths):
    source = NbdSource('nbd://host/x', 'raw')
    first = generations.current(source)
    assert generations.current(source) == first
    assert generations.raise_before_write(source) == first.next()
    (counter,) = paths.generations.glob('*.json')
    assert len(counter.name.partition('-')[0]) == 16, 'another name would be another epoch'
    assert generations.current(NbdSource('nbd://host/y', 'raw')) != first.next()


@pytest.mark.parametrize('way', ['mkdir', 'access'])
def test_read_only_storage_has_a_counter_of_this_host(generations, paths, tmp_path, way):
    one, other = (FileSource(str(tmp_path / name / 'base'), 'raw') for name in ('a', 'b'))
    (tmp_path / 'a').mkdir()
    (tmp_path / 'b').mkdir()
    denied = OSError(errno.EROFS, 'Read-only file system')
    patches = {
        'mkdir': mock.patch.object(pathlib.Path, 'mkdir', autospec=True, side_effect=denied),
        'access': mock.patch.object(os, 'access', autospec=True, return_value=False),
    }
    with patches[way]:
        first = generations.current(one)
        assert generations.current(one) == first
        assert generations.current(other).epoch != first.epoch, 'two mounts, one name'
    assert len(list(paths.generations.glob('*.json'))) == 2


def test_a_counter_that_others_keep_is_read_where_this_host_may_not_write(
    generations, source, counter
):
    write(counter, GENERATION)
    with mock.patch.object(os, 'access', autospec=True, return_value=False):
        assert generations.current(source) == GENERATION


def failing_to_make_a_folder(number):
    """Path.mkdir that fails with an errno."""
    denied = OSError(number, os.strerror(number))
    return mock.patch.object(pathlib.Path, 'mkdir', autospec=True, side_effect=denied)


@pytest.mark.parametrize('number', [errno.EACCES, errno.ENOENT, errno.EPERM, errno.EROFS])
def test_storage_that_takes_no_folder_of_this_host(generations, source, paths, number):
    with failing_to_make_a_folder(number):
        generations.current(source)
    assert len(list(paths.generations.glob('*.json'))) == 1


def test_a_folder_that_may_be_made_later(generations, source, counter, paths):
    with failing_to_make_a_folder(errno.ENOSPC), pytest.raises(exception.FolderUnfit) as caught:
        generations.current(source)
    assert repr(str(counter.parent)) in str(caught.value)
    assert 'No space left on device' in str(caught.value)
    assert not list(paths.generations.glob('*.json'))


def test_a_folder_that_another_host_makes_at_the_same_time(generations, source, counter):
    counter.parent.mkdir()
    with mock.patch.object(pathlib.Path, 'exists', autospec=True, return_value=False):
        generations.current(source)
    assert counter.exists()


@pytest.mark.parametrize('ask', [Generations.current, Generations.raise_before_write])
def test_a_counter_that_cannot_be_written(generations, source, counter, ask):
    full = OSError(errno.ENOSPC, 'No space left on device')
    with (
        mock.patch.object(files, 'replace_atomically', autospec=True, side_effect=full),
        pytest.raises(exception.FolderUnfit) as caught,
    ):
        ask(generations, source)
    said = str(caught.value)
    assert repr(str(counter.parent)) in said
    assert 'cannot be written there (No space left on device)' in said
    assert 'Make room there' in said


@pytest.mark.parametrize('ask', [Generations.current, Generations.raise_before_write])
def test_a_counter_that_may_be_there_and_cannot_be_seen(generations, source, counter, ask):
    """A counter of this host in its place would miss what other hosts announce."""
    denied = PermissionError(errno.EACCES, 'Permission denied')
    with (
        mock.patch.object(pathlib.Path, 'exists', autospec=True, side_effect=denied),
        pytest.raises(exception.FolderUnfit) as caught,
    ):
        ask(generations, source)
    assert str(counter.parent) in str(caught.value)


def test_a_counter_whose_lock_cannot_be_made(generations, source, counter):
    write(counter, GENERATION)
    denied = PermissionError(errno.EACCES, 'Permission denied')
    with (
        mock.patch.object(locks, 'generation', autospec=True, side_effect=denied),
        pytest.raises(exception.FolderUnfit) as caught,
    ):
        generations.raise_before_write(source)
    assert str(counter.parent) in str(caught.value)


@pytest.mark.parametrize('ask', [Generations.current, Generations.raise_before_write])
def test_a_counter_that_stays_locked(paths, source, counter, ask):
    counter.parent.mkdir()
    with locks.generation(counter.parent, 'base', 1), pytest.raises(exception.LockTimeout):
        ask(Generations(paths, 0), source)
    assert not counter.exists()
