# SPDX-License-Identifier: Apache-2.0
"""All locks of the project; the only module that imports lockutils.

Lock order. Whoever holds one of these waits only for those further down; the second is never
waited for, only tried:

1. ``keeper``, held by the keeper of this host for its whole life.
2. ``recorder-<stem>``, held by a recorder for its whole life: it names the supervisor of that
   cache.
3. ``pool``, held while room is made for a recording, or caches are evicted.
4. ``image-<image id>``, held while the state of a cache of that image changes, and until that is
   on disk.
5. ``lease-<image id>``, held while a boot takes a lease of a cache of that image, or while it is
   seen that nobody uses one that goes, which is a question to libvirt. Nobody syncs under it: a
   boot waits for it.
6. ``generation-<base>``, beside the base: held while its counter is read, changed and synced.
7. ``statistics``, held while counters of an image are read, changed and written.

The tests see to it that nobody waits for one out of order, see :data:`complain`.

These are POSIX locks on files, which the kernel drops with the process: a stale lock file stops
nobody. Those of images and recorders go with their caches (:func:`clear_away`); who waits for one
that goes away takes the next file of that name. They are not inherited either, so a recorder's
lock says nothing about its daemon (see ``recorder.daemon.ServingDaemon.adopt``).
"""

from collections.abc import Callable, Collection, Iterator
import contextlib
from contextlib import AbstractContextManager
import contextvars
import enum
import functools
import os
import pathlib
import time
from typing import IO

from oslo_concurrency import lockutils

from nova_qcache import exception
from nova_qcache.model.key import CacheKey

__all__ = [
    'clear_away',
    'generation',
    'image',
    'keeper',
    'lease',
    'pool',
    'recorder',
    'statistics',
]

_POLL_SECONDS = 0.005
_MODE = 0o600


class _Rank(enum.IntEnum):
    """Place in the order of above: whoever holds a lock waits only for higher numbers."""

    KEEPER = 1
    RECORDER = 2
    POOL = 3
    IMAGE = 4
    LEASE = 5
    GENERATION = 6
    STATISTICS = 7


complain: Callable[[str], None] | None = None
"""For tests: called with a sentence when somebody waits for a lock out of order. None, as in
production, disables the check."""

# Of a context and not of a thread: what asyncio.to_thread() runs is waited for by whoever holds
# the locks.
_held: contextvars.ContextVar[tuple[tuple[_Rank, str], ...]] = contextvars.ContextVar(
    'held', default=()
)


def _one(rank: _Rank, folder: pathlib.Path, seconds: float) -> AbstractContextManager[None]:
    """Hold the lock of that kind.

    :raises LockTimeout: after ``seconds``
    """
    return _hold(rank, folder, rank.name.lower(), seconds)


def _one_of(
    rank: _Rank, folder: pathlib.Path, what: str, seconds: float
) -> AbstractContextManager[None]:
    """Hold the lock of that kind of an image or base.

    :raises LockTimeout: after ``seconds``
    """
    return _hold(rank, folder, f'{rank.name.lower()}-{what}', seconds)


keeper = functools.partial(_one, _Rank.KEEPER)
pool = functools.partial(_one, _Rank.POOL)
image = functools.partial(_one_of, _Rank.IMAGE)
lease = functools.partial(_one_of, _Rank.LEASE)
generation = functools.partial(_one_of, _Rank.GENERATION)
statistics = functools.partial(_one, _Rank.STATISTICS)


@contextlib.contextmanager
def recorder(folder: pathlib.Path, key: CacheKey) -> Iterator[None]:
    """Hold the recorder's lock of a cache.

    :raises RecorderBusy: at once, if another process holds it
    """
    name = f'recorder-{key.stem}'
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_hold(_Rank.RECORDER, folder, name, 0))
        except exception.LockTimeout as e:
            raise exception.RecorderBusy(image_id=key.image_id, name=name) from e
        yield


def clear_away(folder: pathlib.Path, keys: Collection[CacheKey]) -> None:
    """Remove the lock files of images and recorders that have no cache and no holder.

    :param keys: of all caches that are there
    :raises OSError: if the folder cannot be read
    """
    kept = {f'recorder-{key.stem}' for key in keys}
    kept |= {f'{kind}-{key.image_id}' for key in keys for kind in ('image', 'lease')}
    for name in sorted(set(os.listdir(folder)) - kept):
        kind = name.partition('-')[0]
        ranks = {'recorder': _Rank.RECORDER, 'image': _Rank.IMAGE, 'lease': _Rank.LEASE}
        rank = ranks.get(kind)
        if rank is not None:
            with contextlib.suppress(exception.LockTimeout), _hold(rank, folder, name, 0):
                (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _hold(rank: _Rank, folder: pathlib.Path, name: str, seconds: float) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if complain is not None:
            if seconds > 0:  # one who only tries can be part of no deadlock
                _check_order(rank, name, complain)
            stack.callback(_forget, (rank, name))
        # lockutils has no deadline of its own: ask again without blocking until ours has passed.
        deadline = time.monotonic() + seconds
        while not _try(stack, folder, name):
            if time.monotonic() >= deadline:
                raise exception.LockTimeout(name=name, path=str(folder), seconds=seconds)
            time.sleep(_POLL_SECONDS)
        if complain is not None:
            _held.set((*_held.get(), (rank, name)))
        yield


def _try(stack: contextlib.ExitStack, folder: pathlib.Path, name: str) -> bool:
    """Take a lock if nobody has it, and return whether that is so."""
    path = folder / name
    with contextlib.ExitStack() as mine:
        # Of this process one alone may open the file: a close gives back the locks of all others.
        try:
            mine.enter_context(lockutils.internal_lock(name, blocking=False))
        except lockutils.AcquireLockFailedException:
            return False
        while True:
            _make_private(path)
            lock = lockutils.external_lock(name, lock_path=str(folder))
            if not lock.acquire(blocking=False):
                lock.lockfile.close()
                return False
            # Whoever had it may have removed its file since we opened it: others lock another one.
            if _is_there(lock.lockfile, path):
                break
            lock.release()
        mine.callback(lock.release)
        stack.push(mine.pop_all())
    return True


def _is_there(file: IO[str], path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _make_private(path: pathlib.Path) -> None:
    """Make the file of a lock before lockutils does, closed to others: whoever may open it may
    hold it for ever."""
    with contextlib.suppress(OSError):  # lockutils says what is wrong with the folder
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE))


def _forget(entry: tuple[_Rank, str]) -> None:
    # Not what was held before: locks may be released in any order.
    _held.set(tuple(held for held in _held.get() if held != entry))


def _check_order(rank: _Rank, name: str, say: Callable[[str], None]) -> None:
    above = [held for its_rank, held in _held.get() if its_rank >= rank]
    if above:
        say(f'{name!r} is waited for by a holder of {", ".join(map(repr, above))}')
