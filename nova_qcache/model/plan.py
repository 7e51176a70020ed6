# SPDX-License-Identifier: Apache-2.0
"""What one boot is to use."""

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
    """What kind of reason a plain boot has: few and fixed, so that they can be counted."""

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
    """The base has changed."""
    DOUBT = 'doubt'
    """The base may have changed, and is being compared."""
    BROKEN = 'broken'
    """The file or record of the cache is not what it should be."""
    FALLBACK = 'fallback'
    """The domain did not start with the cache, and then did without."""
    FAILED = 'failed'
    """Anything else."""


def cause_of(error: Exception) -> Cause:
    """Return the kind of reason that a boot is plain for when something has failed."""
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
    """What an image or flavor asks for; one that says never makes no :class:`Boot`."""

    AUTO = 'auto'
    """Record from the Nth boot on this host."""
    ALWAYS = 'always'
    """Record from the first boot."""


@dataclasses.dataclass(frozen=True)
class Boot:
    """One boot, from the driver that asks for its plan to what decides it."""

    image_id: str
    base: str
    base_format: str
    consumer: str = ''
    """Whose it is; its lease keeps what the plan names until it is released."""
    image_hash: str = ''
    """What Glance says of the image's content; empty if nobody knows."""
    policy: Policy = Policy.AUTO
    boots_once: bool = False
    """Whether the image is one that Nova makes for one boot: of an unshelve or a cross-cell
    move."""
    no_recording: str | None = None
    """Why nothing can be recorded on this host, if so."""

    def plain(self, reason: str, cause: Cause) -> 'Plan':
        """Return the plan that uses no cache, for a reason."""
        return Plan(
            PlanKind.PLAIN, reason, self.image_id, self.base, self.base_format, cause=cause
        )


@dataclasses.dataclass(frozen=True)
class Plan:
    """One decision; ``reason`` is a clause for the log that says why."""

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
    """Of a PLAIN plan: what kind of reason it has."""
    is_audit: bool = False
    """Whether a RECORD plan is an audit: a READY cache that a copy of is measured."""

    @property
    def key(self) -> CacheKey | None:
        """The cache that it is about, if it got that far."""
        if self.generation is None:
            return None
        return CacheKey(self.image_id, self.generation, self.revision)
