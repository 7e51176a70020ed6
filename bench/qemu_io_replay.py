# SPDX-License-Identifier: Apache-2.0
"""Reads of a trace by qemu-io, timed from the first to the last."""

from collections.abc import Sequence
import dataclasses
import json
import os
import select
import subprocess
import threading
import time

from nbd_tools import Node
from rig import BenchError
from rig import Extent
from rig import processor_seconds

DEADLINE = 300
KEEP_MEMORY = {'MALLOC_MMAP_THRESHOLD_': str(1 << 30), 'MALLOC_TRIM_THRESHOLD_': str(1 << 30)}
"""Else qemu-io asks the kernel for the buffer of each larger read, which is its own affair."""


@dataclasses.dataclass(frozen=True)
class Spent:
    seconds: float
    processor: float
    """Seconds on a processor, of all threads: what other processes do matters less to it."""


def replay(node: Node, reads: Sequence[Extent]) -> Spent:
    """Read in order, one at a time, in a new process that has opened the node already.

    It is bound to one processor: how fast one processor wakes another for each read, which
    differs from moment to moment, is not what is measured.
    """
    processor = str(max(os.sched_getaffinity(0)))
    process = subprocess.Popen(
        ['taskset', '--cpu-list', processor, 'qemu-io', '-r', f'json:{json.dumps(node)}'],
        env=os.environ | KEEP_MEMORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None and stdout is not None
    script = ''.join(f'read -q {offset} {length}\n' for offset, length in reads)

    def feed() -> None:
        # At the end of its input qemu-io goes on with what it has; before, it may wait for more.
        with stdin as file:
            file.write(script.encode() + b'length\n')

    feeder = threading.Thread(target=feed)
    try:
        stdin.write(b'length\n')  # it answers when all is open
        stdin.flush()
        _answer(stdout.fileno())
        began, before = time.perf_counter(), processor_seconds(process.pid)
        feeder.start()
        _answer(stdout.fileno())
        seconds = time.perf_counter() - began
        used = os.wait4(process.pid, 0)[2]  # at the end of its input it leaves
        process.returncode = 0
        return Spent(seconds, used.ru_utime + used.ru_stime - before)
    finally:
        process.kill()
        process.wait()
        if feeder.ident:
            feeder.join()
        stdout.close()


def _answer(fd: int) -> None:
    """Wait for a line that is no prompt: the answer to "length"."""
    text = b''
    deadline = time.monotonic() + DEADLINE
    while not text.endswith((b'iB\n', b'iB\nqemu-io> ')):
        if not select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
            raise BenchError('qemu-io has not finished the trace')
        piece = os.read(fd, 65536)
        text = (text + piece)[-1000:]
        if not piece or b'failed' in text or b'rror' in text:
            raise BenchError(f'qemu-io: {text.decode()}')
