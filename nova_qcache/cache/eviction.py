# SPDX-License-Identifier: Apache-2.0
"""Eviction order: pure arithmetic on values that describe caches.

The pool (:mod:`nova_qcache.cache.pool`) decides which caches may be evicted at all. Those that no
boot can use go before all others, whatever the policy.
"""

import abc
from collections.abc import Iterable
import dataclasses
import math

from nova_qcache.model.key import CacheKey

__all__ = [
    'Candidate',
    'EvictionPolicy',
    'LeastRecentlyUsed',
    'LeastValuable',
    'LinkGroup',
    'choose',
    'in_order',
]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """The description of a cache that a policy gets."""

    key: CacheKey
    allocated: int
    """Bytes that it takes."""
    idle_seconds: float
    """Seconds for which the cache has been unused, from 0."""
    saved_bytes: int
    """Bytes that boots of its image did not read from the base."""
    is_stale: bool = False
    """No boot can use the cache any more: it goes before all others, whatever its worth."""


class EvictionPolicy(abc.ABC):
    """A plugin of the namespace ``nova_qcache.eviction_policies``; made without arguments."""

    @abc.abstractmethod
    def worth(self, candidate: Candidate) -> float:
        """Return a number; the cache with the least one goes first."""


class LeastRecentlyUsed(EvictionPolicy):
    def worth(self, candidate: Candidate) -> float:
        return -candidate.idle_seconds


class LeastValuable(EvictionPolicy):
    """``(1 + saved / taken) / (1 + idle)``, in bytes and seconds.

    It falls with the time that a cache was unused, grows with what it has saved, and falls with
    what it takes, so no figure can count in the wrong direction. A cache that has saved nine times
    what it takes may be unused ten times as long as one that has saved nothing; of those that have
    saved nothing, whatever their size, the one that was unused for longest goes first.
    """

    def worth(self, candidate: Candidate) -> float:
        savings = candidate.saved_bytes / max(candidate.allocated, 1)
        return (1 + savings) / (1 + candidate.idle_seconds)


@dataclasses.dataclass(frozen=True)
class LinkGroup:
    """A hard-link group: caches whose names are links to one file, mostly one. They are evicted
    together or not at all."""

    caches: tuple[Candidate, ...]
    frees: int
    """Bytes that are freed when all caches of the group are removed; as long as one is left it is
    0."""

    @property
    def is_stale(self) -> bool:
        return all(cache.is_stale for cache in self.caches)


def in_order(link_groups: Iterable[LinkGroup], policy: EvictionPolicy) -> list[LinkGroup]:
    """Return the groups in eviction order: what no boot can use first, then by worth, the least
    first."""

    def rank(link_group: LinkGroup) -> tuple[bool, float, CacheKey]:
        worth = max(policy.worth(cache) for cache in link_group.caches)
        # What a plugin makes of a division by zero must not mix up the others.
        return (
            not link_group.is_stale,
            -math.inf if math.isnan(worth) else worth,
            link_group.caches[0].key,
        )

    return sorted(link_groups, key=rank)


def choose(link_groups: Iterable[LinkGroup], wanted: int) -> list[LinkGroup]:
    """Return the first groups that free so many bytes, less those that need not go for it; all
    that free anything if they are too few.

    :param link_groups: in order; no more of them are looked at than are needed
    """
    chosen: list[LinkGroup] = []
    freed = 0
    for link_group in link_groups:
        if link_group.frees > 0:
            chosen.append(link_group)
            freed += link_group.frees
            if freed >= wanted:
                break
    # The last one may be so large that others before it can stay, the worthiest of them first.
    for link_group in reversed(chosen[:-1]):
        if not link_group.is_stale and freed - link_group.frees >= wanted:
            chosen.remove(link_group)
            freed -= link_group.frees
    return chosen
