# SPDX-License-Identifier: Apache-2.0
"""Finish rules of a recording: pure functions of what was observed, without a clock or I/O.

All times are seconds of one monotonic clock.
"""

import dataclasses
import enum
import math

from nova_qcache.model.states import FinishReason

__all__ = ['FinishPoint', 'Limits', 'NextStep']

_HOLD_SECONDS = 30
"""Some times as long as the keeper takes from one look at all domains to the next."""
_WITHOUT_A_MISS = 2
"""Times ``idle`` in which an audit's guest may read without a miss: no recording of a boot pauses
for so long. A server that reads the same again and again would never be silent, and all of that
would count as hits of its boot."""
_LEAST_READ = 512
"""Bytes of a guest's smallest read; less than that are signals between the daemon's threads."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits in seconds, as the options of the same names."""

    idle: float
    settle: float
    longest: float
    grace: float
    lease: float


class NextStep(enum.Enum):
    GO_ON = 'go on'
    DROP = 'drop'
    """Nobody is there and what was recorded is not worth keeping."""
    LEAVE = 'leave'
    """Nobody is served and nobody is expected."""


class FinishPoint:
    """Watches one recording, and after it the guests that still read through the recorder.

    A recording that has not grown has recorded nothing, and is not worth keeping. An audit's file
    was full of what is good for its guests before they came: it finishes when they are silent, or
    have read nothing but hits for long.
    """

    def __init__(
        self, limits: Limits, now: float, empty_size: int, patience: float | None = None
    ) -> None:
        """
        :param empty_size: length in bytes of the cache file before anything was recorded
        :param patience: of an audit: for how long it waits for a guest that nobody has announced
            yet. None: it is a recording, whose first guest was told to come.
        """
        self._limits = limits
        self._size = empty_size
        self._empty_size = empty_size
        self._read = 0
        self._busy_at = self._grown_at = now
        self._first_guest_at: float | None = None
        self._guests = 0
        self._came = 0
        self._gone_at = now
        self._is_audit = patience is not None
        self._patient_until = -math.inf if patience is None else now + patience
        self._leases = [now + limits.lease] if patience is None else []
        self._held_until = now
        self._settled = False
        self._dismissed = False

    def expect_guest(self, now: float) -> None:
        """Expect one more guest."""
        self._leases.append(now + self._limits.lease)
        self._dismissed = False

    def hold(self, now: float) -> None:
        """Stay a while: a domain names the socket, and its guest, not connected now, comes back
        when it reads."""
        self._held_until = now + _HOLD_SECONDS

    def expect_nobody(self) -> None:
        """Expect no guests any more."""
        self._leases = []
        self._patient_until = self._held_until = -math.inf
        self._dismissed = True

    def note_outage(self, now: float) -> None:
        """Note that the base does not answer: a recording without growth says nothing about its
        guests then."""
        self._busy_at = self._grown_at = now
        self._settled = False

    def observe(self, now: float, size: int, guests: int, read: int = 0) -> None:
        """Note the length of the cache file in bytes and the number of connected guests.

        :param read: of an audit: bytes that its daemon has read so far
        """
        if guests and self._first_guest_at is None:
            self._first_guest_at = now
        if guests and not self._guests:
            # The time without a guest is no sign of a guest that has read all it needs.
            self._busy_at = self._grown_at = now
        if size > self._size:
            self._size = size
            self._busy_at = self._grown_at = now
        if read - self._read >= _LEAST_READ:
            self._read = read
            self._busy_at = now
        if self._guests and not guests:
            self._gone_at = now
        arrived = max(0, guests - self._guests)
        self._leases = [until for until in self._leases[arrived:] if until > now]
        self._guests = guests
        self._came += arrived
        if guests and self._has_content and now - self._busy_at >= self._limits.settle:
            self._settled = True

    @property
    def guests(self) -> int:
        return self._guests

    @property
    def came(self) -> int:
        """Number of guests that have connected so far."""
        return self._came

    def seconds(self, now: float) -> float:
        """Return the time since the first guest connected."""
        return 0.0 if self._first_guest_at is None else now - self._first_guest_at

    def is_awaiting(self, now: float) -> bool:
        """Return whether it is an audit that has had no guest and was told of none."""
        return (
            self._first_guest_at is None
            and now < self._patient_until
            and all(until <= now for until in self._leases)
        )

    @property
    def recorded(self) -> int:
        """Bytes by which the cache file has grown."""
        return self._size - self._empty_size

    def while_recording(self, now: float) -> FinishReason | NextStep:
        """Return why to seal the recording; or whether to go on or to drop it."""
        if self._guests:
            if self._has_content and now - self._busy_at >= self._limits.idle:
                return FinishReason.IDLE
            if self._is_audit and now - self._grown_at >= _WITHOUT_A_MISS * self._limits.idle:
                return FinishReason.IDLE
        elif self._nobody_expected(now) and not self.is_awaiting(now):
            return FinishReason.LAST_GUEST if self._settled else NextStep.DROP
        if self._first_guest_at is not None and now - self._first_guest_at >= self._limits.longest:
            return FinishReason.MAX_TIME if self._has_content else NextStep.DROP
        return NextStep.GO_ON

    def while_serving(self, now: float) -> NextStep:
        """Return whether to leave, since nobody needs the recorder, or to go on."""
        return (
            NextStep.LEAVE if not self._guests and self._nobody_expected(now) else NextStep.GO_ON
        )

    @property
    def _has_content(self) -> bool:
        return self._is_audit or self.recorded > 0

    def _nobody_expected(self, now: float) -> bool:
        # Grace: Nova's hard reboot ends a guest before it makes the XML of the next. Lease: a
        # guest may be on its way.
        waited = self._dismissed or now - self._gone_at >= self._limits.grace
        return not self._leases and waited and now >= self._held_until
