# SPDX-License-Identifier: Apache-2.0
"""Values of one boot: its request, and its plan."""

import dataclasses
import enum

from nova_qcache import exception
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation

__all__ = ['EXPORT_NAME', 'Boot', 'Cause', 'Plan', 'PlanKind', 'Policy', 'cause_of']

EXPORT_NAME = 'top'
"""Name of the NBD export that a recorder serves."""


class PlanKind(enum.Enum):
    PLAIN = 'PLAIN'
    """overlay on base; no cache."""
    RECORD = 'RECORD'
    """overlay on a recorder's NBD export."""
    PLAY = 'PLAY'
    """overlay on sealed cache on base."""


class Cause(enum.Enum):
    """Cause of a plain boot: few and fixed kinds, so that they can be counted."""

    POLICY = 'policy'
    """The image property or the flavor says never."""
    INELIGIBLE = 'ineligible'
    """Not a disk that is cached: rescued, encrypted, validated, not the image's own base."""
    NOT_YET = 'not-yet'
    """Fewer boots of the image than ``record_from_boot``, or an image that boots once."""
    RECORDERS = 'recorders'
    """``max_recorders`` are at work."""
    NO_ROOM = 'no-room'
    """The budget or the file system has none, whatever is evicted."""
    CONFINED = 'confined'
    """Guests of this host cannot use a recorder."""
    STALE = 'stale'
    """The cache was removed, or became STALE, while the boot asked for it."""
    DOUBT = 'doubt'
    """The base may have changed, and is being compared."""
    BROKEN = 'broken'
    """The file or record of the cache is not what it should be."""
    FALLBACK = 'fallback'
    """The domain did not start with the cache, and then did without."""
    FAILED = 'failed'
    """Anything else."""


def cause_of(error: Exception) -> Cause:
    """Return the cause of a boot that is plain because of an error."""
    match error:
        case exception.NoRoom() | exception.NoReservation():
            return Cause.NO_ROOM
        case exception.TooManyRecorders():
            return Cause.RECORDERS
        case exception.RecordBroken() | exception.CacheBroken():
            return Cause.BROKEN
        case exception.InvalidBase() | exception.InvalidImageId():
            return Cause.INELIGIBLE
    return Cause.FAILED


class Policy(enum.Enum):
    """Policy of an image or flavor. With ``never`` there is no :class:`Boot`."""

    AUTO = 'auto'
    """Record from the Nth boot on this host."""
    ALWAYS = 'always'
    """Record from the first boot."""


@dataclasses.dataclass(frozen=True)
class Boot:
    """The request of one boot for a plan."""

    image_id: str
    base: str
    base_format: str
    consumer: str = ''
    """Owner of the boot; its lease keeps the cache of the plan until it is released."""
    image_hash: str = ''
    """Glance's hash of the image's content; empty if unknown."""
    policy: Policy = Policy.AUTO
    boots_once: bool = False
    """The image is one that Nova makes for one boot: of an unshelve or a cross-cell move."""
    no_recording: str | None = None
    """Why nothing can be recorded on this host, if so."""

    def plain(self, reason: str, cause: Cause) -> 'Plan':
        """Return the plan that uses no cache, for a reason."""
        return Plan(
            PlanKind.PLAIN, reason, self.image_id, self.base, self.base_format, cause=cause
        )


@dataclasses.dataclass(frozen=True)
class Plan:
    """The decision for one boot; ``reason`` is a clause for the log."""

    kind: PlanKind
    reason: str
    image_id: str
    base: str
    base_format: str
    generation: Generation | None = None
    revision: int = 1
    cache: str | None = None
    """Path of the sealed qcow2 file (PLAY)."""
    socket: str | None = None
    """Path of the recorder's NBD socket, whose export is ``EXPORT_NAME`` (RECORD)."""
    cause: Cause | None = None
    """The cause of a PLAIN plan."""
    is_audit: bool = False
    """A RECORD plan is an audit: it measures a READY cache on a copy."""

    @property
    def key(self) -> CacheKey | None:
        """The cache that it is about, if it got that far."""
        if self.generation is None:
            return None
        return CacheKey(self.image_id, self.generation, self.revision)
