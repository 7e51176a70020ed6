# SPDX-License-Identifier: Apache-2.0
"""A recording, from the opening of its file until it is sealed or dropped, and its counters."""

import asyncio
from collections.abc import Collection
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
from nova_qcache.model.states import State
from nova_qcache.qemu import block_graph
from nova_qcache.qemu.img import QemuImg
from nova_qcache.recorder import opener
from nova_qcache.recorder import quota
from nova_qcache.recorder import sealer
from nova_qcache.recorder.daemon import ServingDaemon
from nova_qcache.recorder.finish import FinishPoint
from nova_qcache.recorder.settings import Settings
from nova_qcache.stats.counters import Counters

__all__ = ['Recording']

LOG = logging.getLogger(__name__)

_LOCK_SECONDS = 60


class Recording:
    """Either :meth:`prepare` and :meth:`record`, or :meth:`resume` or
    :meth:`load_for_guests`; then
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

        :raises WrongState: if there is a sealed cache
        :raises RecordBroken: if its record cannot be read
        """
        if opener.require_cold_or_dirty(self._catalog, self._key):
            self._count(self._dropped(0))
        self._catalog.discard_recording(self._key)

    async def record(self, daemon: ServingDaemon) -> str:
        """Make the file and let a daemon record into it; a caller discards both if that fails.

        :return: what is to be said of it
        :raises QcacheError, OSError: if it cannot be
        """
        self._record = await asyncio.to_thread(self._open)
        self.finish = self._finish_point(self._path.stat().st_size)
        await daemon.record(self._source, self._path, self.threshold)
        return f'into {self._path}'

    def _open(self) -> CacheRecord:
        return opener.open_recording(
            self._catalog, self._qemu_img, self._source, self._key, self.settings
        )

    def _finish_point(self, empty_size: int) -> FinishPoint:
        return FinishPoint(self.settings.limits, time.monotonic(), empty_size)

    async def resume(self, daemon: ServingDaemon) -> tuple[FinishReason | None, str]:
        """Go on where a killed recorder stopped, with its daemon, if that is possible: then it is
        open.

        :return: why to end it at once, if so, and what is to be said
        :raises RecordBroken: if its record cannot be read
        """
        self._record = record = self._catalog.load(self._key)
        self.finish = FinishPoint(self.settings.limits, time.monotonic(), 0)
        nodes = await daemon.node_names()
        if record is None or not self.is_open:
            if block_graph.RECORDING_NODE in nodes:
                return None, await self.drop(daemon, 'its record is gone')
            if record is not None and record.state is State.READY:
                await self._resume_sealed(record)
            return None, 'adopted'
        return await self._resume_open(daemon, record, nodes)

    async def _resume_sealed(self, record: CacheRecord) -> None:
        """Finish what follows a seal."""

    async def _resume_open(
        self, daemon: ServingDaemon, record: CacheRecord, nodes: Collection[str]
    ) -> tuple[FinishReason | None, str]:
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

    # -- while it is open

    def length(self) -> int:
        """Return the length of the file in bytes; 0 if it cannot be seen for now."""
        try:
            return self._path.stat().st_size
        except OSError:  # removed, or closed to us: it says nothing
            return 0

    def observe(self, now: float, guests: int) -> None:
        length = self.length() if self.is_open else 0
        self.finish.observe(now, length, guests, self._read())

    def _read(self) -> int:
        """Return the bytes that guests have read so far, where that is measured."""
        return 0

    # -- its end

    async def end(self, daemon: ServingDaemon, reason: FinishReason) -> str:
        """Seal it, or drop it where that fails. Guests go on in any case.

        :return: what is to be said of it
        """
        recorded = Counters(
            recordings=1,
            recorded_bytes=self.finish.recorded,
            recording_seconds=self.finish.seconds(time.monotonic()),
            boot_bytes=self.finish.recorded,
        )
        return await self._seal(daemon, reason, recorded)

    async def drop(self, daemon: ServingDaemon, why: str) -> str:
        """Drop the recording: stop writing and go on serving."""
        if daemon.ended.is_set():
            return await self.forget(why)
        instead = await self._stop_writing(daemon)
        if await self._still_records(daemon):
            # Its file keeps its name, or the pool would not see the space that it takes.
            return f'given up, and kept until its daemon ends: {why}'
        await self._discard(instead)
        return f'dropped: {why}'

    async def forget(self, why: str) -> str:
        """Drop the recording after the end of its daemon: nobody writes any more, and what it
        recorded is dirty.

        :return: what is to be said of it
        """
        if not self.is_open:
            return why
        await self._discard(self._instead())
        return f'dropped: {why}'

    async def _discard(self, instead: CacheRecord | None) -> None:
        await self.discard()
        if self._record is None:
            self._record = instead  # what is served if the daemon ends

    def _instead(self) -> CacheRecord | None:
        """Return the cache that guests can read in place of a recording that is dropped."""
        return None

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
        record = self._instead() if self.is_open else self._record
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
        try:
            await daemon.seal(self._path)
        except exception.QcacheError as e:
            LOG.warning(
                'Failed to stop writing the dropped recording of image %s; its file stays until'
                ' the daemon ends: %s',
                self._key.image_id,
                e,
            )
        return None

    async def _still_records(self, daemon: ServingDaemon) -> bool:
        try:
            return block_graph.RECORDING_NODE in await daemon.node_names()
        except exception.QcacheError:
            return not daemon.ended.is_set()

    # -- what is counted

    def _dropped(self, growth: int) -> Counters:
        return Counters(dropped_recordings=1, recorded_bytes=growth)

    def _count(self, counted: Counters) -> None:
        if counted != Counters():
            self._catalog.counter_store.add(self._key.image_id, counted)
