# SPDX-License-Identifier: Apache-2.0
"""A guest without a guest: qemu-io, which opens a chain as a guest's qemu does, and sends the
reads of a trace through it."""

from collections.abc import Sequence
import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import threading
import time

from bench.compare.trace import Trace
from bench.rig import BenchError

__all__ = ['Replayer', 'Usage', 'usage']

DEADLINE = 900
_KEEP_MEMORY = {'MALLOC_MMAP_THRESHOLD_': str(1 << 30), 'MALLOC_TRIM_THRESHOLD_': str(1 << 30)}
"""Else qemu-io asks the kernel for the buffer of each larger read, which is its own affair."""


@dataclasses.dataclass(frozen=True)
class Usage:
    """What processes have used since they began."""

    cpu_seconds: float = 0.0
    written_bytes: int = 0

    def __add__(self, other: 'Usage') -> 'Usage':
        return Usage(
            self.cpu_seconds + other.cpu_seconds, self.written_bytes + other.written_bytes
        )

    def __sub__(self, other: 'Usage') -> 'Usage':
        return Usage(
            self.cpu_seconds - other.cpu_seconds, self.written_bytes - other.written_bytes
        )


def usage(pid: int) -> Usage:
    """Nothing if there is no such process."""
    try:
        with open(f'/proc/{pid}/stat') as file:
            fields = file.read().rpartition(')')[2].split()
        with open(f'/proc/{pid}/io') as file:
            io = dict(line.split(': ') for line in file)
    except OSError:
        return Usage()
    ticks = sum(map(int, fields[11:15]))  # its own, and those of children that have ended
    return Usage(ticks / os.sysconf('SC_CLK_TCK'), int(io['write_bytes']))


class Replayer:
    """One at a time, or several at once: open all, begin all, wait for all.

    :param node: what it stands on
    :param prefix: words before the command, which put it where it belongs
    """

    def __init__(self, node: object, prefix: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [*prefix, 'qemu-io', f'json:{json.dumps(node)}'],
            env=os.environ | _KEEP_MEMORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._feeder: threading.Thread | None = None
        self._began = 0.0
        self.usage = Usage()

    def __enter__(self) -> 'Replayer':
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Wait until it has opened its chain."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its own words say why
            self._process.stdin.write(b'length\n')
            self._process.stdin.flush()
        self._answer()

    def begin(self, trace: Trace, *, think: bool = False) -> None:
        # It reads no further line before its input ends: hence the wait in the script, in which it
        # can still be asked what it has used.
        script = trace.script(think=think) + 'length\nsleep 100000\n'
        self._feeder = threading.Thread(target=self._feed, args=(script.encode(),))
        self._began = time.perf_counter()
        self._feeder.start()

    def finish(self) -> float:
        """Wait for the last answer and return the seconds since the beginning."""
        self._answer()
        seconds = time.perf_counter() - self._began
        self.usage = usage(self._process.pid)
        return seconds

    def close(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        if self._feeder is not None:
            self._feeder.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _feed(self, script: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._process.stdin as file:
            file.write(script)

    def _answer(self) -> None:
        """Wait for a line that is no prompt: the answer to "length"."""
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        text = b''
        deadline = time.monotonic() + DEADLINE
        while not text.endswith((b'iB\n', b'iB\nqemu-io> ')):
            if not select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
                raise BenchError('qemu-io has not finished the trace')
            piece = os.read(fd, 65536)
            text = (text + piece)[-1000:]
            if not piece or b'failed' in text or b'rror' in text:
                raise BenchError(f'qemu-io: {text.decode()}')
