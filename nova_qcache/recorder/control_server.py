# SPDX-License-Identifier: Apache-2.0
"""Control server: a unix socket for commands and questions.

One request and one reply, each a JSON object on a line: ``{"version": 1, "command": "status"}``,
and ``{"version": 1, ...}`` or ``{"version": 1, "error": "..."}``. An operator can read and write
that with socat, it takes no code of ours, and one request for each connection needs no framing.
:mod:`nova_qcache.system.control` is the other side, and has the rules for versions.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
import contextlib
import json
import logging
import os
import pathlib
import socket
import struct
from typing import Any

from nova_qcache import exception
from nova_qcache.system import control
from nova_qcache.system.log_rate_limit import LogRateLimit

__all__ = ['Answer', 'ControlServer']

LOG = logging.getLogger(__name__)

_LINE_BYTES = 65536
_MOST_CONNECTIONS = 64
_SECONDS = 5
"""For a request to come, and again for its reply to be taken."""
_CREDENTIALS = struct.Struct('=iII')

Answer = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]


class ControlServer:
    """Serves ``commands``, for root and the user that it runs as.

    ``answer`` gets a command and the whole request, and returns the reply without its version. It
    sees to its own deadlines. A :class:`~nova_qcache.exception.QcacheError` that it raises is the
    reply, as its sentence.
    """

    def __init__(self, path: pathlib.Path, commands: Collection[str], answer: Answer) -> None:
        self._path = path
        self._commands = commands
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._log_limit = LogRateLimit()

    async def open(self) -> None:
        """Listen. The caller holds the recorder's lock: a socket that is there is stale."""
        self._path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(
                self._accept, str(self._path), limit=_LINE_BYTES
            )
        finally:
            os.umask(old)

    async def close(self) -> None:
        """Leave no socket file, connection or task behind; what is being answered is cancelled."""
        server, self._server = self._server, None
        if server is None:
            return
        self._path.unlink(missing_ok=True)
        for listener in server.sockets:
            asyncio.get_running_loop().remove_reader(listener)
        for task in self._tasks:
            task.cancel()
        for _ in range(3):
            # A server that is closed at once would forget to close what it has just accepted.
            await asyncio.sleep(0)
        server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if refusal := self._refusal(_user_of(writer)):
            writer.write(_line({'error': refusal}))
            writer.transport.abort()  # the kernel has taken so short a line already
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())

    def _refusal(self, uid: int) -> str:
        """Return why nothing of that user is answered now; empty if it is."""
        if uid not in (0, os.geteuid()):
            reason = f'only root and user {os.geteuid()} may send commands'
            level = self._log_limit.level(PermissionError(reason))
            LOG.log(level, 'Refused user %d at socket %r: %s', uid, str(self._path), reason)
            return f'User {uid} is refused: {reason}. Become one of these.'
        if self._server is None:
            return 'The server is closing. Try again.'
        if len(self._tasks) >= _MOST_CONNECTIONS:
            return f'The server is busy with {_MOST_CONNECTIONS} connections. Try again.'
        return ''

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)  # drain() waits until all is taken
        with contextlib.suppress(OSError):  # whoever asked has gone, or is silent
            reply = await self._reply(reader)
            async with asyncio.timeout(_SECONDS):
                writer.write(reply)
                await writer.drain()

    async def _reply(self, reader: asyncio.StreamReader) -> bytes:
        """:raises TimeoutError: if no request comes"""
        try:
            async with asyncio.timeout(_SECONDS):
                line = await reader.readline()
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError
        except (ValueError, RecursionError):
            like = json.dumps({'version': control.VERSION, 'command': 'status'})
            problem = f'A request is a line of at most {_LINE_BYTES} bytes, such as {like}.'
            return _line({'error': problem})
        if problem := control.version_problem('request', request):
            return _line({'error': problem})
        command = request.get('command')
        if not isinstance(command, str) or command not in self._commands:
            name = command[:80] if isinstance(command, str) else type(command).__name__
            known = ', '.join(sorted(self._commands))
            return _line({'error': f'"{name}" is not a command; known commands: {known}'})
        try:
            return _line(await self._answer(command, request))
        except exception.QcacheError as e:
            return _line({'error': exception.sentence(e)})
        except Exception:
            LOG.exception('Unexpected error while answering command "%s"; going on', command)
            problem = (
                f'Command "{command}" failed unexpectedly. See the log of process {os.getpid()}.'
            )
            return _line({'error': problem})


def _user_of(writer: asyncio.StreamWriter) -> int:
    """Return the effective user ID with which the other side connected."""
    connection = writer.get_extra_info('socket')
    size = _CREDENTIALS.size
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(_CREDENTIALS.unpack(credentials)[1])


def _line(reply: dict[str, Any]) -> bytes:
    return json.dumps({'version': control.VERSION, **reply}).encode() + b'\n'
