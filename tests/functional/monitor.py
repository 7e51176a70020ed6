# SPDX-License-Identifier: Apache-2.0
"""The monitor of a daemon whose recorder is dead: what that would have said before it died."""

import json
import pathlib
import socket
from types import TracebackType
from typing import Any, Self

from tests.functional import waiting

__all__ = ['Monitor']


class Monitor:
    def __init__(self, path: pathlib.Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(waiting.PATIENCE)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile('rb')

    def __enter__(self) -> Self:
        self._lines.readline()
        self.execute('qmp_capabilities', {})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._socket.close()

    def execute(self, command: str, arguments: dict[str, Any]) -> Any:
        request = {'execute': command, 'arguments': arguments}
        self._socket.sendall(json.dumps(request).encode())
        while True:
            reply = json.loads(self._lines.readline())
            if 'event' not in reply:
                assert 'return' in reply, reply
                return reply['return']
