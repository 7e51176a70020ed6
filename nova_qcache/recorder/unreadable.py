# SPDX-License-Identifier: Apache-2.0
"""Parts of a base that cannot be read, and what guests get instead: an I/O error, at once, as they
would without a cache.

The NBD server of qemu (7.2 to 10) cuts off a client whose read fails. One that waits for its
server (``<reconnect>``) comes back at once and asks for the same, without end; one that does not
loses what else it had in flight. So the recorder hears of the first failure, finds out which
blocks cannot be read, and has its daemon answer for these (:mod:`nova_qcache.block_graph`).
"""

import asyncio
from collections.abc import Callable, Collection
import logging
from typing import Any

from nova_qcache import block_graph
from nova_qcache import exception
from nova_qcache.qemu_io import QemuIo
from nova_qcache.recorder.daemon import ServingDaemon
from nova_qcache.source import Source

__all__ = ['Unreadable']

LOG = logging.getLogger(__name__)

_SECTOR = 512
_BLOCK = 4096
_MOST_BLOCKS = 2048
"""That are answered for; beyond it the oldest are forgotten, and found again."""
_AGAIN_SECONDS = 15
"""From one look to the next at what could not be read."""
_LOOK_SECONDS = 20


class Unreadable:
    def __init__(self, source: Source, qemu_io: QemuIo, image_id: str) -> None:
        self._source = source
        self._qemu_io = qemu_io
        self._image_id = image_id
        self._blocks: dict[int, int] = {}
        """Offset and length in bytes, in the order in which they were found."""
        self._lock = asyncio.Lock()

    @property
    def count(self) -> int:
        """How many blocks, of 4 KiB at the most, cannot be read."""
        return len(self._blocks)

    async def watch(self, daemon: ServingDaemon, on_failure: Callable[[], None]) -> None:
        """Hear of failed reads of a daemon that serves, until this is cancelled.

        :param on_failure: called when a guest may have been cut off for one
        """
        again = asyncio.ensure_future(self._look_again(daemon))
        try:
            await self._answer(daemon)  # what another one knew, or was told by a former recorder
            async for event in daemon.monitor.events('QUORUM_REPORT_BAD'):
                if event.get('node-name') == block_graph.SECOND_BASE:
                    on_failure()
                    await self._look(daemon, _blocks_of(event))
        finally:
            again.cancel()

    async def _look_again(self, daemon: ServingDaemon) -> None:
        while not daemon.ended.is_set():
            await asyncio.sleep(_AGAIN_SECONDS)
            if self._blocks:
                await self._look(daemon, dict(self._blocks))

    async def _look(self, daemon: ServingDaemon, blocks: dict[int, int]) -> None:
        """See which of these blocks can be read, and tell the daemon what has changed."""
        async with self._lock:
            try:
                readable = await asyncio.to_thread(
                    self._qemu_io.readable,
                    self._source.image_node(),
                    list(blocks.items()),
                    _LOOK_SECONDS,
                )
            except exception.QcacheError as e:
                # Whoever asks for them would be cut off again: they are looked at later.
                LOG.warning('The base of image %s: %s', self._image_id, e)
                readable = set()
            before = set(self._blocks)
            for offset, length in blocks.items():
                if offset in readable:
                    self._blocks.pop(offset, None)
                else:
                    self._blocks[offset] = max(length, self._blocks.get(offset, 0))
            for offset in list(self._blocks)[:-_MOST_BLOCKS]:
                del self._blocks[offset]
            if set(self._blocks) != before:
                self._say(before)
        await self._answer(daemon)

    async def _answer(self, daemon: ServingDaemon) -> None:
        sectors = {
            byte // _SECTOR
            for offset, length in self._blocks.items()
            for byte in range(offset, offset + length, _SECTOR)
        }
        try:
            await daemon.refuse(sectors)
        except exception.QcacheError as e:
            LOG.warning('Guests of image %s may be cut off: %s', self._image_id, e)

    def _say(self, before: Collection[int]) -> None:
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
