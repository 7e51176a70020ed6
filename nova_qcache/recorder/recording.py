# SPDX-License-Identifier: Apache-2.0
"""A recording, from the opening of its file until it is sealed or dropped, and its counters.

An audit begins with a copy of the cache that it audits, and is sealed only if that has missed
much. Whatever becomes of it, the audited cache stays READY until another one has taken its place.
"""

import asyncio
import contextlib
import dataclasses
import logging
import pathlib
import time

from nova_qcache import exception
from nova_qcache.bases.generation import Generations
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.leases import Leases
from nova_qcache.cache.space import SpaceUsage
from nova_qcache.model.key import CacheKey
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.source import Source
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from nova_qcache.qemu import block_graph
from nova_qcache.qemu.img import QemuImg
from nova_qcache.recorder import opener
from nova_qcache.recorder import quota
from nova_qcache.recorder import sealer
from nova_qcache.recorder.audit import Audit
from nova_qcache.recorder.audit import PATIENCE_SECONDS
from nova_qcache.recorder.daemon import ServingDaemon
from nova_qcache.recorder.finish import FinishPoint
from nova_qcache.recorder.settings import Settings
from nova_qcache.stats.counters import Counters

__all__ = ['Recording']

LOG = logging.getLogger(__name__)

_LOCK_SECONDS = 60


class Recording:
    """Either :meth:`prepare` and :meth:`record`, or :meth:`resume` or :meth:`look_back`; then
    :meth:`end`, :meth:`drop` or :meth:`forget` while it is open."""

    def __init__(
        self,
        key: CacheKey,
        source: Source,
        catalog: Catalog,
        qemu_img: QemuImg,
        settings: Settings,
    ) -> None:
        self._key = key
        self._source = source
        self._catalog = catalog
        self._qemu_img = qemu_img
        self.settings = settings
        self._path = catalog.paths.recording(key)
        self._space = SpaceUsage(catalog, Leases(catalog.paths.reservations, 0))
        self._record: CacheRecord | None = None
        self._audit: Audit | None = None
        self.finish = FinishPoint(settings.limits, time.monotonic(), 0)

    @property
    def is_open(self) -> bool:
        return self._record is not None and self._record.state is State.RECORDING

    @property
    def threshold(self) -> int:
        """The length of the file in bytes at which it is sealed."""
        return quota.threshold(self.settings.quota, self.settings.cluster_size)

    # -- beginning

    def prepare(self) -> None:
        """Clear away what a killed recorder has left, and see what is to be recorded.

        :raises WrongState: if there is a sealed cache, or none to audit
        :raises RecordBroken: if nobody can say what there is
        :raises CacheBroken: if the cache to audit is not fit
        """
        if opener.require_cold_or_dirty(self._catalog, self._key):
            self._count(self._dropped(0))
        self._catalog.discard_recording(self._key)
        if self.settings.audit:
            audited = opener.require_audited(self._catalog, self._key)
            self._audit = Audit(audited, self._source)
            # One that was raised since lets the cache grow.
            self._fit(max(audited.quota, self.settings.quota), audited)

    async def record(self, daemon: ServingDaemon) -> str:
        """Make the file and let a daemon record into it; a caller discards both if that fails.

        :return: what is to be said of it
        :raises QcacheError, OSError: if it cannot be
        """
        means = (self._catalog, self._qemu_img, self._source, self._key)
        if self._audit is None:
            record = await asyncio.to_thread(opener.open_recording, *means, self.settings)
        else:
            record = await asyncio.to_thread(
                opener.open_copy, *means, self._audit.audited, self.settings.quota
            )
        self._record = record
        patience = PATIENCE_SECONDS if self._audit else None
        self.finish = FinishPoint(
            self.settings.limits, time.monotonic(), self._path.stat().st_size, patience
        )
        await daemon.record(self._source, self._path, self.threshold)
        if self._audit is None:
            return f'into {self._path}'
        self._audit.begin(daemon.pid)
        return f'into a copy of revision {self._audit.audited.key.revision}'

    async def resume(self, daemon: ServingDaemon) -> tuple[FinishReason | None, str]:
        """Go on where a killed recorder stopped, with its daemon, if that is possible: then it is
        open.

        :return: why to end it at once, if so, and what is to be said
        :raises RecordBroken: if nobody can say what there is
        """
        self._record = record = self._catalog.load(self._key)
        self.finish = FinishPoint(self.settings.limits, time.monotonic(), 0)
        nodes = await daemon.node_names()
        if self.settings.audit:
            self._find_audited()
        if record is None or not self.is_open:
            if block_graph.RECORDING_NODE in nodes:
                return None, await self.drop(daemon, 'its record is gone')
            if record is not None and record.state is State.READY and self._audit is not None:
                # It was killed right after the seal.
                await asyncio.to_thread(self._take_over, record)
            return None, 'adopted'
        if self.settings.audit:
            # What its guests had read until then has been counted by nobody.
            return None, await self.drop(daemon, 'its audit was interrupted')
        if block_graph.CACHE_FILE_NODE not in nodes:
            return None, await self.forget('adopted; it does not record')
        self._fit(record.quota, record)
        if block_graph.RECORDING_NODE not in nodes or self.length() >= self.threshold:
            # Killed while it sealed, or the event of the threshold has come and gone unheard.
            return FinishReason.QUOTA, 'adopted'
        return None, 'adopted'

    def load_for_guests(self) -> None:
        """Find out what waiting guests can read after their recorder and daemon have died."""
        self.finish = FinishPoint(self.settings.limits, time.monotonic(), 0)
        try:
            self._record = self._catalog.load(self._key)
        except exception.RecordBroken as e:
            LOG.warning('%s', e)

    def _fit(self, its_quota: int, record: CacheRecord) -> None:
        self.settings = dataclasses.replace(
            self.settings,
            quota=its_quota,
            cluster_size=record.cluster_size,
            extended_l2=record.extended_l2,
        )

    def _find_audited(self) -> None:
        with contextlib.suppress(exception.QcacheError):
            self._audit = Audit(opener.require_audited(self._catalog, self._key), self._source)

    # -- while it is open

    def length(self) -> int:
        """Return the length of the file in bytes; 0 if it cannot be seen for now."""
        try:
            return self._path.stat().st_size
        except OSError:  # removed, or closed to us: it says nothing
            return 0

    def observe(self, now: float, guests: int) -> None:
        length = self.length() if self.is_open else 0
        read = self._audit.read() if self.is_open and self._audit is not None else 0
        self.finish.observe(now, length, guests, read)

    # -- its end

    async def end(self, daemon: ServingDaemon, reason: FinishReason) -> str:
        """Seal it; an audit only if that is worth it. Guests go on in any case.

        :return: what is to be said of it
        """
        if self._audit is None:
            recorded = Counters(
                recordings=1,
                recorded_bytes=self.finish.recorded,
                recording_seconds=self.finish.seconds(time.monotonic()),
                boot_bytes=self.finish.recorded,
            )
            return await self._seal(daemon, reason, recorded)
        measured = self._audit.measure(self.finish.recorded, self.finish.came)
        if measured is None:
            return await self.drop(daemon, 'nothing was measured')
        await asyncio.to_thread(self._count, measured.counters())
        said = f'the cache missed {measured.missed} bytes of {measured.read}'
        LOG.info('Audit of image %s ended: %s', self._key.image_id, said)
        if not measured.is_above(self.settings.rerecord_miss_percent):
            return await self.drop(daemon, said)
        if not self._is_ready(self._audit.audited):
            # Whatever speaks against that cache may speak against its copy.
            return await self.drop(daemon, 'the audited cache is no longer used')
        said_of_seal = await self._seal(daemon, reason, Counters(recordings=1))
        if self._record is not None and self._record.key == self._key:
            await asyncio.to_thread(self._take_over, self._record)
        return f'{said_of_seal}; {said}'

    async def drop(self, daemon: ServingDaemon, why: str) -> str:
        """Drop the recording: stop writing and go on serving. An open file outlives its name: the
        guests of an audit get the cache itself, so that the space of the copy is free again."""
        if daemon.ended.is_set():
            return await self.forget(why)
        played = await self._stop_writing(daemon)
        if await self._still_records(daemon):
            # Its file keeps its name, or the pool would not see the space that it takes.
            return f'given up, and kept until its daemon ends: {why}'
        await self.discard()
        if played is not None and self._record is None:
            self._record = played  # what is served if the daemon ends
        return f'dropped: {why}'

    async def forget(self, why: str) -> str:
        """Drop the recording after the end of its daemon: nobody writes any more, and what it
        recorded is dirty.

        :return: what is to be said of it
        """
        if not self.is_open:
            return why
        played = self._audit.audited if self._audit is not None else None
        await self.discard()
        if played is not None and self._record is None:
            self._record = played
        return f'dropped: {why}'

    async def discard(self) -> None:
        growth = self.finish.recorded
        try:
            await asyncio.to_thread(self._catalog.discard_recording, self._key)
        except (exception.QcacheError, OSError) as e:  # it is tried again at the end
            LOG.warning(
                'Failed to remove the dropped recording of image %s; trying again later: %s',
                self._key.image_id,
                e,
            )
        else:
            was_open, self._record = self.is_open, None
            if was_open:
                await asyncio.to_thread(self._count, self._dropped(growth))
            with contextlib.suppress(OSError):  # it ends by time as well
                self._space.release(self._key)  # nothing more is going to be taken

    def playable(self) -> pathlib.Path | None:
        """Return the sealed cache that guests can read once their daemon is gone, None if that is
        nothing but the base. Writes nothing."""
        record = self._record
        if self.is_open:
            record = self._audit.audited if self._audit is not None else None
        if record is None or record.state is not State.READY:
            return None
        try:
            return self._catalog.require_unchanged(record)
        except exception.CacheBroken as e:
            LOG.warning('%s', e)
            return None

    async def _seal(self, daemon: ServingDaemon, reason: FinishReason, counted: Counters) -> str:
        assert self._record is not None
        try:
            await daemon.seal(self._path)
            # READY is a promise about a generation that no power loss takes back.
            generations = Generations(self._catalog.paths, _LOCK_SECONDS)
            await asyncio.to_thread(generations.settled, self._source)
            self._record = await sealer.seal(self._catalog, self._qemu_img, self._record, reason)
        except (exception.QcacheError, OSError) as e:
            LOG.warning(
                'Failed to seal the recording of image %s; dropping it: %s', self._key.image_id, e
            )
            # What to do about a cache is not what to do about one that is dropped.
            problem = e.problem_and_remedy()[0] if isinstance(e, exception.QcacheError) else e
            return await self.drop(daemon, f'sealing failed: {problem}')
        await asyncio.to_thread(self._count, counted)
        return f'sealed: {reason.value}'

    async def _stop_writing(self, daemon: ServingDaemon) -> CacheRecord | None:
        """Return the cache that guests read from now on, if it is not what was recorded."""
        if self._audit is not None:
            audited = self._audit.audited
            try:
                path = self._catalog.require_unchanged(audited)
                await daemon.replace(path)
                return audited
            except exception.QcacheError as e:
                LOG.warning(
                    'Failed to give the guests of audit %s the sealed cache; they keep its copy:'
                    ' %s',
                    self._key.stem,
                    e,
                )
        try:
            await daemon.seal(self._path)
        except exception.QcacheError as e:
            LOG.warning(
                'Failed to stop writing the dropped recording of image %s: %s',
                self._key.image_id,
                e,
            )
        return None

    async def _still_records(self, daemon: ServingDaemon) -> bool:
        try:
            return block_graph.RECORDING_NODE in await daemon.node_names()
        except exception.QcacheError:
            return not daemon.ended.is_set()

    def _take_over(self, record: CacheRecord) -> None:
        """A new revision is READY: it takes the place of the audited one."""
        assert self._audit is not None
        try:
            if self._is_ready(self._audit.audited):
                reason = f'it was recorded again as revision {record.key.revision}'
                self._catalog.retire(self._audit.audited, reason, Staleness.REVISION)
            else:
                # Found to be wrong while its copy was sealed: so is the copy.
                self._catalog.retire(record, 'the audited cache is no longer used')
        except (exception.QcacheError, OSError) as e:
            LOG.warning(
                'Failed to retire cache %s; it stays READY: %s', self._audit.audited.key.stem, e
            )

    def _is_ready(self, audited: CacheRecord) -> bool:
        try:
            now = self._catalog.load(audited.key)
        except exception.RecordBroken as e:
            LOG.warning('%s', e)
            return False
        return (
            now is not None and now.state is State.READY and now.created_at == audited.created_at
        )

    # -- what is counted

    def _dropped(self, growth: int) -> Counters:
        if self.settings.audit:  # an audit that ended early has measured nothing
            return Counters()
        return Counters(dropped_recordings=1, recorded_bytes=growth)

    def _count(self, counted: Counters) -> None:
        if counted != Counters():
            self._catalog.counter_store.add(self._key.image_id, counted)
