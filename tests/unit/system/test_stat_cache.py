# SPDX-License-Identifier: Apache-2.0
"""Files that are read again only when they are others."""

import os
import time

import pytest

from nova_qcache.system.stat_cache import StatCache

OLD = 10**18


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'file'


@pytest.fixture
def read():
    """The paths that were read."""
    return []


@pytest.fixture
def files(read):
    def content(path):
        read.append(path)
        return path.read_text()

    return StatCache(content)


def replace(path, text, at=None):
    """Put another file there, as the product writes its files."""
    new = path.with_name('new')
    new.write_text(text)
    if at is not None:
        os.utime(new, ns=(at, at))
    new.rename(path)


def test_what_has_not_changed_is_read_once(files, path, read):
    replace(path, 'one', OLD)
    assert [files.read(path) for _ in range(3)] == ['one'] * 3
    assert len(read) == 1


def test_what_was_replaced_is_read_again(files, path, read):
    replace(path, 'one', OLD)
    files.read(path)
    replace(path, 'two', OLD)  # of the same size and time
    assert files.read(path) == 'two'
    replace(path, 'three', OLD + 1)
    assert files.read(path) == 'three'


def test_what_is_new_may_be_replaced_within_a_tick(files, path, read):
    replace(path, 'one')
    files.read(path)
    facts = path.stat()
    path.write_text('two')
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert files.read(path) == 'two'


@pytest.mark.parametrize(('text', 'at'), [('two', OLD + 1), ('three', OLD)])
def test_what_was_written_to_in_place_is_read_again(files, path, text, at):
    replace(path, 'one', OLD)
    files.read(path)
    path.write_text(text)
    os.utime(path, ns=(at, at))
    assert files.read(path) == text


@pytest.mark.parametrize(('ago', 'times'), [(1_000_000_000, 2), (1_000_000_001, 1)])
def test_a_file_is_relied_upon_after_a_second(files, path, read, monkeypatch, ago, times):
    replace(path, 'one', OLD)
    monkeypatch.setattr(time, 'time_ns', lambda: OLD + ago)
    for _ in range(2):
        files.read(path)
    assert len(read) == times


@pytest.mark.parametrize(('at', 'times'), [(-1, 2), (0, 1)])
def test_a_time_before_all_others_is_not_relied_upon(files, path, read, at, times):
    replace(path, 'one', at)
    for _ in range(2):
        files.read(path)
    assert len(read) == times


def test_a_time_to_come_is_not_relied_upon(files, path, read):
    replace(path, 'one', 2**62)
    for _ in range(2):
        files.read(path)
    assert len(read) == 2


def test_what_is_gone_is_forgotten(files, path, read):
    replace(path, 'one', OLD)
    files.read(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        files.read(path)
    assert not files._known


def test_what_cannot_be_read_is_not_remembered(path):
    errors = iter([ValueError('half written'), None])

    def read(path):
        error = next(errors)
        if error:
            raise error
        return 'whole'

    files = StatCache(read)
    replace(path, 'one', OLD)
    with pytest.raises(ValueError):
        files.read(path)
    assert files.read(path) == 'whole'


def test_files_that_are_gone_take_no_memory(files, path, read):
    other = path.with_name('other')
    for each in (path, other):
        replace(each, 'one', OLD)
        files.read(each)
    files.keep({path})
    assert set(files._known) == {path}
    assert [files.read(each) for each in (path, other)] == ['one', 'one']
    assert read == [path, other, other]
