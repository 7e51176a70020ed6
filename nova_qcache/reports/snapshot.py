# SPDX-License-Identifier: Apache-2.0
"""Snapshot of the caches for operators: counters and present state, of each image and of the host.

Nothing is guessed: each figure has a source, named in :data:`SOURCES`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
import dataclasses
import os
import time

from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.directory import CacheFile
from nova_qcache.cache.pins import Pins
from nova_qcache.cache.pool import Pool
from nova_qcache.cache.pool import PoolState
from nova_qcache.cache.view import BROKEN
from nova_qcache.cache.view import DIRTY
from nova_qcache.model.key import CacheKey
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.states import State
from nova_qcache.stats import counters as counters_module
from nova_qcache.stats.counters import Counters
from nova_qcache.system import control

__all__ = ['SOURCES', 'ImageSnapshot', 'Snapshot', 'gather']

SOURCES = {
    **counters_module.SOURCES,
    'hit_ratio': '1 - missed_bytes / audited_bytes: audited boots only',
    'base_bytes': 'recorded_bytes + missed_bytes: of recordings and audits, not of plain boots',
    'served_bytes': 'saved_bytes + audited_bytes - missed_bytes',
    'states': 'records of caches',
    'allocated_bytes': 'blocks of files, reservations of recordings included',
    'quota_bytes': 'records of caches',
    'is_pinned': 'pins',
    'pinned_images': 'pins',
    'images': 'records of caches, counters and pins',
    'gathered_at': "the host's clock",
    'pool': 'the configuration, blocks of files, and statvfs of the file system',
    'recorders': 'recorders at work',
    'guests': 'recorders at work',
}
"""Source of each value, in words for an operator."""

_RECORDERS_SECONDS = 2
"""Time in which all recorders together may answer; silent ones are not counted."""
_CONTROL_SUFFIX = '.ctl'

_ORDER = [State.READY.value, State.RECORDING.value, DIRTY, BROKEN, State.STALE.value]
"""States, from the one that tells most about an image."""


@dataclasses.dataclass(frozen=True)
class ImageSnapshot:
    """One image; its caches may be gone, or never have served a boot."""

    image_id: str
    counters: Counters
    states: tuple[str, ...] = ()
    """States of its caches, as in :class:`nova_qcache.cache.view.CacheView`; the most important
    one first."""
    allocated: int = 0
    """Bytes that its caches take together; a file with two names counts once."""
    quota: int | None = None
    """Bytes that the cache of the first state may take; None if no record says so."""
    is_pinned: bool = False

    @property
    def state(self) -> str:
        return self.states[0] if self.states else State.COLD.value


@dataclasses.dataclass(frozen=True)
class Snapshot:
    at: float
    """Time of the snapshot, in seconds since the epoch."""
    host: Counters
    """Sum of all images, forgotten ones included: its sums never become less."""
    images: tuple[ImageSnapshot, ...]
    """The one with the most boots first."""
    pool: PoolState
    recorders: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Recorders that answer, by :class:`nova_qcache.model.states.Phase`."""
    guests: int = 0
    """Guests that read through recorders."""

    @property
    def states(self) -> Mapping[str, int]:
        """Number of caches in each state."""
        return Counter(state for image in self.images for state in image.states)


def gather(catalog: Catalog, pool: Pool, pins: Pins) -> Snapshot:
    """Take a snapshot. A record that cannot be read is a BROKEN cache and no error.

    :raises OSError: if the folder of the caches cannot be read
    :raises QcacheError: if the state of the pool cannot be told
    """
    recorders = _recorders(catalog)
    counted = catalog.counter_store.all()
    pinned = set(pins.all())
    files = catalog.directory.files()
    found = catalog.keys()
    keys: dict[str, list[CacheKey]] = {}
    for key in found:
        keys.setdefault(key.image_id, []).append(key)
    images = []
    for image_id in keys.keys() | counted.keys() | pinned:
        its_keys = keys.get(image_id, [])
        seen = [_state_of(catalog, key, key in recorders) for key in its_keys]
        seen.sort(key=_importance)
        images.append(
            ImageSnapshot(
                image_id,
                counted.get(image_id) or Counters(),
                tuple(state for state, _ in seen),
                _allocated(file for key in its_keys for file in files.get(key, ())),
                next((record.quota for _, record in seen if record is not None), None),
                image_id in pinned,
            )
        )
    images.sort(key=lambda image: (-image.counters.boots, image.image_id))
    return Snapshot(
        at=time.time(),
        host=catalog.counter_store.total(counted.values()),
        images=tuple(images),
        pool=pool.state(),
        recorders=Counter(status.phase.value for status in recorders.values()),
        guests=sum(status.guests for status in recorders.values()),
    )


def _recorders(catalog: Catalog) -> dict[CacheKey, control.Status]:
    try:
        names = sorted(os.listdir(catalog.paths.control))
    except OSError:  # no run folder, no recorder
        return {}
    found = {}
    deadline = time.monotonic() + _RECORDERS_SECONDS
    for name in names:
        key = CacheKey.from_stem(name.removesuffix(_CONTROL_SUFFIX))
        left = deadline - time.monotonic()
        if key is None or not name.endswith(_CONTROL_SUFFIX) or left <= 0:
            continue
        try:
            path = catalog.paths.control_socket(key)
            found[key] = control.RecorderClient(path, left).status()
        except exception.RecorderUnreachable:
            continue
    return found


def _state_of(
    catalog: Catalog, key: CacheKey, has_recorder: bool
) -> tuple[str, CacheRecord | None]:
    try:
        record = catalog.load(key)
    except exception.RecordBroken:
        return BROKEN, None
    if record is None:
        return BROKEN, None
    if record.state is State.RECORDING and not has_recorder:
        return DIRTY, record
    return record.state.value, record


def _importance(seen: tuple[str, CacheRecord | None]) -> tuple[int, float]:
    state, record = seen
    return _ORDER.index(state), -record.created_at if record is not None else 0


def _allocated(files: Iterable[CacheFile]) -> int:
    return sum({file.inode: file.allocated for file in files}.values())
