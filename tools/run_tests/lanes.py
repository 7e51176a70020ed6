# SPDX-License-Identifier: Apache-2.0
"""Run commands in lanes: those of a lane one after another, lanes side by side.

Each command writes to a log of its own. A line says when one has ended, and another one at least
every 15 seconds what is running. An interrupt ends what is running; what has to be undone is.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import types

__all__ = ['Part', 'Result', 'run', 'tail']

_HEARTBEAT_SECONDS = 15
_END_SECONDS = 120
"""How long a part may take to end when it is asked to, before it is killed."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One command of a lane."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    report: pathlib.Path | None = None
    """The JUnit file that it writes, if it runs tests."""
    undoes: bool = False
    """It takes back what an earlier part has done, so it is run after an interrupt as well."""
    seconds: float = 4 * 3600
    """It has failed if it takes longer. For what hangs: a busy machine needs more than an hour."""


@dataclasses.dataclass(frozen=True)
class Result:
    part: Part
    code: int
    seconds: float
    log: pathlib.Path
    complaint: str = ''
    """Why it has failed, where its exit code does not tell."""


class _Lanes:
    def __init__(self, logs: pathlib.Path, say: Callable[[str], None]) -> None:
        self.logs = logs
        self.results: list[Result] = []
        self.interrupted = threading.Event()
        self._say = say
        self._said = time.monotonic()
        self._lock = threading.Lock()
        self._running: dict[str, tuple[subprocess.Popen[bytes], pathlib.Path]] = {}

    def lane(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if (result := self._run(part)) is not None:
                self.results.append(result)

    def _run(self, part: Part) -> Result | None:
        """:return: ``None`` if it was not started, since there was an interrupt"""
        log = self.logs / f'{re.sub("[^a-z0-9]+", "-", part.name.lower())}.log'
        began = time.monotonic()
        code, complaint = 127, ''
        try:
            child = self._start(part, log)
        except OSError as e:
            complaint = f'{part.command[0]} cannot be started: {e.strerror}'
        else:
            if child is None:
                return None
            try:
                code = child.wait(part.seconds)
            except subprocess.TimeoutExpired:
                complaint = f'it was ended after {part.seconds:.0f} s'
                code = _end(child) or 1
            with self._lock:
                del self._running[part.name]
        result = Result(part, code, time.monotonic() - began, log, complaint)
        if code == 0:
            self.say(f'{part.name}: ok, {result.seconds:.0f} s')
        else:
            why = complaint or f'exit code {code}'
            self.say(f'{part.name}: FAILED ({why}), {result.seconds:.0f} s; its log:\n{tail(log)}')
        return result

    def _start(self, part: Part, log: pathlib.Path) -> 'subprocess.Popen[bytes] | None':
        """Start it and remember it in one step: an interrupt ends what is remembered.

        :raises OSError: if it cannot be started; its log is there, empty
        """
        with self._lock:
            if self.interrupted.is_set() and not part.undoes:
                return None
            with log.open('wb') as output:
                child = subprocess.Popen(
                    part.command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **part.environment},
                    start_new_session=True,
                )
            self._running[part.name] = child, log
            return child

    def say(self, text: str) -> None:
        with self._lock:
            self._said = time.monotonic()
            self._say(text)

    def beat(self) -> None:
        """Say what is running, unless something was said just now."""
        with self._lock:
            due = time.monotonic() - self._said >= _HEARTBEAT_SECONDS
            running = list(self._running.items())
        if due:
            self.say('; '.join(f'{name}: {_last_words(log)}' for name, (_, log) in running) or '-')

    def interrupt(self) -> None:
        with self._lock:
            self.interrupted.set()
            children = [child for child, _ in self._running.values()]
        for child in children:
            _end(child)


def _end(child: 'subprocess.Popen[bytes]') -> int:
    """End a command and what it has started, decently if that is possible, and return its code.

    pytest tears its fixtures down for an interrupt, not for SIGTERM.
    """
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(_END_SECONDS)
    return child.wait()


def _last_words(log: pathlib.Path) -> str:
    """Return how far a command is, by its log: its last line, or pytest's percentage."""
    with log.open('rb') as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - 4096))
        text = stream.read().decode(errors='replace')
    lines = [''.join(filter(str.isprintable, line)).strip() for line in text.splitlines()]
    last = next((line for line in reversed(lines) if line), '...')
    if not re.search('[A-Za-z]{2}', last):
        last = (re.findall(r'\d+%', text) or [last])[-1]
    return last[-70:]


def tail(log: pathlib.Path, lines: int = 60, failures: int = 400) -> str:
    """Return the end of a log: what pytest says of failures, if it does, or the last lines."""
    text = log.read_text(errors='replace').splitlines()
    titles = [
        number for number, line in enumerate(text) if re.fullmatch('=+ (FAILURES|ERRORS) =+', line)
    ]
    return '\n'.join(text[titles[0] :][-failures:] if titles else text[-lines:])


def run(
    lanes: Sequence[Sequence[Part]], logs: pathlib.Path, say: Callable[[str], None]
) -> list[Result]:
    """Run all parts, also those behind one that has failed, and return what became of them.

    :raises KeyboardInterrupt: once everything that was running has ended
    """
    work = _Lanes(logs, say)
    interrupted = threading.Event()
    usual = signal.getsignal(signal.SIGINT)

    def interrupt(_number: int, _frame: types.FrameType | None) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, usual)  # a second interrupt waits for nothing

    # KeyboardInterrupt could be raised anywhere, also where a lane starts and is not known yet.
    signal.signal(signal.SIGINT, interrupt)
    try:
        with futures.ThreadPoolExecutor(len(lanes) or 1) as pool:
            running = [pool.submit(work.lane, parts) for parts in lanes]
            while futures.wait(running, 0.5).not_done and not interrupted.is_set():
                work.beat()
            if interrupted.is_set():
                say('interrupted: ending what is running')
                work.interrupt()
    finally:
        signal.signal(signal.SIGINT, usual)
    if interrupted.is_set():
        raise KeyboardInterrupt
    for lane in running:
        lane.result()  # or the error that ended it
    return work.results
