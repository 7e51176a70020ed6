# SPDX-License-Identifier: Apache-2.0
"""The monitor of a qemu-storage-daemon; for the recorder's process only, since it is asyncio.

A command here is never abandoned half-way: a daemon that does not answer may be draining reads of
a slow base, and killing it for that would be the fault. Callers that must not wait put a deadline
around the call and go on; the command's fate is then known when the daemon answers or ends.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
import contextlib
import logging
import pathlib
from typing import Any

from qemu import qmp

from nova_qcache import exception
from nova_qcache.qemu import img

__all__ = ['Monitor']

_CONNECT_SECONDS = 20
_RETRY_SECONDS = 0.005

logging.getLogger('qemu.qmp').setLevel(logging.CRITICAL)  # its failures reach us as exceptions


class Monitor:
    """One QMP session."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._client = qmp.QMPClient('qcache')

    async def connect(self, seconds: float = _CONNECT_SECONDS) -> None:
        """Connect as soon as the daemon listens.

        :raises DeadlinePassed: if it does not within ``seconds``
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                await asyncio.wait_for(self._client.connect(str(self._path)), seconds)
                return
            except (qmp.ConnectError, TimeoutError) as e:
                if asyncio.get_running_loop().time() >= deadline:
                    raise exception.DeadlinePassed(
                        what=f'Connecting to {str(self._path)!r}',
                        seconds=seconds,
                        remedy=f'The last error was: {e}',
                    ) from e
            await asyncio.sleep(_RETRY_SECONDS)

    def require_version(self, program: str) -> None:
        """Look at what the daemon said of itself when the session began.

        :raises ToolTooOld: if nobody has tried one of that age
        :raises ToolFailed: if it said nothing of the kind
        """
        greeting = self._client.greeting
        if greeting is None:
            return
        try:
            version: Any = greeting.QMP.version['qemu']
            img.require_recent(program, (version['major'], version['minor']))
        except (KeyError, TypeError) as e:
            raise exception.ToolFailed(
                command=program, code='QMP', reason=f'its greeting has no version ({e!r})'
            ) from e

    async def disconnect(self) -> None:
        # What has ended the session is raised here once more: that it was no text, for example.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._client.disconnect(), 5)

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Execute a QMP command.

        :raises ToolFailed: if the daemon refuses or is gone
        """
        try:
            return await self._client.execute(command, arguments)
        except qmp.QMPError as e:
            reason = str(e).encode(errors='backslashreplace').decode()  # it may be no text
            raise exception.ToolFailed(
                command=command, code='QMP', reason=reason or type(e).__name__
            ) from e

    async def events(self, *names: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the data of each event of these names from now on."""
        with self._client.listener(names) as listener:
            async for event in listener:
                data = event.get('data', {})
                yield data if isinstance(data, dict) else {}
