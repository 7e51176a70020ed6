# SPDX-License-Identifier: Apache-2.0
"""File system operations of caches: atomic records, reserved space, O_DIRECT, and checks for open
files."""

import ctypes
import errno
import fcntl
import os
import pathlib
import struct
import tempfile

from nova_qcache import exception
from nova_qcache.system import native

__all__ = [
    'allocated_bytes',
    'free_bytes',
    'place',
    'release_tail',
    'replace_atomically',
    'reserve',
    'supports_direct_io',
    'sync_file',
    'sync_folder',
    'used_by_qemu',
]

_BLOCK = 512  # the unit of st_blocks
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE of fallocate(2)
_libc = ctypes.CDLL(None, use_errno=True)


def replace_atomically(
    path: pathlib.Path, content: bytes, mode: int, *, sync: bool = True
) -> None:
    """Make ``path`` hold ``content``: after a crash it has either the old content or the new,
    never less.

    :param sync: whether to wait until it is on disk, which takes seconds where others write much.
        False is for what may be lost in a crash of the host: it may be empty then
    :raises OSError: as the system says, with ``path`` as its file name; the old content is then
        still there
    """
    try:
        _replace(path, content, mode, sync=sync)
    except OSError as e:
        # Not the random name of the temporary file: it is the same trouble each time.
        raise OSError(e.errno, e.strerror, str(path)) from e
    if sync:
        sync_folder(path.parent)


def _replace(path: pathlib.Path, content: bytes, mode: int, *, sync: bool) -> None:
    fd, name = tempfile.mkstemp(prefix=f'.{path.name}.', dir=path.parent)
    try:
        with os.fdopen(fd, 'wb') as file:
            os.fchmod(fd, mode)
            file.write(content)
            file.flush()
            if sync:
                native.run(os.fsync, fd)
        os.rename(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


def sync_folder(path: pathlib.Path) -> None:
    """Wait until names made, changed or removed in the folder are on disk."""
    sync_file(path)


def sync_file(path: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        native.run(os.fsync, fd)
    finally:
        os.close(fd)


def place(path: pathlib.Path) -> pathlib.Path:
    """Return a folder, or the nearest one above it that is there: it would be on the same file
    system."""
    return next(each for each in (path, *path.parents) if each.is_dir())


def allocated_bytes(path: pathlib.Path) -> int:
    """Return what the file takes on its file system, reservation included."""
    return path.stat().st_blocks * _BLOCK


def free_bytes(path: pathlib.Path) -> int:
    """Return what an ordinary user may still write to the file system of ``path``."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def reserve(path: pathlib.Path, size: int, folder: pathlib.Path | None = None) -> None:
    """Allocate ``size`` bytes for a file without changing its length, so that later writes cannot
    find a full disk.

    :param folder: where it is, if it has no name
    :raises NoReservation: if the space is not there or the file system only pretends
    """
    folder = path.parent if folder is None else folder
    remedy = (
        'Free space there, lower [qcache] quota, or put [qcache] cache_path on a file system that '
        'reserves space'
    )
    free = free_bytes(folder)
    if free < size:
        # Trying it would fill the disk for a moment, and every other writer would notice.
        reason = f'{size} bytes cannot be reserved (No space left: {free} bytes are free)'
        raise exception.NoReservation(path=str(folder), reason=reason, remedy=remedy)
    try:
        _fallocate(path, size)
    except OSError as e:
        reason = f'{size} bytes cannot be reserved ({e.strerror})'
        raise exception.NoReservation(path=str(folder), reason=reason, remedy=remedy) from e
    got = allocated_bytes(path)
    if got < size:
        reason = f'the file system reserved {got} bytes of {size} and reported success'
        raise exception.NoReservation(path=str(folder), reason=reason, remedy=remedy)


def _fallocate(path: pathlib.Path, size: int) -> None:
    # Python's posix_fallocate() changes the length, and writes zeros where the file system cannot
    # reserve; the program fallocate syncs the file, which a boot would wait for.
    fd = os.open(path, os.O_WRONLY)
    try:
        if _libc.fallocate(fd, _KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(size)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)


def release_tail(path: pathlib.Path, used: int) -> None:
    """Free the space of a file beyond its first ``used`` bytes, reservations beyond its end
    included."""
    # Truncating a file to the length that it has frees the blocks behind it.
    os.truncate(path, min(used, path.stat().st_size))


def supports_direct_io(path: pathlib.Path) -> bool:
    """Return whether the file can be opened with O_DIRECT (tmpfs before Linux 6.6 cannot).

    :raises OSError: if it cannot be opened at all
    """
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError as e:
        if e.errno == errno.EINVAL:
            return False
        raise
    return True


# struct flock of fcntl(2) on 64-bit Linux: type, whence, start, length, pid.
_FLOCK = struct.Struct('hhqqi4x')
_QEMU_LOCK_START = 100
_QEMU_LOCK_BYTES = 200


def used_by_qemu(path: pathlib.Path) -> bool:
    """Return whether a process of qemu's has the image file open, on this host.

    qemu marks each file that it opens with locks on bytes 100 to 299 ("image locking" in qemu's
    documentation). Asking for them takes none.

    :raises OSError: if the file cannot be opened
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _QEMU_LOCK_START, _QEMU_LOCK_BYTES, 0)
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, query)
    finally:
        os.close(fd)
    kind: int = _FLOCK.unpack(answer)[0]
    return kind != fcntl.F_UNLCK
