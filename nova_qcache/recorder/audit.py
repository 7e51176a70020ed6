# SPDX-License-Identifier: Apache-2.0
"""Measurement of an audit: bytes that its guests read, and how many of them the cache missed.

An audit is a recorder on a copy of a READY cache. What the copy grows by was missed. What was read
is what its daemon has read from files, since all that it reads is for its guests: the copy, and
the base where that is a file. It counts a little too much: tables of the copy and signals between
the daemon's threads, together below 1 % of a boot's; and a cluster that was missed up to twice,
where guests read it in smaller pieces, so that a share of 10 % may show as 9 %. It leaves out what
the cache knows to be zeros, which is read nowhere.
"""

import dataclasses

from nova_qcache.model.record import CacheRecord
from nova_qcache.model.source import Source
from nova_qcache.stats.counters import Counters
from nova_qcache.system import processes

__all__ = ['PATIENCE_SECONDS', 'Audit', 'Measurement']

PATIENCE_SECONDS = 3600
"""Time that an audit waits for its guest: an image that boots often enough to be audited boots
again within it; else the copy gives its space back."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    read: int
    """Bytes that the guests have read from their image."""
    missed: int
    """Bytes of that which came from the base."""
    guests: int

    def is_above(self, percent: int) -> bool:
        """Return whether more than ``percent`` was missed."""
        # The copy grows by tables as well, so it may grow by more than was read.
        return min(self.missed, self.read) * 100 > percent * self.read

    def counters(self) -> Counters:
        return Counters(
            audited_bytes=self.read,
            missed_bytes=self.missed,
            boot_bytes=max(0, self.read - self.missed) // max(1, self.guests),
        )


class Audit:
    def __init__(self, audited: CacheRecord, source: Source) -> None:
        """:param audited: the READY cache whose copy its guests read"""
        self.audited = audited
        # A base behind a socket is read with recvmsg(2), and those bytes are in no count.
        self._counts_base = 'file' in source.drivers
        self._pid = 0
        self._before = 0
        self._read = 0

    def begin(self, pid: int) -> None:
        """Count from now on, before any guest is there.

        :param pid: of the daemon
        :raises OSError: if it cannot be counted
        """
        self._pid = pid
        self._before = processes.bytes_read(pid)

    def read(self) -> int:
        """Return the bytes that the daemon has read from files since; the last known number if it
        is gone."""
        if self._pid:
            try:
                self._read = processes.bytes_read(self._pid) - self._before
            except OSError:
                self._pid = 0
        return self._read

    def measure(self, missed: int, guests: int) -> Measurement | None:
        """Return what was measured until now; None if nothing was.

        :param missed: bytes by which the copy has grown
        :param guests: how many have come
        """
        read = self.read()
        if not self._pid or not guests:
            return None
        return Measurement(read if self._counts_base else read + missed, missed, guests)
