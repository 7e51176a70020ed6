# SPDX-License-Identifier: Apache-2.0
"""View of a cache for an operator, put together from its record, its file and its recorder."""

import dataclasses
import pathlib

from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.model.key import CacheKey
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.states import State
from nova_qcache.system import control
from nova_qcache.system import files
from nova_qcache.system import processes
from nova_qcache.system.paths import Paths

__all__ = [
    'BROKEN',
    'DIRTY',
    'CacheView',
    'require_closed',
    'require_no_guests',
    'served',
    'view',
]

DIRTY = 'DIRTY'
"""RECORDING by its record, and no recorder fills it any more."""
BROKEN = 'BROKEN'
"""Files without a record that can be read."""


@dataclasses.dataclass(frozen=True)
class CacheView:
    """One cache as operators see it."""

    key: CacheKey
    path: pathlib.Path
    state: str
    """A name of :class:`nova_qcache.model.states.State`, or DIRTY, or BROKEN. COLD is what has no
    file any more, and processes that serve guests."""
    allocated: int
    """Bytes that it takes on its file system, reservation included."""
    length: int
    """Bytes of the file itself."""
    note: str
    record: CacheRecord | None = None
    recorder: control.Status | None = None
    guests: int = 0
    """Number of guests that read through its recorder, or through a daemon whose recorder has
    died."""


def served(paths: Paths) -> set[CacheKey]:
    """Return the keys of all caches that a process of ours works for, whether there is anything
    left of the cache or not."""
    found = set()
    for path in processes.listening():
        key = CacheKey.from_stem(path.stem)
        if key is not None and path.parent in (paths.guests, paths.control):
            found.add(key)
    return found


def view(catalog: Catalog, key: CacheKey) -> CacheView:
    """Look at one cache; nothing that is wrong with it is an error here."""
    record, state, note = None, State.COLD.value, ''
    path = catalog.paths.sealed(key)
    if not path.exists() and catalog.paths.recording(key).exists():
        path = catalog.paths.recording(key)
    try:
        record = catalog.load(key)
        if record is not None:
            state = record.state.value
            note = record.stale_reason or (record.sealed.reason.value if record.sealed else '')
        elif path.exists():
            state, note = BROKEN, 'it has no record'
    except exception.RecordBroken as e:
        state, note = BROKEN, str(e)
    status, guests, socket = None, 0, catalog.paths.nbd_socket(key)
    try:
        status = control.RecorderClient(catalog.paths.control_socket(key)).status()
        note, guests = note or status.note, status.guests
    except exception.RecorderUnreachable:
        if socket.exists():
            guests = processes.connections(socket)
        if state == State.RECORDING.value:
            state, note = DIRTY, 'its recorder died; the next boot records it again'
        elif state == State.COLD.value:
            note = 'its recorder does not answer, or has died'
    try:
        allocated, length = files.allocated_bytes(path), path.stat().st_size
    except OSError:
        allocated, length = 0, 0
    return CacheView(key, path, state, allocated, length, note, record, status, guests)


_REMEDY = 'End its guests, or add --force: they keep reading the removed file'


def require_no_guests(seen: CacheView) -> None:
    """:raises CacheInUse: if guests read the cache through its recorder"""
    if seen.guests:
        reason = f'{seen.guests} guests read through its recorder'
        raise exception.CacheInUse(path=str(seen.path), reason=reason, remedy=_REMEDY)


def require_closed(seen: CacheView) -> None:
    """Look for processes of qemu that have the file open; a recorder's daemon is one of them.

    :raises CacheInUse: if there is one on this host
    :raises OSError: if the file is there and cannot be looked at
    """
    if seen.path.exists() and files.used_by_qemu(seen.path):
        reason = 'a process of qemu has it open'
        raise exception.CacheInUse(path=str(seen.path), reason=reason, remedy=_REMEDY)
