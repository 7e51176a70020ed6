# SPDX-License-Identifier: Apache-2.0
"""Leases: claims of planned boots on the caches that they are going to use.

Between a plan and the running domain nothing else shows that a cache is needed. A lease is a small
file in ``run_path``, one per consumer, and ends when it is released or by time. A host that boots
has no boots on their way, so none needs to outlive that.
"""

from collections.abc import Iterable, Iterator
import contextlib
import dataclasses
import json
import math
import pathlib
import secrets
import time

from nova_qcache.model.key import CacheKey
from nova_qcache.system import files
from nova_qcache.system.boot_id import boot_id

__all__ = ['Lease', 'Leases']

_SEPARATOR = '.lease-'
_MODE = 0o644


@dataclasses.dataclass(frozen=True)
class Lease:
    """The claim of a consumer on a cache that it is about to use."""

    consumer: str
    key: CacheKey
    until: float
    """Seconds of the host's monotonic clock: a change of its date neither ends nor prolongs it."""


class Leases:
    def __init__(self, folder: pathlib.Path, seconds: float) -> None:
        """:param seconds: how long a lease lasts that nobody releases"""
        self._folder = folder
        self._seconds = seconds

    def take(self, consumer: str, key: CacheKey) -> None:
        """Begin, or begin anew.

        :param consumer: a name without slashes, such as the UUID of an instance
        :raises OSError: if it cannot be written
        """
        before = self._files_of(consumer)
        until = time.monotonic() + self._seconds
        data = {'consumer': consumer, 'stem': key.stem, 'until': until, 'boot_id': boot_id()}
        # Each has a name of its own: whoever clears ended ones away cannot take a new one.
        name = f'{consumer}{_SEPARATOR}{secrets.token_hex(4)}'
        path, text = self._folder / f'{name}.json', json.dumps(data)
        try:
            files.replace_atomically(path, text.encode(), _MODE, sync=False)
        except OSError as e:  # without the random name: it is the same trouble each time
            raise OSError(e.errno, e.strerror, str(self._folder)) from e
        _unlink(before)

    def release(self, consumer: str) -> None:
        """End a lease; harmless if there is none, and if it cannot be: it ends by time."""
        with contextlib.suppress(OSError):
            _unlink(self._files_of(consumer))

    def active(self) -> Iterator[Lease]:
        """Yield the leases that have not ended; one that begins anew meanwhile may come twice.

        :raises OSError: if one cannot be read now, since too many files are open, for example:
            nobody may say then that there is none
        """
        seen: set[pathlib.Path] = set()
        # One that begins anew gets a new file before it loses the old one: as long as there are
        # new ones, look again.
        while new := [path for path in self._files() if path not in seen]:
            seen.update(new)
            for path in new:
                lease = _read(path)
                if lease is not None and _lasts(lease):
                    yield lease

    def clear_ended(self) -> None:
        """Remove the files of leases that have ended without a release."""
        # Each file by what it says itself: a consumer may be new since the folder was listed.
        for path in self._files():
            with contextlib.suppress(OSError):
                lease = _read(path)
                if lease is None or not _lasts(lease):
                    _unlink([path])

    def _files(self) -> list[pathlib.Path]:
        return sorted(self._folder.glob(f'*{_SEPARATOR}*.json'))

    def _files_of(self, consumer: str) -> list[pathlib.Path]:
        return [path for path in self._files() if path.name.rpartition(_SEPARATOR)[0] == consumer]


def _lasts(lease: Lease) -> bool:
    return time.monotonic() < lease.until < math.inf


def _unlink(paths: Iterable[pathlib.Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _read(path: pathlib.Path) -> Lease | None:
    """Return a lease of this boot of the host, None for anything else: its clock starts anew.

    :raises OSError: if it may be one
    """
    try:
        data = json.loads(path.read_bytes())
        key = CacheKey.from_stem(data['stem'])
        if key is None or data['boot_id'] != boot_id():
            return None
        return Lease(str(data['consumer']), key, float(data['until']))
    except (FileNotFoundError, IsADirectoryError, PermissionError):  # gone, or none of ours
        return None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
