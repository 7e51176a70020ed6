# SPDX-License-Identifier: Apache-2.0
"""Counters of an image on a host: pure values that can be added and written as JSON.

Each figure has one source, named in :data:`SOURCES`; what no source measures is not here.
"""

from collections.abc import Mapping
import dataclasses
import json
from typing import Any

from nova_qcache import exception

__all__ = ['SOURCES', 'Counters', 'add', 'dumps', 'loads', 'versioned']

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Counters:
    """All of them only grow, but those that say otherwise. Sizes are bytes.

    A boot counts when its domain has started, as what it has started with.
    """

    boots: int = 0
    plays: int = 0
    """Boots from a sealed cache."""
    records: int = 0
    """Boots through a recorder that records."""
    audits: int = 0
    """Boots through a recorder on a copy of a sealed cache."""
    plain: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Boots without a cache, by :class:`nova_qcache.model.plan.Cause`."""
    fallbacks: int = 0
    """Plain boots that did not start with the cache and then did without."""
    recordings: int = 0
    """Recordings that became a cache."""
    dropped_recordings: int = 0
    recorded_bytes: int = 0
    """Bytes that recordings have read from the base, and written to their files."""
    recording_seconds: float = 0.0
    audited_bytes: int = 0
    """Bytes that audited boots have read."""
    missed_bytes: int = 0
    """Bytes of those that came from the base."""
    saved_bytes: int = 0
    """Bytes that plays did not read from the base."""
    evictions: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Caches that were removed, by the reason."""
    evicted_bytes: int = 0
    invalidations: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Caches that became STALE, by the reason."""
    verifications: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Verifications of caches, by result: equal to the base, different from it, unknown; intact or
    damaged as files."""
    boot_bytes: int = 0
    """Bytes that one boot reads from the cache, as a recording or audit measured it last. No
    sum."""
    last_boot_at: float = 0.0
    """Seconds since the epoch; the latest. No sum."""
    last_used_at: float = 0.0
    """The same of whatever says that the image is wanted here: a boot, an instance, a pin."""

    @property
    def base_bytes(self) -> int:
        """Bytes that recordings and audited boots have read from the base."""
        return self.recorded_bytes + self.missed_bytes

    @property
    def served_bytes(self) -> int:
        """Bytes that came from caches in place of the base."""
        return self.saved_bytes + max(0, self.audited_bytes - self.missed_bytes)

    @property
    def hit_ratio(self) -> float | None:
        """Which part of what audited boots read came from the cache; None if none was audited."""
        if not self.audited_bytes:
            return None
        return max(0.0, 1 - self.missed_bytes / self.audited_bytes)


SOURCES = {
    'boots': 'starts of domains',
    'plays': 'starts of domains',
    'records': 'starts of domains',
    'audits': 'starts of domains',
    'plain': 'starts of domains',
    'fallbacks': 'starts of domains',
    'recordings': 'recorder',
    'dropped_recordings': 'recorder',
    'recorded_bytes': 'growth of the file, by the recorder',
    'recording_seconds': 'recorder',
    'audited_bytes': "what the audit's daemon has read",
    'missed_bytes': "growth of the audit's file",
    'saved_bytes': 'plays, each with what the last recording or audit measured for one boot',
    'evictions': 'removals',
    'evicted_bytes': 'removals',
    'invalidations': 'changes of state',
    'verifications': 'comparisons',
    'boot_bytes': 'the last recording or audit',
    'last_boot_at': 'starts of domains',
    'last_used_at': "starts of domains and Nova's image cache manager",
}
"""Source of each counter, in words for an operator."""

_LATEST = ('last_boot_at', 'last_used_at')
_LAST = ('boot_bytes',)


def add(one: Counters, other: Counters) -> Counters:
    """Return the sum; ``other`` is the later one."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Counters):
        mine, its = getattr(one, field.name), getattr(other, field.name)
        if field.name in _LATEST:
            values[field.name] = max(mine, its)
        elif field.name in _LAST:
            values[field.name] = its or mine
        elif isinstance(mine, Mapping):
            names = {**mine, **its}
            values[field.name] = {name: mine.get(name, 0) + its.get(name, 0) for name in names}
        else:
            values[field.name] = mine + its
    return Counters(**values)


def dumps(counters: Counters) -> bytes:
    """Return the JSON text of a file; what is zero is left out."""
    values = {name: value for name, value in dataclasses.asdict(counters).items() if value}
    return json.dumps({'version': VERSION, **values}, sort_keys=True).encode() + b'\n'


def loads(text: bytes, path: str) -> Counters:
    """Read what :func:`dumps` wrote; what this version of the layout does not know is left out.

    :param path: where it stands
    :raises StatisticsTooNew: if a newer version wrote it
    :raises StatisticsBroken: for all else that is no such file
    """
    try:
        data = versioned(text, VERSION, path)
        values: dict[str, Any] = {}
        for field in dataclasses.fields(Counters):
            if field.name in data:
                values[field.name] = _typed(data[field.name], field.type)
        return Counters(**values)
    except (TypeError, ValueError, RecursionError, OverflowError) as e:
        raise exception.StatisticsBroken(path=path, reason=str(e)) from e


def versioned(text: bytes, known: int, path: str) -> dict[str, Any]:
    """Return the JSON object of a file of statistics.

    :param known: the version of the layout that is read
    :raises StatisticsTooNew: if it has a higher one
    :raises ValueError, RecursionError: if it is no such object
    """
    data = json.loads(text)
    if not isinstance(data, dict) or type(data.get('version')) is not int:
        raise ValueError('it is not a JSON object with a version')
    if data['version'] > known:
        raise exception.StatisticsTooNew(path=path, version=data['version'], known=known)
    if data['version'] < 1:
        raise ValueError(f"version {data['version']} does not exist")
    return data


def _typed(value: Any, kind: Any) -> Any:
    if kind is int or kind is float:
        if type(value) not in (int, kind) or not 0 <= value < 2**63:
            raise ValueError(f'{value!r:.60} is not a number of the right type')
        return kind(value)
    if not isinstance(value, dict) or not all(type(each) is int for each in value.values()):
        raise ValueError(f'{value!r:.60} is not a table of counts by reason')
    return value
