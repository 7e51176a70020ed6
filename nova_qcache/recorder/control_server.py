# SPDX-License-Identifier: Apache-2.0
"""The recorder's control server: a unix socket for commands and questions about its status.

One request and one reply on a line each, both JSON objects; :mod:`nova_qcache.system.control` is
the other side.
"""

import asyncio
from collections.abc import Callable
import json
import os
import pathlib
from typing import Any

__all__ = ['ControlServer']

_LINE_BYTES = 65536
_SECONDS = 5

Handler = Callable[[], dict[str, Any]]


class ControlServer:
    """Serves ``handlers``: from the name of a command to what makes its reply."""

    def __init__(self, path: pathlib.Path, handlers: dict[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen. The caller holds the recorder's lock: a socket that is there is stale."""
        self._path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(
                self._answer, str(self._path), limit=_LINE_BYTES
            )
        finally:
            os.umask(old)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), _SECONDS)
            writer.write(json.dumps(self._reply(line)).encode() + b'\n')
            await asyncio.wait_for(writer.drain(), _SECONDS)
        except (OSError, ValueError, TimeoutError):
            pass  # whoever asked has gone, or said too much or nothing
        finally:
            writer.close()

    def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            command = json.loads(line)['command']
            handler = self._handlers[command]
        except (ValueError, KeyError, TypeError, RecursionError):
            known = ', '.join(sorted(self._handlers))
            return {'error': f'{line[:80]!r} is not a command; known commands: {known}'}
        return handler()
