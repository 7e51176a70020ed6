# SPDX-License-Identifier: Apache-2.0
"""Processes by identity: a pid together with the time the process started.

A pid alone may belong to somebody else tomorrow, and nothing here ever looks for a process by its
name: what is ended was either started by us or lives in the namespace of a host of ours.
"""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import threading
import time

__all__ = [
    'PATIENCE_SECONDS',
    'Process',
    'StackError',
    'everything_marked',
    'everything_with_run',
    'given_up',
    'kill_all',
    'run',
    'spawn',
    'stop_all',
    'tail',
    'wait_for',
]

_POLL_SECONDS = 0.1
PATIENCE_SECONDS = 900
"""For how long anything is waited for, however busy the machine is."""


class StackError(Exception):
    """Something that the person who asked should read; it needs no traceback."""


@dataclasses.dataclass(frozen=True)
class Process:
    pid: int
    start_time: int
    """Clock ticks between the machine's boot and its start: with the pid, unique until reboot."""

    @classmethod
    def of(cls, pid: int) -> 'Process':
        """:raises ProcessLookupError: if there is none"""
        stat = _stat(pid)
        if stat is None:
            raise ProcessLookupError(pid)
        return cls(pid, stat.start_time)

    @property
    def alive(self) -> bool:
        stat = _stat(self.pid)
        return stat is not None and stat.start_time == self.start_time and stat.state not in 'ZX'

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens if the process has gone."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)  # whatever the number means from now on
            try:
                if self.alive:
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)

    def session(self) -> list['Process']:
        """Return the living processes of the session that this process leads or has led.

        The number of a session stays taken as long as it has members, so its members are this
        process's children and theirs, unless the number has got a new owner.
        """
        leader = _stat(self.pid)
        if leader is not None and leader.start_time != self.start_time:
            return []
        found = []
        for pid in _pids():
            stat = _stat(pid)
            if stat is not None and stat.session == self.pid and stat.state not in 'ZX':
                found.append(Process(pid, stat.start_time))
        return found


@dataclasses.dataclass(frozen=True)
class _Stat:
    state: str
    session: int
    start_time: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = pathlib.Path(f'/proc/{pid}/stat').read_text(errors='replace')
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(')') + 2 :].split()  # the name may have spaces and brackets
    return _Stat(fields[0], int(fields[3]), int(fields[19]))


def _pids() -> list[int]:
    return [int(name) for name in os.listdir('/proc') if name.isdigit()]


def everything_with_run(run_folder: pathlib.Path) -> list[Process]:
    """Return all processes that see this folder as their /run.

    These are the processes of a host, also those in namespaces that were made inside it (libvirt
    gives each qemu one of its own).
    """
    try:
        wanted = run_folder.stat()
    except FileNotFoundError:
        return []
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):  # a thread of the kernel, or it has just ended
            seen = os.stat(f'/proc/{pid}/root/run')
            if (seen.st_dev, seen.st_ino) == (wanted.st_dev, wanted.st_ino):
                process = Process.of(pid)
                if process.alive:
                    found.append(process)
    return found


def everything_marked(name: str, value: str) -> list[Process]:
    """Return all processes but this one that have exactly this variable in their environment."""
    wanted = os.fsencode(f'{name}={value}')
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            process = Process.of(pid)
            environment = pathlib.Path(f'/proc/{pid}/environ').read_bytes()
            if wanted in environment.split(b'\0') and pid != os.getpid() and process.alive:
                found.append(process)
    return found


given_up = threading.Event()
"""Whoever waits for a service to be ready need not any more: another one has failed."""

_children: list[subprocess.Popen[bytes]] = []
"""What this program started; asking them from time to time keeps zombies away."""


def spawn(
    argv: Sequence[str], log: pathlib.Path, environment: Mapping[str, str], umask: int = 0o022
) -> Process:
    """Start something that outlives this program, in a session of its own."""
    _children[:] = [child for child in _children if child.poll() is None]
    with log.open('ab') as output:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd='/',
            start_new_session=True,
            umask=umask,
        )
    _children.append(child)
    return Process.of(child.pid)


def run(
    argv: Sequence[str],
    environment: Mapping[str, str],
    seconds: float = PATIENCE_SECONDS,
    *,
    text: str | None = None,
    cwd: str = '/',
) -> str:
    """Run something to its end and return its output.

    :raises StackError: with the end of its output, if it fails or takes too long
    """
    try:
        done = subprocess.run(
            argv,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            env=dict(environment),
            cwd=cwd,
            text=True,
            timeout=seconds,
        )
    except FileNotFoundError as e:
        raise StackError(f'{argv[0]}: {e.strerror}') from e
    except subprocess.TimeoutExpired as e:
        raise StackError(f'"{" ".join(argv)}" took more than {seconds:.0f} s') from e
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).splitlines()[-25:]
        raise StackError(
            '\n'.join([f'"{" ".join(argv)}" failed with status {done.returncode}', *lines])
        )
    return done.stdout


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether the condition became true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def stop_all(processes: Iterable[Process], seconds: float, number: int = signal.SIGTERM) -> None:
    """Ask each to end, and after a while end their whole sessions without asking."""
    leaders = list(processes)
    members = {member for leader in leaders for member in leader.session()}
    for leader in leaders:
        leader.signal(number)
    wait_for(lambda: not any(leader.alive for leader in leaders), seconds)
    members.update(member for leader in leaders for member in leader.session())
    kill_all({*leaders, *members})


def kill_all(processes: Iterable[Process], seconds: float = PATIENCE_SECONDS) -> None:
    """:raises StackError: if one lives on, which only a hanging kernel can do"""
    living = [process for process in processes if process.alive]
    for process in living:
        process.signal(signal.SIGKILL)
    for child in _children:
        child.poll()
    if not wait_for(lambda: not any(process.alive for process in living), seconds):
        left = [process.pid for process in living if process.alive]
        raise StackError(f'processes do not end, not even by SIGKILL: {left}')


def tail(path: pathlib.Path, lines: int = 20) -> str:
    """Return the end of a log for an error message."""
    try:
        with path.open(errors='replace') as log:
            return ''.join(collections.deque(log, lines)).rstrip()
    except OSError as e:
        return f'({path}: {e.strerror})'
