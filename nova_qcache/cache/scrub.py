# SPDX-License-Identifier: Apache-2.0
"""Read sealed caches again, a bounded amount at a time: damage by the disk is noticed before a
guest reads it.

Only the file is read, against the digest that was taken when it was sealed; whether it goes with
its base is another question (:mod:`nova_qcache.cache.verify`).
"""

import bisect
import dataclasses
import hashlib
import itertools
import logging
from typing import Any, BinaryIO

from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.model.key import CacheKey
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from nova_qcache.stats.counters import Counters
from nova_qcache.system import native

__all__ = ['Scrubber']

LOG = logging.getLogger(__name__)

_CHUNK = 1024 * 1024


@dataclasses.dataclass
class _Reading:
    """Progress of reading one cache file in parts."""

    record: CacheRecord
    offset: int = 0
    state: Any = dataclasses.field(default_factory=hashlib.sha256)


class Scrubber:
    """Remembers where it is in memory only: a new process begins with the first cache."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._last: CacheKey | None = None
        self._reading: _Reading | None = None

    def scrub(self, budget: int) -> int:
        """Read up to so many bytes, and retire caches that are damaged.

        :return: bytes read
        :raises OSError, QcacheError: if the folder of the caches or a record cannot be used
        """
        left = budget
        first: CacheKey | None = None
        while left > 0:
            reading = self._reading or self._next(first)
            if reading is None:
                break
            first = first or reading.record.key
            self._reading = reading
            left -= self._read(reading, left)
        return budget - left

    def _next(self, first: CacheKey | None) -> _Reading | None:
        """Begin with the cache after the last one; None if this call has come around."""
        keys = self._catalog.keys()
        begin = 0 if self._last is None else bisect.bisect_right(keys, self._last)
        for key in itertools.chain(keys[begin:], keys[:begin]):
            if key == first:
                return None
            try:
                record = self._catalog.load(key)
            except exception.RecordBroken:
                continue  # an operator's to look at
            if record is not None and record.state is State.READY:
                return _Reading(record)
        return None

    def _read(self, reading: _Reading, budget: int) -> int:
        """Read on; return how many bytes."""
        key, done = reading.record.key, 0
        try:
            with open(self._catalog.paths.sealed(key), 'rb') as file:
                file.seek(reading.offset)
                while done < budget:
                    size = native.run(_digest, file, min(_CHUNK, budget - done), reading.state)
                    if not size:
                        self._finish(reading, f'sha256:{reading.state.hexdigest()}')
                        break
                    done += size
        except OSError as e:
            self._finish(reading, error=e.strerror or str(e))
        reading.offset += done
        return done

    def _finish(self, reading: _Reading, found: str = '', error: str = '') -> None:
        """:param found: the digest, unless there was an error"""
        key = reading.record.key
        self._last, self._reading = key, None
        now = self._catalog.load(key)  # it may be another one, or none, by now
        if now is None or now.state is not State.READY or now.sealed is None:
            return
        if reading.record.sealed is not None and now.sealed.digest == reading.record.sealed.digest:
            if found != now.sealed.digest:
                reason = f'its digest is {found} and was {now.sealed.digest} when it was sealed'
                if error:
                    reason = f'its file cannot be read ({error})'
                self._catalog.retire(now, reason, Staleness.DAMAGED)
                result = 'damaged'
            else:
                result = 'intact'
                LOG.debug('Scrubbed a cache of image %s: its digest is unchanged', key.image_id)
            self._catalog.counter_store.add(key.image_id, Counters(verifications={result: 1}))


def _digest(file: BinaryIO, most: int, state: Any) -> int:
    """Read on, and return how many bytes that were."""
    chunk = file.read(most)
    state.update(chunk)
    return len(chunk)
