# SPDX-License-Identifier: Apache-2.0
"""The recorder process: STARTING - RECORDING - SEALING - SERVING - LEAVING.

Whatever fails while it records costs the recording, never a guest: the recording is dropped and
the guests are served on. What it holds (lock, daemon, control server) it gives back in reverse
order. While guests are connected it never ends its daemon, not even when it is told to end or
fails itself: the next recorder of the image adopts it.
"""

import asyncio
from collections.abc import Coroutine, Mapping
import contextlib
import logging
import os
import signal
import time
from typing import Any, TypeVar

from nova_qcache import exception
from nova_qcache.bases import probe
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.leases import Leases
from nova_qcache.model.key import CacheKey
from nova_qcache.model.source import Source
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import Phase
from nova_qcache.qemu import block_graph
from nova_qcache.qemu.img import QemuImg
from nova_qcache.qemu.io import QemuIo
from nova_qcache.recorder import respawn
from nova_qcache.recorder.audit import AuditRecording
from nova_qcache.recorder.control_server import ControlServer
from nova_qcache.recorder.daemon import ServingDaemon
from nova_qcache.recorder.finish import FinishPoint
from nova_qcache.recorder.finish import NextStep
from nova_qcache.recorder.recording import Recording
from nova_qcache.recorder.settings import Settings
from nova_qcache.recorder.unreadable import Unreadable
from nova_qcache.system import locks
from nova_qcache.system import processes

__all__ = ['Recorder']

LOG = logging.getLogger(__name__)

_T = TypeVar('_T')

_MOST_RESTARTS = 3
_STEADY_SECONDS = 10
"""Time after which a daemon counts as started well: restarts are counted from 0 then."""
_FAREWELL_SECONDS = 2
"""Time for guests that are about to go when the recorder is told to end: nobody would end their
daemon."""
_BY_SILENCE = (FinishReason.IDLE, FinishReason.LAST_GUEST)
"""Reasons to seal that look the same when the base is away."""


class Recorder:
    """One run of the recorder of one cache, by :meth:`run`."""

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
        self._paths = catalog.paths
        self._qemu_img = qemu_img
        self._settings = settings
        self._phase = Phase.STARTING
        self._note = ''
        kind = AuditRecording if settings.audit else Recording
        self._recording = kind(key, source, catalog, qemu_img, settings)
        self._unreadable = Unreadable(source, qemu_img, QemuIo(settings.qemu_io), key.image_id)
        self._wanted: FinishReason | NextStep | None = None
        self._commanded_at: float | None = None
        self._wake = asyncio.Event()
        self._restarts = 0
        self._served_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching_base: asyncio.Task[None] | None = None
        commands = {
            'status': self._status,
            'expect-guest': self._expect_guest,
            'claim': self._claim,
            'hold': self._hold,
            'seal': lambda: self._ask_for(FinishReason.OPERATOR),
            'drop': lambda: self._ask_for(NextStep.DROP),
            'leave': self._leave_unless_leased,
            'dismiss': self._leave_soon,
        }

        async def answer(command: str, request: Mapping[str, Any]) -> dict[str, Any]:
            return commands[command]()

        self._control_server = ControlServer(self._paths.control_socket(key), commands, answer)
        self._daemon: ServingDaemon

    @property
    def _finish(self) -> FinishPoint:
        return self._recording.finish

    async def run(self) -> None:
        """Serve and record until nobody needs it.

        :raises RecorderBusy: if another recorder of this cache is alive
        :raises QcacheError: if it cannot start; nothing is left behind then
        """
        self._paths.require_short_sockets(self._key)
        with locks.recorder(self._paths.locks, self._key):
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._told)
            await self._start()
            try:
                self._watch_base()
                await self._control_server.open()
                await self._work()
            finally:
                await self._end()

    # -- start

    async def _start(self) -> None:
        adopted = await ServingDaemon.adopt(self._paths, self._key)
        # That of a recorder which was killed: its guests wait, whatever becomes of this start.
        is_missed = respawn.read(self._paths, self._key) is not None
        respawn.note(self._paths, self._key, self._settings.arguments)
        if adopted is not None:
            self._daemon = adopted
            await self._resume()
        elif self._settings.serve_only:
            self._recording.load_for_guests()
            await self._serve()
            self._enter(Phase.SERVING, await self._recording.forget('its daemon had died'))
        else:
            with contextlib.ExitStack() as undo:
                if not is_missed:
                    undo.callback(respawn.forget, self._paths, self._key)
                await self._start_recording()
                undo.pop_all()

    async def _start_recording(self) -> None:
        """Start from nothing; a recording of a former run is dirty, since nothing of it lives."""
        await asyncio.to_thread(self._recording.prepare)
        async with contextlib.AsyncExitStack() as undo:
            self._daemon = ServingDaemon.start(self._paths, self._key, self._recording.settings)
            undo.push_async_callback(self._daemon.stop)
            undo.push_async_callback(asyncio.to_thread, self._catalog.discard_recording, self._key)
            self._watch_threshold()
            note = await self._recording.record(self._daemon)
            undo.pop_all()
        self._enter(Phase.RECORDING, note)

    async def _serve(self) -> None:
        """Serve the guests that a dead daemon left behind: before anything is written to a disk,
        since that may take longer than they wait.

        If that fails now, the respawn spec stays: the keeper tries again.
        """
        path = self._recording.playable()
        nodes = (
            block_graph.plain(self._source)
            if path is None
            else block_graph.playing(self._source, path)
        )
        self._daemon = await ServingDaemon.serve(
            self._paths, self._key, self._settings.storage_daemon, nodes
        )
        self._served_at = time.monotonic()

    async def _resume(self) -> None:
        """Go on where a killed recorder stopped, with its daemon."""
        self._wanted, note = await self._recording.resume(self._daemon)
        self._enter(Phase.RECORDING if self._recording.is_open else Phase.SERVING, note)
        if self._recording.is_open:
            self._watch_threshold()

    # -- work

    async def _work(self) -> None:
        while self._phase is not Phase.LEAVING:
            await self._wait()
            if self._daemon.ended.is_set():
                await self._replace_daemon()
            self._observe()
            if self._commanded_at is not None:
                if not self._finish.guests:
                    self._finish.expect_nobody()
                elif time.monotonic() - self._commanded_at >= _FAREWELL_SECONDS:
                    self._enter(Phase.LEAVING, 'told to end')
                    return
            if self._phase is Phase.RECORDING:
                next_step = self._wanted or self._finish.while_recording(time.monotonic())
                if next_step in _BY_SILENCE and not await self._base_answers():
                    self._finish.note_outage(time.monotonic())
                else:
                    await self._act(next_step)
            elif self._finish.while_serving(time.monotonic()) is NextStep.LEAVE:
                self._enter(Phase.LEAVING, 'nobody needs it')

    async def _wait(self) -> None:
        """Wait until somebody wants something, the daemon ends, or it is time to look around."""
        waits = [asyncio.ensure_future(each.wait()) for each in (self._wake, self._daemon.ended)]
        await asyncio.wait(waits, timeout=self._tick, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        self._wake.clear()

    async def _await_while_serving(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return what comes of work that waits for a disk or the base, and see to the guests until
        then: their daemon may die."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                ending = asyncio.ensure_future(self._daemon.ended.wait())
                await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
                ending.cancel()
                if not task.done():
                    await self._replace_daemon()
        finally:
            await asyncio.wait({task})
        return task.result()

    async def _base_answers(self) -> bool:
        return await self._await_while_serving(
            asyncio.to_thread(probe.answers, self._source, self._qemu_img)
        )

    @property
    def _tick(self) -> float:
        limits = self._settings.limits
        return min(1.0, limits.idle / 8, limits.settle / 4, max(limits.grace, 0.4) / 4)

    def _observe(self) -> None:
        self._recording.observe(
            time.monotonic(), processes.connections(self._paths.nbd_socket(self._key))
        )

    async def _act(self, next_step: FinishReason | NextStep) -> None:
        if next_step is NextStep.GO_ON or not self._recording.is_open:
            return
        self._wanted = None
        if isinstance(next_step, FinishReason):
            self._enter(Phase.SEALING, next_step.value)
            note = await self._await_while_serving(self._recording.end(self._daemon, next_step))
            self._enter(Phase.SERVING, note)
        else:
            why = 'it was not worth keeping'
            self._enter(Phase.SEALING, why)
            note = await self._await_while_serving(self._recording.drop(self._daemon, why))
            self._enter(Phase.SERVING, note)

    async def _replace_daemon(self) -> None:
        """The daemon is gone under its guests: serve them again, without recording."""
        if time.monotonic() - self._served_at >= _STEADY_SECONDS:
            self._restarts = 0
        self._restarts += 1
        if self._restarts > _MOST_RESTARTS:
            raise exception.RecorderFailed(
                image_id=self._key.image_id,
                reason=f'its qemu-storage-daemon ended {self._restarts} times',
            )
        await self._daemon.stop()
        await self._serve()
        self._watch_base()
        if self._finish.came:
            # One that is paused now makes another connection only when it goes on.
            self._finish.hold(time.monotonic())
        LOG.error(
            'The qemu-storage-daemon of image %s ended unexpectedly; another one, process %d, now'
            ' serves its guests',
            self._key.image_id,
            self._daemon.pid,
        )
        if self._recording.is_open and self._phase is not Phase.SEALING:
            why = 'its daemon ended'
            self._enter(Phase.SERVING, why)
            self._enter(
                Phase.SERVING, await self._await_while_serving(self._recording.forget(why))
            )

    def _watch_threshold(self) -> None:
        async def watch() -> None:
            async for _ in self._daemon.monitor.events('BLOCK_WRITE_THRESHOLD'):
                self._ask_for(FinishReason.QUOTA)

        self._tasks.add(asyncio.create_task(watch()))

    def _watch_base(self) -> None:
        """Watch for reads of the daemon that fail, in place of those of the one before."""
        if self._watching_base is not None:
            self._watching_base.cancel()
        self._watching_base = asyncio.create_task(
            # Whoever was cut off comes back: at once, or when it goes on after a pause.
            self._unreadable.watch(self._daemon, lambda: self._finish.hold(time.monotonic()))
        )

    # -- end

    async def _end(self) -> None:
        await self._control_server.close()
        for task in (*self._tasks, self._watching_base):
            if task is not None:
                task.cancel()
        if processes.connections(self._paths.nbd_socket(self._key)):
            LOG.warning(
                'The recorder ends before the guests of image %s; qemu-storage-daemon %d goes on'
                ' serving them',
                self._key.image_id,
                self._daemon.pid,
            )
            await self._daemon.leave()
            return  # and its respawn spec stays: somebody is to adopt the daemon
        if self._recording.is_open:
            await self._recording.discard()
        await self._daemon.stop()
        if self._phase is Phase.LEAVING:
            respawn.forget(self._paths, self._key)

    # -- what others say

    def _enter(self, phase: Phase, note: str) -> None:
        self._phase = phase
        self._note = note
        LOG.info('Recorder for image %s is %s now (%s)', self._key.image_id, phase.value, note)

    def _told(self) -> None:
        self._commanded_at = time.monotonic()
        self._wake.set()

    def _ask_for(self, wanted: FinishReason | NextStep) -> dict[str, Any]:
        if self._phase in (Phase.STARTING, Phase.RECORDING):
            self._wanted = wanted
            self._wake.set()
        return self._status()

    def _expect_guest(self) -> dict[str, Any]:
        self._finish.expect_guest(time.monotonic())
        return self._status()

    def _claim(self) -> dict[str, Any]:
        now = time.monotonic()
        waits = self._phase is Phase.RECORDING and self._finish.is_awaiting(now)
        waits = waits and not self._unreadable.count  # as Status.refusal
        if waits:
            self._finish.expect_guest(now)
        return {**self._status(), 'claimed': waits}

    def _hold(self) -> dict[str, Any]:
        self._finish.hold(time.monotonic())
        return self._status()

    def _leave_unless_leased(self) -> dict[str, Any]:
        leases = Leases(self._paths.leases, 0).active()
        if any(lease.key == self._key for lease in leases):
            return self._status()
        return self._leave_soon()

    def _leave_soon(self) -> dict[str, Any]:
        self._finish.expect_nobody()
        self._wake.set()
        return self._status()

    def _status(self) -> dict[str, Any]:
        return {
            'phase': self._phase.value,
            'note': self._note,
            'guests': processes.connections(self._paths.nbd_socket(self._key)),
            'recorded_bytes': self._finish.recorded,
            'unreadable_blocks': self._unreadable.count,
            'pid': os.getpid(),
            'daemon_pid': self._daemon.pid,
        }
