# SPDX-License-Identifier: Apache-2.0
"""Eviction candidates, and the removal of caches.

Never removed are caches in use (:mod:`nova_qcache.cache.usage`; open in a process of qemu; with a
living recorder), what is being recorded, and READY ones of pinned images. A cache without a
readable record is left to the operator.
"""

from collections.abc import Collection
import functools
import logging
import pathlib
import time

from nova_qcache import exception
from nova_qcache.cache import view
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.eviction import Candidate
from nova_qcache.cache.eviction import LinkGroup
from nova_qcache.cache.pins import Pins
from nova_qcache.cache.usage import Usage
from nova_qcache.model.key import CacheKey
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.states import State
from nova_qcache.stats.counters import Counters
from nova_qcache.system import files
from nova_qcache.system.log_rate_limit import LogRateLimit

__all__ = ['Removal']

LOG = logging.getLogger(__name__)


class Removal:
    def __init__(self, catalog: Catalog, pins: Pins, usage: Usage) -> None:
        self._catalog = catalog
        self._pins = pins
        self._usage = usage
        self._log_limit = LogRateLimit()

    def link_groups(self, kept: dict[CacheKey, str]) -> list[LinkGroup]:
        """Return the eviction candidates, as far as records and domains tell: domains are asked
        once.

        :param kept: gets what stays, and why
        :raises DomainsUnknown: if libvirt does not tell
        """
        by_inode: dict[int, tuple[int, list[CacheKey]]] = {}
        for key, its_files in self._catalog.directory.files().items():
            for file in its_files:
                by_inode.setdefault(file.inode, (file.allocated, []))[1].append(key)
        used, pinned, now = self._usage.in_use(), self._pins.all(), time.time()
        link_groups = []
        for allocated, keys in by_inode.values():
            caches = []
            for key in keys:
                record = self._record(key)
                reason = self._reason_to_stay(key, record, used, pinned)
                if record is None or reason:
                    kept[key] = reason
                else:
                    caches.append(self._candidate(record, allocated, now))
            if len(caches) == len(keys):
                caches.sort(key=lambda cache: (not cache.is_stale, cache.key))
                link_groups.append(LinkGroup(tuple(caches), allocated))
        return link_groups

    def is_removable(self, link_group: LinkGroup, kept: dict[CacheKey, str]) -> bool:
        """Check a candidate for living recorders and open files, which no list shows."""
        for cache in link_group.caches:
            try:
                self._require_removable(cache.key)
            except (exception.QcacheError, OSError):
                kept[cache.key] = 'in use'
                return False
        return True

    def discard(self, key: CacheKey, why: str) -> bool:
        """Remove one cache that nobody uses.

        :param why: what is counted: ``stale``, ``room``, ``age`` or ``deleted``
        :return: whether it has gone: it stays if it is in use, pinned, being recorded or
            unreadable, or if that cannot be told
        """
        try:
            record = self._require_removable(key)
            freed = _freed(self._catalog.paths.sealed(key))
            self._catalog.discard(key, functools.partial(self._require_unused, record))
        except exception.QcacheError as e:
            LOG.debug('Keeping cache %s: %s', key.stem, e)
            return False
        except OSError as e:
            LOG.log(
                self._log_limit.level(e),
                'Failed to remove a cache of image %s; keeping it: %s',
                key.image_id,
                e,
            )
            return False
        LOG.info('Removed cache %s (%s), freeing %d bytes', key.stem, why, freed)
        self._catalog.counter_store.add(
            key.image_id, Counters(evictions={why: 1}, evicted_bytes=freed)
        )
        return True

    def discard_group(self, link_group: LinkGroup) -> list[CacheKey]:
        """Remove the caches of a hard-link group, and return those that were removed."""
        gone = []
        for cache in link_group.caches:
            if not self.discard(cache.key, 'stale' if cache.is_stale else 'room'):
                break  # a boot has begun meanwhile: the others would free nothing any more
            gone.append(cache.key)
        return gone

    # -- below

    def _reason_to_stay(
        self,
        key: CacheKey,
        record: CacheRecord | None,
        used: Collection[CacheKey],
        pinned: Collection[str],
    ) -> str:
        if record is None:
            return 'without a record that can be read'
        if record.state is State.RECORDING:
            return 'being recorded'
        if key in used:
            return 'in use'
        if record.state is State.READY and key.image_id in pinned:
            return 'pinned'
        return ''

    def _record(self, key: CacheKey) -> CacheRecord | None:
        try:
            return self._catalog.load(key)
        except exception.RecordBroken:
            return None

    def _candidate(self, record: CacheRecord, allocated: int, now: float) -> Candidate:
        counters = self._catalog.counter_store.of(record.key.image_id)
        made_at = record.sealed.sealed_at if record.sealed else record.created_at
        return Candidate(
            key=record.key,
            allocated=allocated,
            idle_seconds=max(0.0, now - max(counters.last_used_at, made_at)),
            saved_bytes=counters.saved_bytes,
            is_stale=record.state is State.STALE,
        )

    def _require_removable(self, key: CacheKey) -> CacheRecord:
        """Return the record of a cache that nobody reads and nobody wants to keep.

        :raises QcacheError: if it stays, with the reason
        :raises OSError: if its file cannot be looked at
        """
        seen = view.view(self._catalog, key)
        if seen.record is None:
            raise exception.CacheNotFound(image_id=key.image_id)
        self._require_unpinned(seen.record)
        if seen.recorder is not None:  # it leaves by itself after its last guest
            raise exception.CacheInUse(
                path=str(seen.path), reason='its recorder is at work', remedy='Try again later'
            )
        view.require_closed(seen)
        return seen.record

    def _require_unused(self, before: CacheRecord) -> None:
        """Under the lock of its image: a boot that begins now finds it gone.

        :raises QcacheError: if it is in use by now, pinned, or another cache
        """
        now = self._catalog.load(before.key)
        if now is None or now.created_at != before.created_at:
            raise exception.CacheNotFound(image_id=before.key.image_id)
        self._require_unpinned(now)
        self._usage.require_none(before.key)
        path = self._catalog.paths.sealed(before.key)
        if path.exists() and files.used_by_qemu(path):
            raise exception.CacheInUse(
                path=str(path), reason='a process of qemu has it open', remedy='Try again later'
            )

    def _require_unpinned(self, record: CacheRecord) -> None:
        reason = ''
        if record.state is State.RECORDING:
            reason = 'it is being recorded'
        elif record.state is State.READY and self._pins.is_pinned(record.key.image_id):
            reason = 'its image is pinned'
        if reason:
            path = str(self._catalog.paths.sealed(record.key))
            raise exception.CacheInUse(path=path, reason=reason, remedy='Wait, or unpin its image')


def _freed(path: pathlib.Path) -> int:
    """Return the bytes that are freed when this name of a file is removed: 0 if the file has
    another name."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return 0
    return facts.st_blocks * 512 if facts.st_nlink == 1 else 0
