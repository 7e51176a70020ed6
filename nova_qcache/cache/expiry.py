# SPDX-License-Identifier: Apache-2.0
"""Expiry: removal of caches although there is room, since no boot can use them, nobody has used
them for long, or their image is deleted.

The pool (:class:`nova_qcache.cache.pool.Pool`) keeps whatever is in use; an image that an instance
of this host stands on keeps its READY caches as well, since the instance may be rebooted.
"""

from collections.abc import Collection, Iterable, Iterator
import contextlib
import logging
import random
import time
from typing import TYPE_CHECKING

from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.pins import Pins
from nova_qcache.cache.pool import Pool
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import canonical_image_id
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.states import State
from nova_qcache.stats.counters import Counters
from nova_qcache.system.log_rate_limit import LogRateLimit

if TYPE_CHECKING:
    from nova_qcache.system.glance import Glance

__all__ = ['Expiry']

LOG = logging.getLogger(__name__)

_WRITE_SECONDS = 3600
"""Interval at which the use of an image is written down. Only a restart forgets newer uses."""
_MOST_WRITES = 500
"""Limit for one run; no host has so many images in use, but no run may become long if one does."""
_MOST_SECONDS = 30.0
"""No removal begins after so long; what is left goes in the next runs."""


class Expiry:
    """Reads only counters that may be old: a run over thousands of caches is short."""

    def __init__(self, catalog: Catalog, pins: Pins, pool: Pool, glance: 'Glance | None') -> None:
        """:param glance: None if nobody is asked which images are deleted"""
        self._catalog = catalog
        self._pins = pins
        self._pool = pool
        self._glance = glance
        self._wanted: frozenset[str] = frozenset()
        self._used_at: dict[str, float] = {}
        """Last known times of use; by now there may be later ones."""
        self._written_at: dict[str, float] = {}
        self._named: frozenset[str] = frozenset()
        self._log_limit = LogRateLimit()

    def note_used(self, image_ids: Iterable[str], now: float | None = None) -> None:
        """Note the images that instances of this host use; no others are in use.

        :param now: seconds since the epoch
        :raises OSError: if the folder of the caches cannot be read
        """
        now = time.time() if now is None else now
        self._wanted = frozenset(_canonical(image_ids))
        self._used_at.update(dict.fromkeys(self._wanted, now))
        overdue = [
            image_id
            for image_id in self._wanted
            if not 0 <= now - self._written_at.get(image_id, 0.0) < _WRITE_SECONDS
        ]
        overdue.sort(key=lambda image_id: self._written_at.get(image_id, 0.0))
        for image_id in overdue[:_MOST_WRITES]:
            self._catalog.counter_store.add(image_id, Counters(last_used_at=now))
            self._written_at[image_id] = now
        keys = self._catalog.keys()
        matters = self._wanted | {key.image_id for key in keys}
        for known in (self._used_at, self._written_at):
            for image_id in known.keys() - matters:
                del known[image_id]

    def expire(self, minimum_age_seconds: float | None) -> list[CacheKey]:
        """Remove the caches of images that were unused for so long, and those that are STALE
        whatever their age.

        :param minimum_age_seconds: None: nothing goes
        :return: what was removed
        :raises OSError: if the folders cannot be read
        """
        if minimum_age_seconds is None:
            return []
        kept = self._wanted | self._pins.all().keys()
        latest = time.time() - minimum_age_seconds
        chosen = []
        for record in self._records():
            image_id = record.key.image_id
            if record.state is State.STALE:
                chosen.append((record.key, 'stale'))
            elif (
                record.state is State.READY
                and _made_at(record) <= latest
                and image_id not in kept
                and not self._was_used_since(image_id, latest)
            ):
                chosen.append((record.key, 'age'))
        return self._discard(chosen)

    def purge_deleted(self) -> list[CacheKey]:
        """Remove the caches of images that Glance says are deleted; if it says nothing, none.
        Caches of a pinned image stay, with a warning.

        :return: what was removed
        :raises OSError: if the folders cannot be read
        """
        if self._glance is None:
            return []
        keys = self._catalog.keys()
        try:
            deleted = self._glance.deleted({key.image_id for key in keys} - self._wanted)
        except exception.GlanceUnknown as e:
            LOG.log(self._log_limit.level(e), 'Keeping the caches of deleted images: %s', e)
            return []
        pinned = deleted & self._pins.all().keys()
        for image_id in sorted(pinned - self._named):
            LOG.warning(
                'Image %s is deleted, but pinned; its caches stay until `nova-qcache unpin %s`',
                image_id,
                image_id,
            )
        self._named = frozenset(pinned)
        return self._discard([(key, 'deleted') for key in keys if key.image_id in deleted])

    # -- below

    def _discard(self, chosen: Collection[tuple[CacheKey, str]]) -> list[CacheKey]:
        until = time.monotonic() + _MOST_SECONDS
        # In random order: those that are in use for long must not keep the others waiting.
        removed = []
        for key, why in random.sample(list(chosen), len(chosen)):
            if time.monotonic() >= until:
                break
            if self._pool.discard(key, why):
                removed.append(key)
        return removed

    def _records(self) -> Iterator[CacheRecord]:
        keys = self._catalog.keys()
        for key in keys:
            with contextlib.suppress(exception.RecordBroken):  # for somebody to look at
                record = self._catalog.load(key)
                if record is not None:
                    yield record

    def _was_used_since(self, image_id: str, moment: float) -> bool:
        if self._used_at.get(image_id, 0.0) <= moment:
            self._used_at[image_id] = self._catalog.counter_store.of(image_id).last_used_at
        return self._used_at[image_id] > moment


def _canonical(image_ids: Iterable[str]) -> Iterable[str]:
    for image_id in image_ids:
        with contextlib.suppress(exception.InvalidImageId):
            yield canonical_image_id(image_id)


def _made_at(record: CacheRecord) -> float:
    return record.sealed.sealed_at if record.sealed else record.created_at
