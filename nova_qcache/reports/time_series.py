# SPDX-License-Identifier: Apache-2.0
"""Time series of what the caches of this host have saved: few points in one small file, however
long it is kept."""

import dataclasses
import json
import logging
import math
from typing import Any

from nova_qcache import exception
from nova_qcache.reports.snapshot import Snapshot
from nova_qcache.stats import counters as counters_module
from nova_qcache.system import files
from nova_qcache.system import locks
from nova_qcache.system.log_rate_limit import LogRateLimit
from nova_qcache.system.paths import Paths

__all__ = ['Point', 'TimeSeries']

LOG = logging.getLogger(__name__)

VERSION = 1
_NAME = 'history.json'
_MODE = 0o640
_MOST = 1000
_LOCK_SECONDS = 1


@dataclasses.dataclass(frozen=True)
class Point:
    """Sums of the host since counting began, but for the pool. Sizes are bytes."""

    at: float
    """Seconds since the epoch."""
    served_bytes: int
    base_bytes: int
    pool_bytes: int
    """Bytes that the caches took then."""


class TimeSeries:
    def __init__(self, paths: Paths) -> None:
        self._path = paths.statistics / _NAME
        self._locks = paths.locks
        self._log_limit = LogRateLimit()

    def note(self, snapshot: Snapshot) -> None:
        """Add a point with the present values of the host. Never raises."""
        host, pool = snapshot.host, snapshot.pool
        point = Point(snapshot.at, host.served_bytes, host.base_bytes, pool.allocated)
        try:
            # What begins with a dot in that folder is a leftover to whoever holds this lock.
            with locks.statistics(self._locks, _LOCK_SECONDS):
                # A clock that was ahead has left points of the future.
                before = [each for each in self._read_or_begin() if each.at < point.at]
                text = _dumps(_thinned([*before, point]))
                files.replace_atomically(self._path, text, _MODE)
        except (exception.QcacheError, OSError) as e:
            LOG.log(self._log_limit.level(e), 'Failed to add a point to the time series: %s', e)

    def points(self) -> list[Point]:
        """Return what was noted, the oldest first; nothing if it cannot be read. Never raises."""
        try:
            return self._read()
        except (exception.StatisticsBroken, OSError) as e:
            LOG.log(self._log_limit.level(e), '%s', e)
            return []

    def _read(self) -> list[Point]:
        try:
            return _loads(self._path.read_bytes(), str(self._path))
        except FileNotFoundError:
            return []

    def _read_or_begin(self) -> list[Point]:
        """Read what is about to be replaced, under the lock."""
        try:
            return self._read()
        except exception.StatisticsTooNew:  # a newer version will go on with it
            raise
        except exception.StatisticsBroken as e:
            LOG.warning(
                'Failed to read %s; starting a new time series: %s',
                self._path,
                e.attributes['reason'],
            )
            return []


def _thinned(points: list[Point]) -> list[Point]:
    """Leave out points that stand closest together, so that few cover a long time evenly; the
    first and the last stay."""
    kept = list(points)
    while len(kept) > _MOST:
        inner = range(1, len(kept) - 1)
        del kept[min(inner, key=lambda place: kept[place + 1].at - kept[place - 1].at)]
    return kept


def _dumps(points: list[Point]) -> bytes:
    rows = [list(dataclasses.astuple(point)) for point in points]
    return json.dumps({'version': VERSION, 'points': rows}).encode() + b'\n'


def _loads(text: bytes, path: str) -> list[Point]:
    """:raises StatisticsTooNew: if a newer version wrote it
    :raises StatisticsBroken: for all else that :func:`_dumps` does not write
    """
    try:
        data = counters_module.versioned(text, VERSION, path)
        if len(data['points']) > _MOST:
            raise ValueError(f'it has more than {_MOST} points')
        points = [Point(*map(_number, row)) for row in data['points']]
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as e:
        raise exception.StatisticsBroken(path=path, reason=f'it is not a time series ({e})') from e
    return sorted(points, key=lambda point: point.at)


def _number(value: Any) -> Any:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise ValueError(f'{value!r:.60} is not a number from 0')
    return value
