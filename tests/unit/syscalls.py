# SPDX-License-Identifier: Apache-2.0
"""System calls that can be counted, made to fail, or be the last thing that a process does.

Between two of them a crash has no effect of its own: so a run for each call finds all that a crash
or a full disk can do to a sequence. What Python calls from C is counted as well: a file that is
opened in a watched folder is one whose raw half is written in Python.
"""

import builtins
from collections.abc import Callable
import io
import os
import pathlib
from typing import Any

__all__ = ['KILLED', 'Killed', 'Syscalls', 'end_process', 'fail', 'kill']

KILLED = 77
"""Exit status of a process that was ended by :func:`end_process`."""

_BY_PATH = (
    'chmod',
    'chown',
    'link',
    'listdir',
    'lstat',
    'mkdir',
    'open',
    'remove',
    'rename',
    'replace',
    'rmdir',
    'scandir',
    'stat',
    'symlink',
    'truncate',
    'unlink',
    'utime',
)
_BY_DESCRIPTOR = ('close', 'fchmod', 'fchown', 'fdatasync', 'fsync', 'ftruncate', 'write')

Fault = Callable[[], None]


class Killed(BaseException):
    """The process has ended; what its code does about that never happens."""


def kill() -> None:
    """End the process, as far as the watched folders are concerned."""
    raise Killed


def end_process() -> None:
    """End the process, with nothing after it: for a child."""
    os._exit(KILLED)


def fail(number: int) -> Fault:
    """Return a fault that makes a call fail with this errno."""

    def fault() -> None:
        raise OSError(number, os.strerror(number))

    return fault


class Syscalls:
    """While it is entered, system calls that concern ``folder`` are counted.

    ``fault`` strikes in place of call ``at``; half of what a write is to write is written before.
    A call that closes a file closes it all the same, and after :func:`kill` nothing else is done.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        at: int | None = None,
        fault: Fault = kill,
        after: Callable[[str, str], None] = lambda name, path: None,
    ) -> None:
        """:param after: told the name and the path of each call that was made"""
        self._folder = os.fspath(folder)
        self._at = at
        self._fault = fault
        self._after = after
        self._originals: dict[str, Any] = {}
        self._resting = False
        self._dead = False
        self.names: list[str] = []
        """Of the calls that were made or struck, in their order."""

    def __enter__(self) -> 'Syscalls':
        for name in _BY_PATH + _BY_DESCRIPTOR:
            self._originals[name] = getattr(os, name)
            setattr(os, name, self._counted(name, self._originals[name]))
        self._originals['opener'] = io.open
        builtins.open = io.open = self._open_file
        return self

    def __exit__(self, *_: object) -> None:
        self._resting = True  # a file may be closed later
        builtins.open = io.open = self._originals.pop('opener')
        for name, original in self._originals.items():
            setattr(os, name, original)

    def is_due(self) -> bool:
        """Whether the next call is the one that is struck."""
        return not (self._dead or self._resting) and len(self.names) == self._at

    def before(self, name: str) -> None:
        """Count a call that is about to be made, or be struck in its place."""
        if self._dead:
            raise Killed
        if self._resting:
            return
        due = self.is_due()
        self.names.append(name)
        if due:
            try:
                self._fault()
            except Killed:
                self._dead = True
                raise

    def after(self, name: str, path: str) -> None:
        """Say that a call was made; what is done about it is not counted."""
        if self._resting:
            return
        self._resting = True
        try:
            self._after(name, path)
        finally:
            self._resting = False

    def _counted(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(subject: Any = '.', *arguments: Any, **options: Any) -> Any:
            path = self._watched(subject)
            if path is None:
                return original(subject, *arguments, **options)
            if name == 'close':
                original(subject)  # whatever it says afterwards
                if not self._dead:
                    self.before(name)
                    self.after(name, path)
                return None
            self.before(name)
            result = original(subject, *arguments, **options)
            self.after(name, path)
            return result

        return call

    def _watched(self, subject: Any) -> str | None:
        """Return the path that a call is about if it is counted."""
        if self._resting:
            return None
        try:
            if isinstance(subject, int):
                path = os.readlink(f'/proc/self/fd/{subject}')
            else:
                path = os.fsdecode(subject)
        except (OSError, TypeError):
            return None
        return path if path.startswith(self._folder) else None

    def _open_file(
        self,
        file: Any,
        mode: str = 'r',
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        path = self._watched(file)
        if path is None:
            opened = self._originals['opener']
            return opened(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if not isinstance(file, int):
            self.before('open')
        raw = _File(self, path, file, mode.replace('b', '').replace('t', ''), closefd, opener)
        if not isinstance(file, int):
            self.after('open', path)
        if buffering == 0:
            return raw
        buffered: Any
        if '+' in mode:
            buffered = io.BufferedRandom(raw)
        elif 'r' in mode:
            buffered = io.BufferedReader(raw)
        else:
            buffered = io.BufferedWriter(raw)
        return buffered if 'b' in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


class _File(io.FileIO):
    """The raw half of a file in a watched folder."""

    def __init__(self, calls: Syscalls, path: str, *arguments: Any) -> None:
        self._calls: Syscalls | None = None  # while it is being opened
        super().__init__(*arguments)
        self._calls = calls
        self._path = path

    def write(self, data: Any) -> Any:
        assert self._calls is not None
        if self._calls.is_due():
            super().write(bytes(data)[: len(data) // 2])
        self._calls.before('write')
        result = super().write(data)
        self._calls.after('write', self._path)
        return result

    def readinto(self, buffer: Any) -> Any:
        assert self._calls is not None
        self._calls.before('read')
        return super().readinto(buffer)

    def readall(self) -> Any:
        assert self._calls is not None
        self._calls.before('read')
        return super().readall()

    def close(self) -> None:
        if self.closed or self._calls is None:
            return super().close()
        super().close()
        calls, self._calls = self._calls, None
        if not calls._dead:
            calls.before('close')
            calls.after('close', self._path)
        return None
