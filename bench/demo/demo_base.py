# SPDX-License-Identifier: Apache-2.0
"""The remote base of the demo: an nbdkit at the speed of a network, and what was read of it."""

from __future__ import annotations

from pathlib import Path
import re
import socket
import subprocess
import time
from types import TracebackType
from typing import Self

__all__ = ['BaseServer', 'Read']

Read = tuple[int, int]  # (offset, length) in bytes

_READ = re.compile(rb' Read id=\d+ offset=0x([0-9a-f]+) count=0x([0-9a-f]+) \.\.\.$', re.MULTILINE)


class BaseServer:
    """An nbdkit process that serves a raw file read-only on a unix socket.

    Its log filter, not its rounding stats filter, tells exactly which bytes were asked for.

    :param rate: bits per second over all connections, with nbdkit's suffixes (``1G``).
    :param delay_ms: milliseconds that each read waits on top of that.
    """

    def __init__(
        self, image: Path, socket_path: Path, log: Path, *, rate: str, delay_ms: int
    ) -> None:
        self.image = image
        self.socket_path = socket_path
        self.log = log
        self.rate = rate
        self.delay_ms = delay_ms
        self._process: subprocess.Popen[bytes] | None = None
        self._parsed = 0
        self._reads: list[Read] = []

    @property
    def uri(self) -> str:
        """Return the URI of the export; it is the same for every server on this socket."""
        return f'nbd+unix:///?socket={self.socket_path}'

    def __enter__(self) -> Self:
        command = ['nbdkit', '-f', '-r', '--exit-with-parent', '-U', str(self.socket_path)]
        command += ['--filter=rate', '--filter=delay', '--filter=log', 'file', str(self.image)]
        command += [f'rate={self.rate}', f'rdelay={self.delay_ms}ms', f'logfile={self.log}']
        self.socket_path.unlink(missing_ok=True)
        errors = self.log.with_suffix('.err')
        with errors.open('wb') as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + 10
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f'nbdkit does not serve: {errors.read_text().strip()}')
            time.sleep(0.05)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End nbdkit and remove its socket."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        self.socket_path.unlink(missing_ok=True)

    def reads(self) -> list[Read]:
        """Return all reads so far, in their order."""
        with self.log.open('rb') as log:
            log.seek(self._parsed)
            text = log.read()
        text = text[: text.rfind(b'\n') + 1]
        self._parsed += len(text)
        self._reads += [(int(at, 16), int(size, 16)) for at, size in _READ.findall(text)]
        return list(self._reads)

    def bytes_read(self) -> int:
        """Return the sum of the lengths of all reads so far, in bytes."""
        return sum(length for _, length in self.reads())

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(str(self.socket_path))
                return client.recv(8) == b'NBDMAGIC'
            except OSError:
                return False
