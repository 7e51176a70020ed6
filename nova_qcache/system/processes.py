# SPDX-License-Identifier: Apache-2.0
"""Processes that outlive whoever starts them, and are no children of ours when we find them."""

from collections.abc import Collection, Iterator, Sequence
import contextlib
import errno
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import BinaryIO, IO

__all__ = [
    'Process',
    'bytes_read',
    'connections',
    'end',
    'listener_pid',
    'listening',
    'open_files',
    'run',
    'start_module',
    'with_argument',
]

_EXEC_SECONDS = 1.0
_POLL_SECONDS = 0.001
_KILLED_SECONDS = 1.0


def start_module(
    module: str, arguments: Sequence[str], output: IO[bytes]
) -> 'subprocess.Popen[bytes]':
    """Start a program of ours in a session of its own, and wait for nothing.

    By the name of its module and not by its script: it must be this very installation, wherever
    its scripts went.

    :param output: where it writes what it says
    :raises OSError: if it cannot be started
    """
    return subprocess.Popen(
        [sys.executable, '-m', module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd='/',
        start_new_session=True,
    )


def run(
    command: Sequence[str], *, seconds: float, stdin: str | None = None
) -> 'subprocess.CompletedProcess[str]':
    """Run a program to its end, and return its output.

    :raises OSError: if it cannot be started
    :raises subprocess.TimeoutExpired: if it does not end in time, with the bytes that it printed.
        It is ended then, as :func:`end` does
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        told = None if stdin is None else stdin.encode()
        stdout, stderr = process.communicate(told, timeout=seconds)
    finally:
        end(process)
    said = stdout.decode(errors='replace'), stderr.decode(errors='replace')
    return subprocess.CompletedProcess(command, process.returncode, *said)


def end(process: 'subprocess.Popen[bytes]') -> None:
    """Kill a child, unless it has ended, and close its pipes. It is left behind where even that
    does not end it: a process whose disk hangs ends with its disk."""
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_KILLED_SECONDS)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # it has not read all of its input
                pipe.close()


class Process:
    """A handle on one process that is safe against the reuse of its pid."""

    def __init__(self, pid: int) -> None:
        """:raises ProcessLookupError: if there is none"""
        self.pid = pid
        self.fd = os.pidfd_open(pid)

    def close(self) -> None:
        os.close(self.fd)

    def has_ended(self, seconds: float = 0) -> bool:
        """Wait up to ``seconds`` for its end; return whether it has come. A zombie has ended."""
        return bool(select.select([self.fd], [], [], seconds)[0])

    def reap(self) -> None:
        """Take the exit status if it is a child of ours."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.fd, number)


def bytes_read(pid: int) -> int:
    """Return how many bytes a process has read so far with read(2), pread(2) and their like, from
    a disk or from the page cache. What it has received with recvmsg(2) is not among them.

    :raises OSError: if it is gone, or another user's
    """
    for line in pathlib.Path(f'/proc/{pid}/io').read_text().splitlines():
        name, _, value = line.partition(': ')
        if name == 'rchar':
            return int(value)
    raise OSError(errno.ENODATA, 'The kernel does not count what processes read')


def open_files(pid: int, folder: pathlib.Path, suffixes: Collection[str]) -> list[BinaryIO]:
    """Open for reading the files of a folder that a process has open, each once, whether they
    still have their names or not. The caller closes them.

    :param suffixes: of their names
    :raises OSError: if it is gone, or another user's, or a file cannot be opened
    """
    place = folder.resolve()
    files: dict[str, BinaryIO] = {}
    try:
        for link in pathlib.Path(f'/proc/{pid}/fd').iterdir():
            with contextlib.suppress(FileNotFoundError):  # it was closed just now
                name = os.readlink(link)
                path = pathlib.Path(name.removesuffix(' (deleted)'))
                if path.parent == place and path.suffix in suffixes and name not in files:
                    files[name] = link.open('rb')
    except OSError:
        for file in files.values():
            file.close()
        raise
    return list(files.values())


def listener_pid(path: pathlib.Path) -> int | None:
    """Return the process that listens on a unix socket, or None if nobody does.

    None is returned only when the kernel says that connections are refused or that there is no
    such name: a listener that is stopped, or whose queue is full, is alive.

    :raises OSError: for everything else, for example a lack of permission
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as e:
            if e.errno == errno.ENOTSOCK:
                return None
            raise
        pid: int = struct.unpack(
            'iII', client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )[0]
        return pid


def with_argument(argument: str) -> int | None:
    """Return a living process of this user that was started with such an argument, None if there
    is none."""
    wanted = os.fsencode(argument)
    for folder in pathlib.Path('/proc').iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                if folder.stat().st_uid == os.geteuid() and wanted in _arguments(folder):
                    return int(folder.name)
    return None


def _arguments(folder: pathlib.Path) -> list[bytes]:
    """Return the arguments of a process. In the middle of its exec it has a program and no
    arguments, even when its parent believes that it runs: wait for it.

    :raises OSError: if it has ended, or is the kernel's
    """
    deadline = time.monotonic() + _EXEC_SECONDS
    while not (text := (folder / 'cmdline').read_bytes()) and time.monotonic() < deadline:
        os.readlink(folder / 'exe')
        time.sleep(_POLL_SECONDS)
    return text.split(b'\0')


def connections(path: pathlib.Path) -> int:
    """Return how many clients are connected to a unix socket of this network namespace.

    /proc/net/unix has one line with the path for each accepted end, in state 03 (connected), and
    one for the listener.
    """
    wanted = os.fsencode(path)
    return sum(state == b'03' and name == wanted for _, state, name in _unix_sockets())


def listening() -> set[pathlib.Path]:
    """Return the paths of the unix sockets of this network namespace that somebody listens on,
    without a connection to any."""
    listens = b'00010000'  # __SO_ACCEPTCON
    return {
        pathlib.Path(os.fsdecode(name)) for flags, _, name in _unix_sockets() if flags == listens
    }


def _unix_sockets() -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield flags, state and path of each unix socket that has a path."""
    with open('/proc/net/unix', 'rb') as table:
        for line in table:
            row = line.split(maxsplit=7)
            if len(row) == 8:
                yield row[3], row[5], row[7].rstrip(b'\n')
