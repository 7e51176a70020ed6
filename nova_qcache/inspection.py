# SPDX-License-Identifier: Apache-2.0
"""What a cache looks like from outside: its record, its file and its recorder, put together for an
operator."""

import dataclasses
import pathlib

from nova_qcache import control
from nova_qcache import exception
from nova_qcache import filesystem
from nova_qcache.key import CacheKey
from nova_qcache.record import CacheRecord
from nova_qcache.states import State
from nova_qcache.store import Store

__all__ = ['BROKEN', 'DIRTY', 'CacheView', 'require_closed', 'require_no_guests', 'view']

DIRTY = 'DIRTY'
"""WARMING by its record, and no recorder fills it any more."""
BROKEN = 'BROKEN'
"""Files without a record that can be read."""


@dataclasses.dataclass(frozen=True)
class CacheView:
    """One cache as an operator sees it."""

    key: CacheKey
    path: pathlib.Path
    state: str
    """A name of :class:`nova_qcache.states.State`, or DIRTY, or BROKEN."""
    allocated: int
    """Bytes that it takes on its file system, reservation included."""
    length: int
    """Bytes of the file itself."""
    note: str
    record: CacheRecord | None = None
    recorder: control.Status | None = None


def view(store: Store, key: CacheKey) -> CacheView:
    """Look at one cache; nothing that is wrong with it is an error here."""
    record, state, note = None, BROKEN, 'it has no record'
    try:
        record = store.load(key)
        if record is not None:
            state = record.state.value
            note = record.stale_reason or (record.sealed.reason.value if record.sealed else '')
    except exception.RecordBroken as e:
        note = str(e)
    status = None
    try:
        status = control.RecorderClient(store.paths.control_socket(key)).status()
        note = note or status.note
    except exception.RecorderUnreachable:
        if state == State.WARMING.value:
            state, note = DIRTY, 'no recorder fills it any more; the next boot starts afresh'
    path = store.paths.sealed(key)
    if not path.exists() and store.paths.recording(key).exists():
        path = store.paths.recording(key)
    try:
        allocated, length = filesystem.allocated_bytes(path), path.stat().st_size
    except OSError:
        allocated, length = 0, 0
    return CacheView(key, path, state, allocated, length, note, record, status)


_REMEDY = 'End its guests, or add --force: they go on with the file, which has no name then'


def require_no_guests(seen: CacheView) -> None:
    """:raises CacheInUse: if guests read the cache through its recorder"""
    if seen.recorder is not None and seen.recorder.guests:
        reason = f'{seen.recorder.guests} guests read through its recorder'
        raise exception.CacheInUse(path=str(seen.path), reason=reason, remedy=_REMEDY)


def require_closed(seen: CacheView) -> None:
    """Look for processes of qemu that have the file open; a recorder's daemon is one of them.

    :raises CacheInUse: if there is one on this host
    :raises OSError: if the file is there and cannot be looked at
    """
    if seen.path.exists() and filesystem.used_by_qemu(seen.path):
        reason = 'a process of qemu has it open'
        raise exception.CacheInUse(path=str(seen.path), reason=reason, remedy=_REMEDY)
