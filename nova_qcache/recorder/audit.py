# SPDX-License-Identifier: Apache-2.0
"""Audits: a recording on a copy of a READY cache, which measures what that cache still misses.

The growth of the copy is what the cache missed. The bytes that its daemon has read from files (the
copy, and the base where that is a file) are what guests read. That counts a little too much:
tables of the copy and signals between the daemon's threads, together below 1 % of a boot's; and a
missed cluster up to twice, where guests read it in smaller pieces, so that a share of 10 % may
show as 9 %. It leaves out what the cache knows to be zeros, which is read from no file.

The copy is sealed only if the cache has missed much. Whatever becomes of it, the audited cache
stays READY until another one has taken its place.
"""

import asyncio
from collections.abc import Collection
import contextlib
import dataclasses
import functools
import logging
import shutil
import time

from nova_qcache import exception
from nova_qcache.bases import probe
from nova_qcache.cache import sealed_file
from nova_qcache.cache.catalog import Catalog
from nova_qcache.model.key import CacheKey
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.source import Source
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from nova_qcache.qemu.img import QemuImg
from nova_qcache.recorder import opener
from nova_qcache.recorder.daemon import ServingDaemon
from nova_qcache.recorder.finish import FinishPoint
from nova_qcache.recorder.recording import Recording
from nova_qcache.stats.counters import Counters
from nova_qcache.system import processes

__all__ = [
    'PATIENCE_SECONDS',
    'AuditRecording',
    'Measurement',
    'ReadCounter',
    'open_copy',
    'require_audited',
]

LOG = logging.getLogger(__name__)

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


class ReadCounter:
    """Counts what the guests of a daemon read from their image."""

    def __init__(self, source: Source) -> None:
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


def require_audited(catalog: Catalog, key: CacheKey) -> CacheRecord:
    """Return the READY cache that an audit is about: the newest revision before its own.

    :raises WrongState: if there is none
    :raises RecordBroken: if a record cannot be read
    """
    before = [
        each
        for each in catalog.keys(key.image_id)
        if each.generation == key.generation and each.revision < key.revision
    ]
    for each in reversed(before):
        record = catalog.load(each)
        if record is not None and record.state is State.READY:
            return record
    raise exception.WrongState(
        image_id=key.image_id,
        state=State.COLD.value,
        wanted=State.RECORDING.value,
        remedy=f'There is no READY cache before revision {key.revision} that could be audited',
    )


def open_copy(
    catalog: Catalog,
    qemu_img: QemuImg,
    source: Source,
    key: CacheKey,
    audited: CacheRecord,
    its_quota: int,
) -> CacheRecord:
    """Make the RECORDING record and the file of an audit, a copy of a READY cache; a caller that
    fails later discards both.

    :param its_quota: bytes that the copy may take
    :raises InvalidBase: if no cache may stand on the base, or this one does not fit it
    :raises NoReservation: if the file system cannot keep the quota for it
    :raises CacheBroken: if the cache is not what was sealed
    :raises OSError: if it cannot be copied
    """
    original = catalog.require_unchanged(audited)
    virtual_size = probe.inspect(source, qemu_img)
    if virtual_size != audited.virtual_size:
        raise exception.InvalidBase(
            base=source.reference,
            reason=f'it has {virtual_size} bytes, and its cache is of {audited.virtual_size}',
            remedy=f'Revalidate the cache with `nova-qcache verify {key.image_id}`',
        )
    record = dataclasses.replace(
        audited,
        key=key,
        state=State.RECORDING,
        quota=its_quota,
        created_at=time.time(),
        sealed=None,
        is_audit=True,
    )
    catalog.begin(record)
    path = catalog.paths.recording(key)
    path.touch(0o600)
    opener.reserve(path, its_quota)
    # No reflink: the first write to a block that is shared takes another one, which nobody has
    # reserved.
    with open(original, 'rb') as source_file, open(path, 'r+b') as copy:
        shutil.copyfileobj(source_file, copy)
    if audited.sealed is None or sealed_file.digest(path) != audited.sealed.digest:
        raise exception.CacheBroken(
            path=str(original),
            reason='its digest differs from that of its seal',
            image_id=key.image_id,
        )
    return record


class AuditRecording(Recording):
    """A recording into a copy of the newest READY cache of the image."""

    _audited: CacheRecord | None = None

    @functools.cached_property
    def _reads(self) -> ReadCounter:
        return ReadCounter(self._source)

    def prepare(self) -> None:
        """:raises WrongState: also if there is no cache to audit
        :raises CacheBroken: if that one is not fit
        """
        super().prepare()
        self._audited = require_audited(self._catalog, self._key)
        # A quota that was raised since lets the cache grow.
        self._fit(max(self._audited.quota, self.settings.quota), self._audited)

    def _open(self) -> CacheRecord:
        assert self._audited is not None
        return open_copy(
            self._catalog,
            self._qemu_img,
            self._source,
            self._key,
            self._audited,
            self.settings.quota,
        )

    def _finish_point(self, empty_size: int) -> FinishPoint:
        return FinishPoint(self.settings.limits, time.monotonic(), empty_size, PATIENCE_SECONDS)

    async def record(self, daemon: ServingDaemon) -> str:
        assert self._audited is not None
        await super().record(daemon)
        self._reads.begin(daemon.pid)
        return f'into a copy of revision {self._audited.key.revision}'

    async def resume(self, daemon: ServingDaemon) -> tuple[FinishReason | None, str]:
        with contextlib.suppress(exception.QcacheError):
            self._audited = require_audited(self._catalog, self._key)
        return await super().resume(daemon)

    async def _resume_sealed(self, record: CacheRecord) -> None:
        if self._audited is not None:  # its recorder was killed right after the seal
            await asyncio.to_thread(self._take_over, self._audited, record)

    async def _resume_open(
        self, daemon: ServingDaemon, record: CacheRecord, nodes: Collection[str]
    ) -> tuple[FinishReason | None, str]:
        # What its guests had read until then has been counted by nobody.
        return None, await self.drop(daemon, 'its audit was interrupted')

    def _read(self) -> int:
        return self._reads.read() if self.is_open else 0

    async def end(self, daemon: ServingDaemon, reason: FinishReason) -> str:
        """Count what was measured, and seal the copy if that is worth it."""
        assert self._audited is not None
        measured = self._reads.measure(self.finish.recorded, self.finish.came)
        if measured is None:
            return await self.drop(daemon, 'nothing was measured')
        await asyncio.to_thread(self._count, measured.counters())
        said = f'the cache missed {measured.missed} bytes of {measured.read}'
        LOG.info('Audit of image %s ended: %s', self._key.image_id, said)
        if not measured.is_above(self.settings.rerecord_miss_percent):
            return await self.drop(daemon, said)
        if not self._is_ready(self._audited):
            # Whatever speaks against that cache may speak against its copy.
            return await self.drop(daemon, 'the audited cache is no longer used')
        said_of_seal = await self._seal(daemon, reason, Counters(recordings=1))
        if self._record is not None and self._record.key == self._key:
            await asyncio.to_thread(self._take_over, self._audited, self._record)
        return f'{said_of_seal}; {said}'

    def _instead(self) -> CacheRecord | None:
        return self._audited

    async def _stop_writing(self, daemon: ServingDaemon) -> CacheRecord | None:
        # An open file outlives its name: guests get the cache itself, so that the space of the
        # copy is free again.
        if self._audited is not None:
            try:
                await daemon.replace(self._catalog.require_unchanged(self._audited))
                return self._audited
            except exception.QcacheError as e:
                LOG.warning(
                    'Failed to give the guests of audit %s the sealed cache; they keep its copy:'
                    ' %s',
                    self._key.stem,
                    e,
                )
        return await super()._stop_writing(daemon)

    def _take_over(self, audited: CacheRecord, record: CacheRecord) -> None:
        """A new revision is READY: it takes the place of the audited one."""
        try:
            if self._is_ready(audited):
                reason = f'it was recorded again as revision {record.key.revision}'
                self._catalog.retire(audited, reason, Staleness.REVISION)
            else:
                # Found to be wrong while its copy was sealed: so is the copy.
                self._catalog.retire(record, 'the audited cache is no longer used')
        except (exception.QcacheError, OSError) as e:
            LOG.warning('Failed to retire cache %s; it stays READY: %s', audited.key.stem, e)

    def _is_ready(self, audited: CacheRecord) -> bool:
        try:
            now = self._catalog.load(audited.key)
        except exception.RecordBroken as e:
            LOG.warning('%s', e)
            return False
        return (
            now is not None and now.state is State.READY and now.created_at == audited.created_at
        )

    def _dropped(self, growth: int) -> Counters:
        return Counters()  # an audit that ended early has measured nothing
