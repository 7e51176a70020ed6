# SPDX-License-Identifier: Apache-2.0
"""All locks of the project; the only module that imports lockutils.

Lock order. Whoever holds one may only take those below it, and *tries* (never waits for) the
first:

1. ``recorder-<stem>``, held by a recorder for its whole life: it names the supervisor of that
cache. 2. ``image-<image id>``, held for the milliseconds in which the state of a cache of that
image changes. 3. ``generation-<base>``, beside the base: held while its counter is read, changed
and synced.

These are POSIX locks on files, which the kernel drops with the process: a stale lock file stops
nobody. They are not inherited either, so a recorder's lock says nothing about its daemon (see
``recorder.adoption``).
"""

from collections.abc import Iterator
import contextlib
import pathlib
import time

from oslo_concurrency import lockutils

from nova_qcache import exception
from nova_qcache.key import CacheKey

__all__ = ['generation', 'image', 'recorder']

_POLL_SECONDS = 0.005


@contextlib.contextmanager
def recorder(folder: pathlib.Path, key: CacheKey) -> Iterator[None]:
    """Hold the recorder's lock of a cache.

    :raises RecorderBusy: at once, if another process holds it
    """
    name = f'recorder-{key.stem}'
    with contextlib.ExitStack() as stack:
        try:
            _enter(stack, folder, name, 0)
        except exception.LockTimeout as e:
            raise exception.RecorderBusy(image_id=key.image_id, name=name) from e
        yield


@contextlib.contextmanager
def image(folder: pathlib.Path, image_id: str, seconds: float) -> Iterator[None]:
    """Hold the lock under which states of the caches of one image change.

    :raises LockTimeout: after ``seconds``
    """
    with contextlib.ExitStack() as stack:
        _enter(stack, folder, f'image-{image_id}', seconds)
        yield


@contextlib.contextmanager
def generation(folder: pathlib.Path, name: str, seconds: float) -> Iterator[None]:
    """Hold the lock of a base's counter; ``folder`` is where the counter is, on the storage of the
    base.

    :raises LockTimeout: after ``seconds``
    """
    with contextlib.ExitStack() as stack:
        _enter(stack, folder, f'generation-{name}', seconds)
        yield


def _enter(stack: contextlib.ExitStack, folder: pathlib.Path, name: str, seconds: float) -> None:
    # lockutils has no deadline of its own: ask again without blocking until ours has passed.
    deadline = time.monotonic() + seconds
    while True:
        try:
            stack.enter_context(
                lockutils.lock(
                    name, external=True, lock_path=str(folder), do_log=False, blocking=False
                )
            )
            return
        except lockutils.AcquireLockFailedException as e:
            if time.monotonic() >= deadline:
                raise exception.LockTimeout(name=name, path=str(folder), seconds=seconds) from e
            time.sleep(_POLL_SECONDS)
