# SPDX-License-Identifier: Apache-2.0
"""Client of a recorder's control server: synchronous, with a deadline, fit for nova-compute.

Both sides read messages of their own version of the protocol and of those before. A message
without a version is of version 0, from before there were any, and means the same as in version 1.
A later one is refused: whoever refuses it is the older side, and names itself. Fields and commands
that are new take no new version.
"""

from collections.abc import Mapping
import contextlib
import dataclasses
import json
import operator
import os
import pathlib
import socket
import time
from typing import Any

from nova_qcache import exception
from nova_qcache.model.states import Phase

__all__ = ['VERSION', 'RecorderClient', 'Status', 'version_problem']

VERSION = 1
"""Of the protocol: the latest that this side reads, and the one that it writes."""

_SECONDS = 3
_AGAIN_SECONDS = 0.05
_LARGEST_REPLY = 65536
_NUMBERS = ('guests', 'recorded_bytes', 'pid', 'daemon_pid')


@dataclasses.dataclass(frozen=True)
class Status:
    """Status of a recorder."""

    phase: Phase
    guests: int
    recorded_bytes: int
    """Bytes by which the cache file has grown."""
    pid: int
    daemon_pid: int
    note: str
    """Why it is where it is, for people."""
    unreadable_blocks: int = 0
    """Parts of the base that cannot be read: guests get I/O errors there."""

    @property
    def refusal(self) -> str:
        """Why no more guests are to read through it; empty if they may."""
        if self.phase not in (Phase.RECORDING, Phase.SEALING):
            return f'its recorder no longer records: {self.note}'
        # Before libvirt 9.2 such a block pauses a guest, and only another chain helps it.
        return 'some blocks of its base cannot be read' if self.unreadable_blocks else ''


def version_problem(kind: str, message: Mapping[str, Any]) -> str:
    """Return why a message, a "request" or "reply", cannot be read; empty if it can."""
    version = message.get('version', 0)
    if type(version) is not int or version < 0:
        return f'The version of the {kind} is not a whole number such as {VERSION}.'
    if version > VERSION:
        return (
            f'The {kind} has version {version!s:.9} of the protocol, but process {os.getpid()}'
            f' reads versions up to {VERSION}. Restart that process, the older of the two.'
        )
    return ''


class RecorderClient:
    def __init__(self, path: pathlib.Path, seconds: float = _SECONDS) -> None:
        self._path = path
        self._seconds = seconds

    def status(self) -> Status:
        """:raises RecorderUnreachable: if no recorder answers in time; the same for all below"""
        return self._ask('status')

    def expect_guest(self) -> Status:
        """Announce one more guest."""
        return self._ask('expect-guest')

    def claim(self) -> bool:
        """Tell an audit that the guest which it waits for is on its way.

        :return: whether it did wait for one; if not, it expects nobody more than before
        """
        return self._reply('claim').get('claimed') is True

    def hold(self) -> Status:
        """Make the recorder stay half a minute more: a domain names its socket, but the guest is
        not connected now."""
        return self._ask('hold')

    def seal(self) -> Status:
        """Ask for the end of the recording; it comes some time later."""
        return self._ask('seal')

    def drop(self) -> Status:
        """Ask the recorder to drop its recording; it goes on serving its guests."""
        return self._ask('drop')

    def leave(self) -> Status:
        """Ask it to end as soon as no guest is connected, unless a boot that is on its way has a
        lease."""
        return self._ask('leave')

    def dismiss(self) -> Status:
        """Ask it to end as soon as no guest is connected, whoever may be expected."""
        return self._ask('dismiss')

    def _ask(self, command: str) -> Status:
        reply = self._reply(command)
        try:
            return Status(
                phase=Phase(reply['phase']),
                note=_printable(str(reply['note'])),
                # One of before an upgrade does not know.
                unreadable_blocks=operator.index(reply.get('unreadable_blocks', 0)),
                **{name: operator.index(reply[name]) for name in _NUMBERS},
            )
        except (ValueError, KeyError, TypeError) as e:
            raise self._unreachable(e) from e

    def _reply(self, command: str) -> dict[str, Any]:
        try:
            request = {'version': VERSION, 'command': command}
            reply = self._exchange(json.dumps(request).encode() + b'\n')
            if problem := version_problem('reply', reply) or reply.get('error'):
                raise ValueError(problem)
        except (OSError, ValueError, RecursionError) as e:
            raise self._unreachable(e) from e
        return reply

    def _unreachable(self, error: Exception) -> exception.RecorderUnreachable:
        reason = _printable(str(error)).removesuffix('.') or type(error).__name__
        return exception.RecorderUnreachable(path=str(self._path), reason=reason)

    def _exchange(self, request: bytes) -> dict[str, Any]:
        deadline = time.monotonic() + self._seconds
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            self._connect(client, deadline)
            # It may have refused us, and closed, before it read anything: its reply says why.
            with contextlib.suppress(ConnectionError):
                client.sendall(request)
            answer = b''
            while not answer.endswith(b'\n'):
                client.settimeout(_left(deadline))
                piece = client.recv(_LARGEST_REPLY)
                answer += piece
                if not piece or len(answer) > _LARGEST_REPLY:
                    raise ValueError('the reply ends in the middle')
        reply = json.loads(answer)
        if not isinstance(reply, dict):
            raise ValueError('unexpected reply')
        return reply

    def _connect(self, client: socket.socket, deadline: float) -> None:
        while True:
            client.settimeout(_left(deadline))
            try:
                return client.connect(str(self._path))
            except BlockingIOError:  # its queue is full, whatever the timeout
                time.sleep(min(_AGAIN_SECONDS, _left(deadline)))


def _left(deadline: float) -> float:
    """:raises TimeoutError: if the deadline has passed"""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError('timed out')
    return seconds


def _printable(text: str) -> str:
    """JSON may have lone surrogates, which no terminal takes."""
    return text.encode(errors='backslashreplace').decode()
