# SPDX-License-Identifier: Apache-2.0
"""When a recording has finished: pure rules over what was observed, no clock and no I/O of their
own.

All times are seconds of one monotonic clock.
"""

import dataclasses
import enum
import math

from nova_qcache.states import FinishReason

__all__ = ['FinishPoint', 'Limits', 'Verdict']

_HOLD_SECONDS = 30
"""Some times as long as the keeper takes from one look at all domains to the next."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Seconds, as the options of the same names."""

    idle: float
    settle: float
    longest: float
    grace: float
    lease: float


class Verdict(enum.Enum):
    GO_ON = 'go on'
    DROP = 'drop'
    """Nobody is there and what was recorded is not worth keeping."""
    LEAVE = 'leave'
    """Nobody is served and nobody is expected."""


class FinishPoint:
    """Watches one recording, and after it the guests that still read through the recorder."""

    def __init__(self, limits: Limits, now: float, empty_size: int) -> None:
        """:param empty_size: length in bytes of the cache file before anything was recorded"""
        self._limits = limits
        self._size = empty_size
        self._empty_size = empty_size
        self._growth_at = now
        self._first_guest_at: float | None = None
        self._guests = 0
        self._gone_at = now
        self._leases = [now + limits.lease]
        self._held_until = now
        self._settled = False
        self._dismissed = False

    def expect_guest(self, now: float) -> None:
        """One more guest was told to come."""
        self._leases.append(now + self._limits.lease)
        self._dismissed = False

    def hold(self, now: float) -> None:
        """A domain names the socket whose guest is not connected: it comes back when it reads."""
        self._held_until = now + _HOLD_SECONDS

    def expect_nobody(self) -> None:
        """Whoever was told to come will not."""
        self._leases = []
        self._held_until = -math.inf
        self._dismissed = True

    def note_outage(self, now: float) -> None:
        """The base does not answer: that nothing was added lately says nothing of the guests."""
        self._growth_at = now
        self._settled = False

    def observe(self, now: float, size: int, guests: int) -> None:
        """Note the length of the cache file in bytes and the number of connected guests."""
        if guests and self._first_guest_at is None:
            self._first_guest_at = now
        if guests and not self._guests:
            # The time without a guest is no sign of a guest that has read all it needs.
            self._growth_at = now
        if size > self._size:
            self._size = size
            self._growth_at = now
        if self._guests and not guests:
            self._gone_at = now
        arrived = max(0, guests - self._guests)
        self._leases = [until for until in self._leases[arrived:] if until > now]
        self._guests = guests
        if guests and self.recorded and now - self._growth_at >= self._limits.settle:
            self._settled = True

    @property
    def guests(self) -> int:
        return self._guests

    @property
    def recorded(self) -> int:
        """Bytes by which the cache file has grown."""
        return self._size - self._empty_size

    def while_recording(self, now: float) -> FinishReason | Verdict:
        """Say whether to seal, and why; or to go on; or to drop what there is."""
        if self._guests:
            if self.recorded and now - self._growth_at >= self._limits.idle:
                return FinishReason.IDLE
        elif self._nobody_expected(now):
            return FinishReason.LAST_GUEST if self.recorded and self._settled else Verdict.DROP
        if self._first_guest_at is not None and now - self._first_guest_at >= self._limits.longest:
            return FinishReason.MAX_TIME if self.recorded else Verdict.DROP
        return Verdict.GO_ON

    def while_serving(self, now: float) -> Verdict:
        """Say whether anybody still needs the recorder."""
        return Verdict.LEAVE if not self._guests and self._nobody_expected(now) else Verdict.GO_ON

    def _nobody_expected(self, now: float) -> bool:
        # Grace: Nova's hard reboot ends a guest before it makes the XML of the next. Lease: a
        # guest may be on its way.
        waited = self._dismissed or now - self._gone_at >= self._limits.grace
        return not self._leases and waited and now >= self._held_until
