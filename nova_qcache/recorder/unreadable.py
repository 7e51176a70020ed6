# SPDX-License-Identifier: Apache-2.0
"""Parts of a base that cannot be read, and what guests get instead: an I/O error, at once, as they
would without a cache.

The NBD server of qemu (7.2 to 10) cuts off a client whose read fails. One that waits for its
server (``<reconnect>``) comes back at once and asks for the same, without end; one that does not
loses what else it had in flight. So the recorder hears of the first failure, finds out which
blocks cannot be read and are not in the cache, and has its daemon answer for these
(:mod:`nova_qcache.qemu.block_graph`).
"""

import asyncio
import bisect
from collections.abc import Callable, Collection, Mapping
import contextlib
import itertools
import logging
import os
import pathlib
from typing import Any, BinaryIO

from nova_qcache import exception
from nova_qcache.model.source import Source
from nova_qcache.qemu import block_graph
from nova_qcache.qemu import img
from nova_qcache.qemu.img import QemuImg
from nova_qcache.qemu.io import QemuIo
from nova_qcache.recorder.daemon import ServingDaemon
from nova_qcache.system import native
from nova_qcache.system.log_rate_limit import LogRateLimit

__all__ = ['Unreadable']

LOG = logging.getLogger(__name__)

_SECTOR = 512
_BLOCK = 4096
_MOST_BLOCKS = 128
"""Unreadable blocks that are refused, and tried in one look; of more the oldest are forgotten and
found again. Each is 8 rules of ``blkdebug``, and qemu takes time with the square of their number
to add them, while no guest is served: 0.5 s for 1024 rules, 55 s for 16384 (qemu 7.2)."""
_AGAIN_SECONDS = (1, 15)
"""First and longest interval at which unreadable blocks are tried again, in seconds. It doubles: a
base that failed for a moment is not to fail boots for long."""
_LOOK_SECONDS = 20
_LEARN_SECONDS = 10

_Block = tuple[int, int]
"""Offset and length in bytes."""


class Unreadable:
    def __init__(self, source: Source, qemu_img: QemuImg, qemu_io: QemuIo, image_id: str) -> None:
        self._source = source
        self._qemu_img = qemu_img
        self._qemu_io = qemu_io
        self._image_id = image_id
        self._blocks: dict[int, int] = {}
        """Offset and length in bytes, in the order in which they were found."""
        self._refused: set[int] = set()
        """Offsets of the blocks that the daemon refuses."""
        self._asked: dict[int, int] = {}
        """Blocks that are still to be tried."""
        self._wake = asyncio.Event()
        self._log_limit = LogRateLimit()

    @property
    def count(self) -> int:
        """Number of unreadable blocks, of 4 KiB at the most, that are not cached either. One that
        can be read again is among them until guests get it."""
        return len(self._refused.union(self._blocks))

    async def watch(self, daemon: ServingDaemon, on_failure: Callable[[], None]) -> None:
        """Watch for failed reads of a daemon that serves, until this is cancelled.

        :param on_failure: called when a guest may have been cut off for one
        """
        looking = [
            asyncio.ensure_future(self._probe_loop(daemon)),
            asyncio.ensure_future(self._queue_again()),
        ]
        self._wake.set()  # to answer what another one knew, or was told by a former recorder
        try:
            async for event in daemon.monitor.events('QUORUM_REPORT_BAD'):
                if event.get('node-name') == block_graph.SECOND_BASE:
                    on_failure()
                    self._queue(_blocks_of(event))
        finally:
            for task in looking:
                task.cancel()

    def _queue(self, blocks: dict[int, int]) -> None:
        """Queue blocks that are not known to be unreadable. The daemon is told of all unreadable
        blocks in any case, since a seal makes it forget them."""
        for offset, length in blocks.items():
            if length > self._blocks.get(offset, 0):
                self._asked[offset] = max(length, self._asked.get(offset, 0))
        self._wake.set()

    async def _queue_again(self) -> None:
        first, longest = _AGAIN_SECONDS
        pause = first
        while True:
            await asyncio.sleep(pause)
            if self._blocks or self._asked:
                self._asked = {**self._blocks, **self._asked}
                self._wake.set()
                pause = min(2 * pause, longest)
            else:
                pause = first

    async def _probe_loop(self, daemon: ServingDaemon) -> None:
        while not daemon.ended.is_set():
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._tell_daemon(daemon)
                while self._asked and not daemon.ended.is_set():
                    found = await self._probe(daemon)
                    await self._tell_daemon(daemon)
                    for offset in found:  # guests asked for it until the daemon was told
                        self._asked.pop(offset, None)
            except Exception:  # a fault of ours: the next failed read is seen to
                LOG.exception(
                    'Failed to look at unreadable blocks of image %s; retrying within 15 seconds',
                    self._image_id,
                )

    async def _probe(self, daemon: ServingDaemon) -> Collection[int]:
        """See which of the blocks in question can be read; return the offsets of those that were
        looked at. What guests wait for comes first."""
        asked = sorted(self._asked.items(), key=lambda block: block[0] in self._blocks)
        asked = asked[:_MOST_BLOCKS]
        try:
            found = await asyncio.to_thread(self._readable, asked)
            lost = [block for block in asked if found.get(block[0]) is False]
            if lost:
                cached = {offset: True for offset, _ in await self._cached(daemon, lost)}
                if not self._is_hopeless(found, cached):
                    found |= cached
        except exception.ToolMissing as e:
            LOG.log(
                self._log_limit.level(e),
                'Failed to find which blocks of the base of image %s can be read: %s; a guest'
                ' that reads an unreadable block is disconnected',
                self._image_id,
                e,
            )
            self._asked.clear()
            return ()
        before = set(self._blocks)
        for offset, can_be_read in found.items():
            length = self._asked.pop(offset, 0)
            if can_be_read:
                self._blocks.pop(offset, None)
            else:
                self._blocks[offset] = max(length, self._blocks.get(offset, 0))
        for offset in list(self._blocks)[:-_MOST_BLOCKS]:
            del self._blocks[offset]
        if set(self._blocks) != before:
            self._log_change(before)
        return found

    def _is_hopeless(self, given: Mapping[int, bool], cached: Collection[int]) -> bool:
        """Return whether new blocks belong to a read that fails again, though each can be read.

        A recording copies whole clusters: beside a block that cannot be read it cannot give those
        that can. The base alone cannot give the cached ones of such a read, so its guest would be
        disconnected and ask again until the seal.

        :param given: by their offsets whether the base gives blocks
        :param cached: offsets of those it does not give and that are cached
        """
        new = given.keys() - self._blocks.keys()
        lost = {offset for offset in new if not given[offset]}
        return bool(lost) and lost < new and lost <= set(cached)

    def _readable(self, blocks: list[_Block]) -> dict[int, bool]:
        """Return by their offsets whether the base gives blocks, for one of them at least.

        :raises ToolMissing: if qemu-io cannot be run
        """
        try:
            # As the daemon reads it: past the page cache, which may have what the disk has lost.
            native.within(_LEARN_SECONDS, self._source.learn)
        except TimeoutError:
            return {offset: False for offset, _ in blocks[:1]}
        except exception.InvalidBase as e:
            LOG.log(
                self._log_limit.level(e),
                'Failed to find which blocks of the base of image %s can be read: %s; answering'
                ' all that are not cached with an I/O error',
                self._image_id,
                e,
            )
            return {offset: False for offset, _ in blocks}
        return self._qemu_io.readable(self._source.image_node(), blocks, _LOOK_SECONDS)

    async def _cached(self, daemon: ServingDaemon, blocks: list[_Block]) -> list[_Block]:
        """Return those of the blocks that guests are given without the base."""
        try:
            if any(offset not in self._blocks for offset, _ in blocks):
                # Not for those that are known: no guest is served meanwhile.
                await daemon.write_tables()
            with contextlib.ExitStack() as undo:
                files = [undo.enter_context(file) for file in await daemon.cache_files()]
                for file in files:  # two where one could not be closed: what both of them have
                    blocks = await asyncio.to_thread(self._held, file, blocks)
            return blocks if files else []
        except (exception.QcacheError, OSError) as e:
            LOG.log(
                self._log_limit.level(e),
                'Failed to find which blocks of image %s are cached: %s; guests get an I/O error'
                ' also for cached blocks while the base cannot be read',
                self._image_id,
                e,
            )
            return []

    def _held(self, file: BinaryIO, blocks: list[_Block]) -> list[_Block]:
        """Return those of the blocks that a cache file gives, by its tables and by its disk."""
        path = pathlib.Path(f'/proc/{os.getpid()}/fd/{file.fileno()}')
        extents = self._qemu_img.cached_extents(path, is_written=True, seconds=_LOOK_SECONDS)
        blocks = [block for block in blocks if _is_within(block, extents)]
        node = img.alone(path, is_written=True)
        found = self._qemu_io.readable(node, blocks, _LOOK_SECONDS)
        return [block for block in blocks if found.get(block[0])]

    async def _tell_daemon(self, daemon: ServingDaemon) -> None:
        blocks = dict(self._blocks)
        sectors = {
            byte // _SECTOR
            for offset, length in blocks.items()
            for byte in range(offset, offset + length, _SECTOR)
        }
        try:
            await daemon.refuse(sectors)
            self._refused = set(blocks)
        except exception.QcacheError as e:
            LOG.log(
                self._log_limit.level(e),
                'Failed to tell the daemon of image %s which blocks cannot be read: %s; a guest'
                ' that reads one is disconnected',
                self._image_id,
                e,
            )

    def _log_change(self, before: Collection[int]) -> None:
        if not self._blocks:
            LOG.warning('The base of image %s can be read again', self._image_id)
        elif not before:
            LOG.error(
                'The base of image %s cannot be read at offset %d; guests get an I/O error there,'
                ' as without a cache. See to the storage of %r',
                self._image_id,
                next(iter(self._blocks)),
                self._source.reference,
            )


def _blocks_of(event: dict[str, Any]) -> dict[int, int]:
    """Return offsets and lengths of what a failed read was about."""
    try:
        at = int(event['sector-num']) * _SECTOR
        end = at + int(event['sectors-count']) * _SECTOR
    except (KeyError, TypeError, ValueError):
        return {}
    blocks = {}
    while at < end:
        blocks[at] = min(end - at, _BLOCK - at % _BLOCK)
        at += blocks[at]
    return blocks


def _is_within(block: _Block, extents: list[_Block]) -> bool:
    """:param extents: in the order of their offsets; some may be side by side"""
    at, length = block
    end = at + length
    first = max(0, bisect.bisect(extents, (at + 1,)) - 1)
    for begin, size in itertools.islice(extents, first, None):
        if begin > at:
            return False
        at = max(at, begin + size)
        if at >= end:
            return True
    return False
