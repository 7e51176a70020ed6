# SPDX-License-Identifier: Apache-2.0
"""The pool of caches of a host: room for recordings within a budget, made by eviction.

Whoever starts a recording asks for room first. Where there is none, caches that nobody needs
(:mod:`nova_qcache.cache.removal`) go, as many as it takes; if all of them were not enough, none
does. As long as there is room, no record of a cache is read: that costs the same however many
there are.
"""

import collections
from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import functools
import logging
import pathlib
import shutil

from oslo_config import cfg

from nova_qcache import conf as qcache_conf
from nova_qcache import exception
from nova_qcache.cache import eviction
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.eviction import EvictionPolicy
from nova_qcache.cache.leases import Leases
from nova_qcache.cache.pins import Pins
from nova_qcache.cache.removal import Removal
from nova_qcache.cache.space import SpaceUsage
from nova_qcache.cache.usage import Usage
from nova_qcache.model.key import CacheKey
from nova_qcache.system import files
from nova_qcache.system import locks
from nova_qcache.system.log_rate_limit import LogRateLimit

__all__ = ['Limits', 'Pool', 'PoolState', 'limits']

LOG = logging.getLogger(__name__)

_REMEDY = (
    'Raise [qcache] cache_budget, lower [qcache] quota or min_free, put cache_path on a larger '
    'file system, or unpin or remove caches that `nova-qcache list` shows'
)


@dataclasses.dataclass(frozen=True)
class Limits:
    budget: int
    """Bytes that all caches may take together."""
    min_free: int
    """Bytes that stay free on their file system."""
    recorders: int
    """Maximum number of recordings at the same time, audits included."""


@dataclasses.dataclass(frozen=True)
class PoolState:
    """Sizes are bytes."""

    budget: int
    min_free: int
    allocated: int
    """Bytes that cache files take now, those of recordings as well."""
    free: int
    """Free bytes on their file system."""
    caches: int
    """Number of caches in any state, recordings left out."""
    recordings: int
    reserved: int
    """Bytes that recordings may still take, beyond ``allocated``."""


def limits(conf: cfg.ConfigOpts, folder: pathlib.Path) -> Limits:
    """Return what the configuration comes to on this host.

    :param folder: where the caches are
    :raises InvalidOption: if the budget has no room for one quota
    :raises FolderUnfit: if the file system does not say how large it is
    """
    try:
        total = shutil.disk_usage(files.place(folder)).total
    except OSError as e:
        raise exception.FolderUnfit(
            path=str(folder),
            reason=f'the size of its file system cannot be determined ({e.strerror})',
            remedy='Check whether its storage is sound',
        ) from e
    return Limits(
        qcache_conf.budget_bytes(conf, total),
        qcache_conf.min_free_bytes(conf, total),
        conf.qcache.max_recorders,
    )


class Pool:
    """The caches of a host and their budget. Safe to use from several threads and processes, which
    take turns under one lock."""

    def __init__(
        self,
        catalog: Catalog,
        pins: Pins,
        usage: Usage,
        policy: EvictionPolicy,
        limits: Limits,
        reservations: Leases,
        lock_seconds: float,
    ) -> None:
        """:param reservations: of room for recordings that begin"""
        self._catalog = catalog
        self._removal = Removal(catalog, pins, usage)
        self._policy = policy
        self._limits = limits
        self._space = SpaceUsage(catalog, reservations)
        self._lock_seconds = lock_seconds
        self._log_limit = LogRateLimit()

    # -- room for a recording

    @contextlib.contextmanager
    def room(self, key: CacheKey, quota: int) -> Iterator[None]:
        """Make room for a recording, and keep it as long as its recorder takes to start.

        :raises NoRoom: if there is none, whatever is removed; nothing is then
        :raises TooManyRecorders: if as many as may be are at work
        :raises LockTimeout: if others make room for too long
        :raises OSError: if the folders cannot be read or written
        """
        self.reserve(key, quota)
        try:
            yield
        finally:
            self._space.release_own(key, quota)

    def reserve(self, key: CacheKey, quota: int, *, evict: bool = True) -> None:
        """Make room for a recording that starts in the background, and keep it until it is
        released, sealed, or ends by time.

        :param evict: whether caches may go for it
        :raises NoRoom, TooManyRecorders, LockTimeout, OSError: as :meth:`room` does
        """
        with self._locked():
            count = self._space.recordings(but=key)
            if count >= self._limits.recorders:
                raise exception.TooManyRecorders(count=count, most=self._limits.recorders)
            self._make_room(key, quota, evict=evict)
            self._space.reserve(key, quota)

    def release(self, key: CacheKey) -> None:
        """End the reservation of a recording that has begun (its file counts from then on), or
        will not.

        :raises OSError: if it cannot be told what is reserved
        """
        self._space.release(key)

    # -- what goes

    def trim(self) -> list[CacheKey]:
        """Remove caches until the pool is within its limits again; one warning says so if there
        are not enough that may go.

        :return: what was removed
        :raises LockTimeout: if others make room for too long
        :raises OSError: if the folders cannot be read
        """
        with self._locked():
            self._space.clear_ended()
            if self._shortage() <= 0:
                return []
            removed, outcome = self._evict(self._shortage, keep_unless_enough=False)
            excess = self._shortage()
            if excess > 0:
                error = exception.OverBudget(
                    path=str(self._catalog.paths.cache_path),
                    excess=excess,
                    reason=f'{self._numbers()}; {outcome}',
                    remedy=_REMEDY,
                )
                LOG.log(self._log_limit.level(error), '%s', error)
        return removed

    def discard(self, key: CacheKey, why: str) -> bool:
        """Remove one cache that nobody uses.

        :param why: what is counted: ``stale``, ``room``, ``age`` or ``deleted``
        :return: whether it has gone: it stays if it is in use, pinned, being recorded or
            unreadable, or if that cannot be told
        """
        return self._removal.discard(key, why)

    def state(self) -> PoolState:
        """Return what is there.

        :raises OSError: if the folders cannot be read
        """
        now = self._space.totals()
        directory = self._catalog.directory
        recordings = len(directory.recordings())
        return PoolState(
            budget=self._limits.budget,
            min_free=self._limits.min_free,
            allocated=now.allocated,
            free=now.free,
            caches=len(directory.keys()) - recordings,
            recordings=recordings,
            reserved=now.reserved,
        )

    # -- below: what is taken

    def _make_room(self, key: CacheKey, quota: int, *, evict: bool) -> None:
        # Whatever is there of this recording itself, of one that died for example, is part of it.
        wanted = max(0, quota - self._space.recorded(key))
        shortage = functools.partial(self._shortage, wanted, key)
        if shortage() <= 0:
            return
        outcome = 'no cache is evicted for it'
        if evict:
            _, outcome = self._evict(shortage, keep_unless_enough=True)
        if shortage() > 0:
            raise exception.NoRoom(
                path=str(self._catalog.paths.cache_path),
                reason=f'a quota of {quota} bytes is too much; {self._numbers()}; {outcome}',
                remedy=_REMEDY,
            )

    def _shortage(self, wanted: int = 0, but: CacheKey | None = None) -> int:
        """Return how many bytes are too many once so many more are taken; up to 0 is none.

        :param but: whose reservation does not count
        """
        now = self._space.totals(but)
        more = now.reserved + wanted
        return max(
            now.allocated + more - self._limits.budget, self._limits.min_free + more - now.free
        )

    def _numbers(self) -> str:
        now = self._space.totals()
        return (
            f'caches and recordings take {now.allocated + now.reserved} bytes of a budget of '
            f'{self._limits.budget}, and {now.free} are free, of which {self._limits.min_free} '
            f'must stay free'
        )

    # -- below: what goes

    def _evict(
        self, shortage: Callable[[], int], *, keep_unless_enough: bool
    ) -> tuple[list[CacheKey], str]:
        """Remove caches until nothing is short.

        :param keep_unless_enough: whether none goes if all of them were not enough
        :return: what was removed, and in words why no more
        """
        removed: list[CacheKey] = []
        kept: dict[CacheKey, str] = {}
        try:
            link_groups = eviction.in_order(self._removal.link_groups(kept), self._policy)
        except exception.DomainsUnknown as e:
            return removed, f'no cache is evicted: {e.problem_and_remedy()[0]}'
        freed = 0
        while (wanted := shortage()) > 0:
            closed = (
                link_group
                for link_group in link_groups
                if self._removal.is_removable(link_group, kept)
            )
            chosen = eviction.choose(closed, wanted)
            freed = sum(link_group.frees for link_group in chosen)
            if not chosen or (keep_unless_enough and freed < wanted):
                break
            gone = {link_group.caches[0].key for link_group in chosen}
            link_groups = [
                link_group for link_group in link_groups if link_group.caches[0].key not in gone
            ]
            for link_group in chosen:
                removed += self._removal.discard_group(link_group)
        return removed, _why_not_enough(freed, kept)

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return locks.pool(self._catalog.paths.locks, self._lock_seconds)


def _why_not_enough(freed: int, kept: dict[CacheKey, str]) -> str:
    counts = collections.Counter(kept.values())
    why = ', '.join(f'{count} {reason}' for reason, count in counts.most_common())
    could = f'eviction could free {freed} bytes' if freed else 'no cache can be evicted'
    return f'{could} ({why})' if why else could
