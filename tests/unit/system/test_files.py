# SPDX-License-Identifier: Apache-2.0
"""Atomic files, reserved space, O_DIRECT and image locks."""

import errno
import fcntl
import io
import os
import pathlib
import stat
import struct
import tempfile
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.system import files

OLD, NEW = b'old content', b'new content, which is longer'
FULL = OSError(errno.ENOSPC, 'No space left on device')


class FullDisk(io.BufferedWriter):
    """A file that can be opened and not written to."""

    def write(self, data):
        super().write(data[:3])
        super().flush()
        raise FULL


def fdopen_on_a_full_disk(fd, mode):
    return FullDisk(io.FileIO(fd, mode))


STEPS = {
    'mkstemp': (tempfile, 'mkstemp', FULL),
    'write': (os, 'fdopen', fdopen_on_a_full_disk),
    'fchmod': (os, 'fchmod', FULL),
    'fsync': (os, 'fsync', FULL),
    'rename': (os, 'rename', FULL),
    'a signal': (os, 'fsync', KeyboardInterrupt),
}


@pytest.fixture
def target(tmp_path):
    return tmp_path / 'record.json'


@pytest.mark.parametrize('old', [None, OLD], ids=['new file', 'replaced file'])
def test_replace_atomically(target, old):
    if old is not None:
        target.write_bytes(old)
    files.replace_atomically(target, NEW, 0o640)
    assert target.read_bytes() == NEW
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize('old', [None, OLD], ids=['new file', 'replaced file'])
@pytest.mark.parametrize('step', STEPS)
def test_a_step_that_fails_leaves_the_old_content_and_nothing_else(target, old, step):
    if old is not None:
        target.write_bytes(old)
    module, name, effect = STEPS[step]
    with (
        mock.patch.object(module, name, autospec=True, side_effect=effect) as failing,
        pytest.raises((OSError, KeyboardInterrupt)),
    ):
        files.replace_atomically(target, NEW, 0o640)
    failing.assert_called_once()
    if old is None:
        assert os.listdir(target.parent) == []
    else:
        assert os.listdir(target.parent) == [target.name]
        assert target.read_bytes() == OLD


@pytest.mark.parametrize('module, name', [(tempfile, 'mkstemp'), (os, 'rename')])
def test_an_error_names_the_file_itself(target, module, name):
    """Not the random name of a temporary one: it would be another warning each time."""
    failure = OSError(errno.ENOSPC, 'No space left', f'{target}.x7f3')
    with (
        mock.patch.object(module, name, autospec=True, side_effect=failure),
        pytest.raises(OSError) as caught,
    ):
        files.replace_atomically(target, NEW, 0o640)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(target))


def test_content_is_on_disk_before_its_name_and_then_the_name(target):
    target.write_bytes(OLD)
    done = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(fd):
        fsync(fd)
        facts = os.fstat(fd)
        what = 'folder' if stat.S_ISDIR(facts.st_mode) else facts.st_size
        done.append(('fsync', what))

    def note_rename(old, new):
        assert pathlib.Path(old).parent == target.parent, (
            'another file system cannot be renamed to'
        )
        rename(old, new)
        done.append(('rename', new))

    with (
        mock.patch.object(os, 'fsync', autospec=True, side_effect=note_fsync),
        mock.patch.object(os, 'rename', autospec=True, side_effect=note_rename),
    ):
        files.replace_atomically(target, NEW, 0o640)
    assert done == [('fsync', len(NEW)), ('rename', target), ('fsync', 'folder')]


def test_a_folder_that_cannot_be_synced_is_an_error_and_the_content_whole(target):
    with (
        mock.patch.object(files, 'sync_folder', autospec=True, side_effect=FULL),
        pytest.raises(OSError),
    ):
        files.replace_atomically(target, NEW, 0o640)
    assert target.read_bytes() == NEW


def test_what_a_crash_leaves_is_known_by_its_name(target):
    def crash(old, new):
        assert pathlib.Path(old).name.startswith(f'.{target.name}.')
        pathlib.Path(old).unlink()  # as another process may, that clears such files away
        raise FULL

    with (
        mock.patch.object(os, 'rename', autospec=True, side_effect=crash),
        pytest.raises(OSError, match='No space left'),
    ):
        files.replace_atomically(target, NEW, 0o640)


def reserve(path, size, **run):
    """Reserve with a ``fallocate`` that does as told; return what it was asked."""
    with mock.patch.object(files, '_fallocate', autospec=True, **run) as ran:
        files.reserve(path, size)
    return ran.call_args.args


def refused(number):
    return {'side_effect': OSError(number, os.strerror(number))}


@pytest.mark.parametrize('got', [4096, 8192])
def test_reserve_asks_for_space_behind_the_end(target, got):
    with mock.patch.object(files, 'allocated_bytes', autospec=True, return_value=got) as asked:
        assert reserve(target, 4096) == (target, 4096)
    asked.assert_called_once_with(target)


def test_reserving_keeps_the_length_and_waits_for_no_disk(target):
    target.write_bytes(NEW)
    with mock.patch.object(os, 'fsync', autospec=True) as fsync:
        files.reserve(target, 1 << 20)
    fsync.assert_not_called()
    assert target.read_bytes() == NEW
    assert files.allocated_bytes(target) >= 1 << 20


@pytest.mark.parametrize(('free', 'tried'), [(4095, False), (4096, True)])
def test_what_is_not_there_is_not_tried(target, free, tried):
    with (
        mock.patch.object(files, 'free_bytes', autospec=True, return_value=free) as asked,
        mock.patch.object(files, '_fallocate', autospec=True, **refused(28)) as ran,
        pytest.raises(exception.NoReservation) as caught,
    ):
        files.reserve(target, 4096)
    asked.assert_called_once_with(target.parent)
    assert ran.called is tried
    said = str(caught.value)
    assert f'for a recording in {str(target.parent)!r}: 4096 bytes cannot be reserved' in said
    assert ('4095 bytes are free' in said) is not tried
    assert 'lower [qcache] quota' in said


@pytest.mark.parametrize(
    ('run', 'reason'),
    [
        (refused(errno.ENOSPC), '1048576 bytes cannot be reserved (No space left on device)'),
        (refused(errno.EOPNOTSUPP), '1048576 bytes cannot be reserved (Operation not supported)'),
        ({}, 'reserved 1048064 bytes of 1048576 and reported success'),
    ],
    ids=['full', 'not supported', 'pretended'],
)
def test_no_reservation(target, run, reason):
    target.write_bytes(b'')
    with (
        mock.patch.object(files, 'allocated_bytes', autospec=True, return_value=1048064),
        pytest.raises(exception.NoReservation) as caught,
    ):
        reserve(target, 1048576, **run)
    said = str(caught.value)
    assert f'Cannot reserve space for a recording in {str(target.parent)!r}' in said
    assert reason in said
    assert 'lower [qcache] quota' in said
    assert target.read_bytes() == b''


def test_the_system_says_what_is_wrong():
    with pytest.raises(exception.NoReservation, match='Invalid argument'):
        files.reserve(pathlib.Path('/dev/null'), 0)


@pytest.mark.parametrize(('used', 'length'), [(2, 2), (len(NEW), len(NEW)), (999, len(NEW))])
def test_release_tail_keeps_what_is_used(target, used, length):
    target.write_bytes(NEW)
    with mock.patch.object(os, 'truncate', autospec=True, side_effect=os.truncate) as truncate:
        files.release_tail(target, used)
    truncate.assert_called_once_with(target, length)
    assert target.read_bytes() == NEW[:length]


def test_bytes_of_a_file(target):
    facts = os.stat_result((0o100600, 1, 1, 1, 0, 0, 10, 0, 0, 0), {'st_blocks': 24})
    with mock.patch.object(pathlib.Path, 'stat', autospec=True, return_value=facts):
        assert files.allocated_bytes(target) == 24 * 512


def test_bytes_that_are_free_for_ordinary_users(target):
    facts = os.statvfs_result((4096, 2048, 100, 50, 30, 0, 0, 0, 0, 255))
    with mock.patch.object(os, 'statvfs', autospec=True, return_value=facts):
        assert files.free_bytes(target) == 30 * 2048


def test_nothing_stays_open(target):
    target.write_bytes(OLD)
    before = os.listdir('/proc/self/fd')
    files.used_by_qemu(target)
    files.supports_direct_io(target)
    files.sync_file(target)
    files.replace_atomically(target, NEW, 0o600)
    assert os.listdir('/proc/self/fd') == before


@pytest.mark.parametrize(('code', 'there'), [(None, True), (errno.EINVAL, False)])
def test_direct_io(target, code, there):
    target.write_bytes(b'')
    real = os.open
    asked = []

    def open_file(path, flags):
        asked.append(flags)
        if code:
            raise OSError(code, os.strerror(code))
        return real(path, os.O_RDONLY)

    with mock.patch.object(os, 'open', autospec=True, side_effect=open_file):
        assert files.supports_direct_io(target) is there
    assert asked == [os.O_RDONLY | os.O_DIRECT]


def test_direct_io_of_what_is_not_there(target):
    with pytest.raises(FileNotFoundError):
        files.supports_direct_io(target)


@pytest.mark.parametrize('kind', [fcntl.F_RDLCK, fcntl.F_WRLCK])
@pytest.mark.parametrize(
    ('start', 'used'), [(99, False), (100, True), (203, True), (299, True), (300, False)]
)
def test_used_by_qemu(target, kind, start, used):
    """Lock a byte as qemu does: with a lock of the open file, not of the process."""
    target.write_bytes(b'')
    assert not files.used_by_qemu(target)
    with open(target, 'r+b') as file:
        lock = struct.pack('hhqqi4x', kind, os.SEEK_SET, start, 1, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
        assert files.used_by_qemu(target) is used
        assert files.used_by_qemu(target) is used, 'asking takes no lock'
    assert not files.used_by_qemu(target)
