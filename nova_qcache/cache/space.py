# SPDX-License-Identifier: Apache-2.0
"""Space usage of the caches of a host, with the space that recordings may still take: those at
work, and those that have a reservation.

The cost does not grow with the number of caches: only records of recordings are read.
"""

import contextlib
import dataclasses
import os

from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.leases import Leases
from nova_qcache.model.key import CacheKey
from nova_qcache.model.states import State
from nova_qcache.system import files

__all__ = ['SpaceTotals', 'SpaceUsage']

_SEPARATOR = '+'
"""Separator of the stem, the quota and the process in the name of a reservation's lease."""
_MOST_READS = 100


@dataclasses.dataclass(frozen=True)
class SpaceTotals:
    """All in bytes."""

    allocated: int
    """Bytes that cache files take now, those of recordings as well."""
    free: int
    """Free bytes on their file system."""
    reserved: int
    """Bytes that recordings may still take, beyond ``allocated``."""


class SpaceUsage:
    def __init__(self, catalog: Catalog, reservations: Leases) -> None:
        self._catalog = catalog
        self._reservations = reservations

    def reserve(self, key: CacheKey, quota: int) -> None:
        """Count a recording with its quota from now on, until it is released, sealed or ended by
        time.

        :raises OSError: if it cannot be written down
        """
        self._reservations.take(_consumer(key, quota), key)

    def release_own(self, key: CacheKey, quota: int) -> None:
        """End what this process has reserved: what the recording takes is seen by now."""
        self._reservations.release(_consumer(key, quota))

    def release(self, key: CacheKey) -> None:
        """End what anybody has reserved for a recording.

        :raises OSError: if it cannot be told
        """
        for lease in self._reservations.active():
            if lease.key == key:
                self._reservations.release(lease.consumer)

    def clear_ended(self) -> None:
        """Remove the files of reservations that have ended by time."""
        self._reservations.clear_ended()

    def recordings(self, but: CacheKey | None = None) -> int:
        """Return how many recordings are at work, or about to begin.

        :param but: one that does not count
        :raises OSError: if the folders cannot be read
        """
        return len(self._recordings(but))

    def recorded(self, key: CacheKey) -> int:
        """Return what the file of a recording takes, 0 if there is none."""
        try:
            return files.allocated_bytes(self._catalog.paths.recording(key))
        except OSError:  # not yet there, or not any more
            return 0

    def totals(self, but: CacheKey | None = None) -> SpaceTotals:
        """Return what is taken now.

        :param but: a recording that counts with nothing but what it takes already
        :raises OSError: if the folders cannot be read
        """
        # A recording that gets its space, or is sealed, meanwhile would count twice or not at all.
        for _ in range(_MOST_READS):
            recordings = self._recordings(but)
            allocated = self._catalog.directory.allocated()
            free = files.free_bytes(files.place(self._catalog.paths.cache_path))
            if recordings == self._recordings(but):
                break
        reserved = sum(max(0, quota - recorded) for quota, recorded in recordings.values())
        return SpaceTotals(allocated, free, reserved)

    def _recordings(self, but: CacheKey | None) -> dict[CacheKey, tuple[int, int]]:
        """Return the quota and the present size of each recording, with a reservation or at
        work."""
        quotas: dict[CacheKey, int] = {}
        for lease in self._reservations.active():
            if not self._catalog.paths.sealed(lease.key).exists():  # or it is over
                quota = _reserved_quota(lease.consumer)
                quotas[lease.key] = max(quota, quotas.get(lease.key, 0))
        for key in self._catalog.directory.recordings():
            with contextlib.suppress(exception.RecordBroken):  # it counts with its size
                record = self._catalog.load(key)
                if record is not None and record.state is State.RECORDING:
                    quotas[key] = max(record.quota, quotas.get(key, 0))
        return {key: (quota, self.recorded(key)) for key, quota in quotas.items() if key != but}


def _consumer(key: CacheKey, quota: int) -> str:
    # One of this process: another that starts the same recorder has one of its own.
    return _SEPARATOR.join((key.stem, str(quota), str(os.getpid())))


def _reserved_quota(consumer: str) -> int:
    try:
        return int(consumer.split(_SEPARATOR)[1])
    except (IndexError, ValueError):  # none of ours
        return 0
