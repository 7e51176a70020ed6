# SPDX-License-Identifier: Apache-2.0
"""The life of a cache and of the process that records it.

::

    COLD --> RECORDING --> READY --> STALE --> COLD
      |         |          ^ |                  ^
      |         +----------|-+------------------+   dropped or removed
      +--------------------+   re-tagged to a new generation of the base

COLD is the absence of a record. A RECORDING cache without a living recorder is dirty and gets
dropped. Only READY is ever given to a guest. Re-tagging is not a transition: it makes a second
name (:meth:`nova_qcache.cache.catalog.Catalog.retag`), since whoever seals what was dropped
meanwhile must not make it READY.
"""

import enum

from nova_qcache import exception

__all__ = ['FinishReason', 'Phase', 'Staleness', 'State', 'require_transition']


class State(enum.Enum):
    """State of a cache, as its record says; see :mod:`nova_qcache.model.record` for files."""

    COLD = 'COLD'
    """There is none."""
    RECORDING = 'RECORDING'
    """A recorder fills it."""
    READY = 'READY'
    """Complete on disk, checked, digest recorded; a boot may use it."""
    STALE = 'STALE'
    """No boot uses it any more; running guests may still read it."""


_TRANSITIONS = {
    State.COLD: {State.RECORDING},
    State.RECORDING: {State.READY, State.COLD},
    State.READY: {State.STALE, State.COLD},
    State.STALE: {State.COLD},
}


def require_transition(image_id: str, state: State, wanted: State) -> None:
    """:raises WrongState: unless a cache may go from ``state`` to ``wanted``."""
    if wanted not in _TRANSITIONS[state]:
        raise exception.WrongState(
            image_id=image_id,
            state=state.value,
            wanted=wanted.value,
            remedy=f'See its record with `nova-qcache show {image_id}`',
        )


class Staleness(enum.Enum):
    """Reason for a cache to become STALE: few and fixed kinds, so that they can be counted."""

    CHANGED = 'changed'
    """The base has other content."""
    WRITTEN = 'written'
    """The base was written, and a cache of its new generation took over."""
    DAMAGED = 'damaged'
    """The file is not what was sealed."""
    REVISION = 'revision'
    """A new revision of the cache took its place."""
    OPERATOR = 'operator'
    """``nova-qcache invalidate``."""


class FinishReason(enum.Enum):
    """Why a recording ended as READY; whichever comes first."""

    QUOTA = 'quota'
    """The file has grown to its quota."""
    IDLE = 'idle'
    """No growth for ``recording_idle_seconds`` with a guest connected."""
    LAST_GUEST = 'last-guest'
    """All guests have left, and the recording had been quiet before."""
    MAX_TIME = 'max-time'
    """``recording_max_seconds`` have passed since the first guest."""
    OPERATOR = 'operator'
    """``nova-qcache seal``."""


class Phase(enum.Enum):
    """Phase of a recorder process."""

    STARTING = 'starting'
    RECORDING = 'recording'
    SEALING = 'sealing'
    SERVING = 'serving'
    """Sealed or dropped: guests are served, nothing is written."""
    LEAVING = 'leaving'
