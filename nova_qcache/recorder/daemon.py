# SPDX-License-Identifier: Apache-2.0
"""The qemu-storage-daemon of one cache: start, adoption, block graph and end.

Lifecycle of :class:`ServingDaemon`: ``start`` and then ``record`` once, or ``serve``, or
``adopt``, to which ``stop`` is the counterpart; ``seal`` and ``replace`` turn recording into
playing under connected guests.
"""

import asyncio
from collections.abc import Collection
import contextlib
import logging
import pathlib
from typing import BinaryIO

from nova_qcache import exception
from nova_qcache.model.key import CacheKey
from nova_qcache.model.source import Node
from nova_qcache.model.source import Source
from nova_qcache.qemu import block_graph
from nova_qcache.qemu import img
from nova_qcache.qemu.qmp import Monitor
from nova_qcache.qemu.storage_daemon import StorageDaemon
from nova_qcache.recorder import quota
from nova_qcache.recorder.settings import Settings
from nova_qcache.system import processes
from nova_qcache.system.paths import Paths

__all__ = ['ServingDaemon']

LOG = logging.getLogger(__name__)

_LONG_COMMAND_SECONDS = 30


class ServingDaemon:
    def __init__(
        self, paths: Paths, key: CacheKey, daemon: StorageDaemon, program: str = ''
    ) -> None:
        self._paths = paths
        self._key = key
        self._daemon = daemon
        self._program = program
        self.monitor = Monitor(paths.qmp_socket(key))
        self.ended = asyncio.Event()
        """Set when the process has ended, for whatever reason."""
        self._is_forgotten = False
        self._changing = asyncio.Lock()
        """Lock of changes to the nodes that are served."""
        self._refused: set[int] | None = None
        """None: not known to this process."""
        asyncio.get_running_loop().add_reader(daemon.process.fd, self._note_end)

    @classmethod
    def start(cls, paths: Paths, key: CacheKey, settings: Settings) -> 'ServingDaemon':
        """Start a new daemon. The caller holds the recorder's lock and knows that no old one
        lives."""
        daemon = StorageDaemon.start(
            settings.storage_daemon,
            paths.qmp_socket(key),
            paths.log(key),
            quota.write_limit(settings.quota, settings.cluster_size),
            quota.file_limit(settings.quota),
        )
        return cls(paths, key, daemon, settings.storage_daemon)

    @classmethod
    async def serve(
        cls, paths: Paths, key: CacheKey, program: str, nodes: list[Node]
    ) -> 'ServingDaemon':
        """Start a new daemon that serves these nodes, and records nothing; otherwise as
        :meth:`start`.

        Guests of a dead one wait for it. It has all it needs on its command line, so that it
        serves them also if this recorder is killed now.

        :raises ToolFailed: if it cannot serve them
        """
        socket = paths.nbd_socket(key)
        daemon = StorageDaemon.start(
            program,
            paths.qmp_socket(key),
            paths.log(key),
            options=block_graph.served(nodes, socket),
        )
        self = cls(paths, key, daemon, program)
        try:
            await self._connect()
            paths.share(socket)
        except BaseException:
            await self.stop()
            raise
        return self

    @classmethod
    async def adopt(cls, paths: Paths, key: CacheKey) -> 'ServingDaemon | None':
        """Take over the daemon that a killed recorder left behind, if there is one.

        A daemon that does not answer is alive: nobody may start a second one beside it.

        :raises RecorderFailed: if the sockets are somebody else's
        :raises DeadlinePassed: if a living daemon stays silent
        """
        pid = await asyncio.to_thread(StorageDaemon.find, paths.qmp_socket(key))
        if pid is None:
            if processes.listener_pid(paths.nbd_socket(key)) is not None:
                raise exception.RecorderFailed(
                    image_id=key.image_id,
                    reason=f'another process listens on {str(paths.nbd_socket(key))!r}',
                )
            return None
        try:
            self = cls(paths, key, StorageDaemon.adopt(pid))
        except ProcessLookupError:
            return None
        if not await self._reach():
            await self.stop()
            return None
        if await self.monitor.execute('query-block-exports'):
            with contextlib.suppress(exception.QcacheError, OSError):  # or it was done before
                paths.share(paths.nbd_socket(key))
            LOG.warning(
                'Adopted qemu-storage-daemon %d of image %s, whose recorder died',
                pid,
                key.image_id,
            )
            return self
        await self.stop()  # its recorder was killed before anybody could connect
        return None

    @property
    def pid(self) -> int:
        return self._daemon.pid

    async def node_names(self) -> set[str]:
        nodes = await self.monitor.execute('query-named-block-nodes', {'flat': True})
        return {node['node-name'] for node in nodes}

    async def record(self, source: Source, path: pathlib.Path, threshold: int) -> None:
        """Serve a base, recording into the cache file.

        :param threshold: length of the file in bytes that raises the event
            ``BLOCK_WRITE_THRESHOLD``
        """
        await self._add(block_graph.recording(source, path))
        await self.monitor.execute(
            'block-set-write-threshold',
            {'node-name': block_graph.CACHE_FILE_NODE, 'write-threshold': threshold},
        )
        await self._export()

    async def seal(self, path: pathlib.Path) -> None:
        """End the writing under the connected guests; may be called again after an interruption.

        The commands drain reads in flight, so this takes as long as the base takes to answer them.
        """
        await self._end_writing(block_graph.sealing(path))

    async def replace(self, path: pathlib.Path) -> None:
        """End the writing under the connected guests, and let them read a sealed cache in place of
        what was recorded; the rest as :meth:`seal`."""
        await self._end_writing(block_graph.replacing(path))

    async def refuse(self, sectors: Collection[int]) -> None:
        """Make reads of these sectors (of 512 bytes) fail from now on, and no others; connected
        guests stay connected.

        :raises ToolFailed: if the daemon does not do so, or has ended
        """
        async with self._changing:
            names = await self.node_names()
            if set(sectors) == self._refused and block_graph.is_refusing(names):
                return
            self._refused = None
            for command, arguments in block_graph.refusing(names, sectors):
                await self.monitor.execute(command, arguments)
            self._refused = set(sectors)

    async def write_tables(self) -> None:
        """Write all that is recorded by now to the file; connected guests stay connected.

        As :meth:`seal`, this takes as long as the base takes to answer reads in flight.

        :raises ToolFailed: if the daemon cannot, or has ended
        """
        async with self._changing:
            for command, arguments in block_graph.writing_tables(await self.node_names()):
                await self.monitor.execute(command, arguments)

    async def cache_files(self) -> list[BinaryIO]:
        """Open the files of caches that the daemon has open, removed ones too. The caller closes
        them.

        :raises OSError: if it has ended
        """
        async with self._changing:  # none is closed for another one meanwhile
            suffixes = [
                path(self._key).suffix for path in (self._paths.recording, self._paths.sealed)
            ]
            return await asyncio.to_thread(
                processes.open_files, self.pid, self._paths.cache_path, suffixes
            )

    async def _end_writing(self, commands: list[block_graph.Command]) -> None:
        async with self._changing:
            for command, arguments in commands:
                is_there = arguments.get('node-name') in await self.node_names()
                if (command, is_there) in (('blockdev-del', False), ('blockdev-add', True)):
                    continue
                pending = asyncio.ensure_future(self.monitor.execute(command, arguments))
                while not (await asyncio.wait([pending], timeout=_LONG_COMMAND_SECONDS))[0]:
                    LOG.warning(
                        'Sealing the recording of image %s waits for reads of its base',
                        self._key.image_id,
                    )
                pending.result()
                if command == 'blockdev-reopen':
                    # Nothing is recorded any more; tables may still have to be written.
                    self._daemon.raise_file_limit()

    async def stop(self) -> None:
        """End the daemon and remove its sockets; nobody is connected any more. Harmless if that
        was done before."""
        if self._is_forgotten:
            return
        asked = False
        if not self.ended.is_set():
            with contextlib.suppress(exception.QcacheError, TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(self.monitor.execute('quit'), 5)
                asked = True
        await self.monitor.disconnect()
        await asyncio.to_thread(self._daemon.stop, asked)
        self._forget()

    async def leave(self) -> None:
        """Disconnect from the daemon without ending it: a successor adopts it."""
        await self.monitor.disconnect()
        asyncio.get_running_loop().remove_reader(self._daemon.process.fd)

    def _note_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._daemon.process.fd)
        self._daemon.process.reap()
        self.ended.set()

    def _forget(self) -> None:
        self._is_forgotten = True
        asyncio.get_running_loop().remove_reader(self._daemon.process.fd)
        self._daemon.process.close()
        for path in (self._paths.nbd_socket(self._key), self._paths.qmp_socket(self._key)):
            path.unlink(missing_ok=True)

    async def _add(self, nodes: list[Node]) -> None:
        await self._connect()
        for node in nodes:
            try:
                await self.monitor.execute('blockdev-add', node)
            except exception.ToolFailed as e:
                raise self._explained(node, e) from e

    async def _reach(self) -> bool:
        """Connect to the monitor; return False if the daemon has ended instead."""
        connecting = asyncio.ensure_future(self.monitor.connect())
        ending = asyncio.ensure_future(self.ended.wait())
        await asyncio.wait({connecting, ending}, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not connecting.done():
            connecting.cancel()
            return False
        connecting.result()
        return True

    async def _connect(self) -> None:
        """Connect to a new daemon, and notice if it has ended instead.

        :raises ToolTooOld: if it is too old
        :raises ToolFailed: with its last words, if it ended
        """
        if not await self._reach():
            await asyncio.to_thread(img.require_version, self._program, 'qemu_storage_daemon')
            lines = self._paths.log(self._key).read_text(errors='replace').splitlines()
            raise exception.ToolFailed(
                command=self._program, code='none', reason=lines[-1] if lines else 'it ended'
            )
        self.monitor.require_version(self._program)

    def _explained(self, node: Node, error: exception.ToolFailed) -> exception.QcacheError:
        reason = error.attributes['reason']
        if 'Unknown driver' in reason or 'does not accept value' in reason:
            return exception.DriverMissing(
                tool='qemu-storage-daemon',
                driver=node['driver'],
                purpose=block_graph.DRIVERS.get(node['driver'], 'this base'),
            )
        return error

    async def _export(self) -> None:
        socket = self._paths.nbd_socket(self._key)
        # Unlimited: by default the 101st guest would wait for ever.
        await self.monitor.execute(
            'nbd-server-start',
            {'addr': {'type': 'unix', 'data': {'path': str(socket)}}, 'max-connections': 0},
        )
        self._paths.share(socket)
        await self.monitor.execute('block-export-add', block_graph.EXPORT)
