# SPDX-License-Identifier: Apache-2.0
"""Looking at a cache file all the time, from a thread: how large it is and who may write to it."""

import contextlib
import os
import pathlib
import threading
import time
from types import TracebackType
from typing import Self

from tests.functional import users
from tests.functional import waiting

__all__ = ['SizeWatch', 'WriterWatch', 'wait_for_looks', 'writers_of']

_BLOCK = 512


class _Watch:
    """Calls ``look`` in a loop between its two ends, and at both of them."""

    pause = 0.0

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.looks = 0

    def look(self) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        while not self._over.is_set():
            self.look()
            self.looks += 1
            time.sleep(self.pause)

    def __enter__(self) -> Self:
        self.look()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self.look()


class SizeWatch(_Watch):
    """The largest length and the most space that one file ever had, under whatever name."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_RDONLY)
        self.length = self.allocated = 0

    def look(self) -> None:
        facts = os.fstat(self._fd)
        self.length = max(self.length, facts.st_size)
        self.allocated = max(self.allocated, facts.st_blocks * _BLOCK)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        os.close(self._fd)


class WriterWatch(_Watch):
    """The processes that ever had a recording open for writing, and how many at one time."""

    pause = 0.001

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__()
        self._folder = folder
        self.writers: set[int] = set()
        self.most_at_once = 0

    def look(self) -> None:
        now = writers_of(self._folder, '.recording')
        self.writers |= now
        if len(now) > 1:
            # One may have ended before the other began: both must still be there.
            now &= writers_of(self._folder, '.recording')
        self.most_at_once = max(self.most_at_once, len(now))


def wait_for_looks(pid: int, number: int = 20) -> None:
    """Wait until a recorder has woken up so often: what it was going to do by then, it has done.

    It looks around several times a second. Being asked wakes it, too: do not ask it meanwhile.
    """
    before = _wakes_of(pid)
    waiting.until(lambda: _wakes_of(pid) >= before + number, f'{number} looks of process {pid}')


def _wakes_of(pid: int) -> int:
    for line in pathlib.Path(f'/proc/{pid}/status').read_text().splitlines():
        name, _, value = line.partition(':')
        if name == 'voluntary_ctxt_switches':
            return int(value)
    raise AssertionError(f'the kernel does not count how often process {pid} waits')


def writers_of(folder: pathlib.Path, name: str) -> set[int]:
    """Return the processes of the product that have a file open for writing.

    :param name: a part of the file's name
    """
    return {pid for pid in _pids_of_product() if _writes(pid, folder, name)}


def _writes(pid: int, folder: pathlib.Path, name: str) -> bool:
    with contextlib.suppress(OSError):
        for fd in os.listdir(f'/proc/{pid}/fd'):
            with contextlib.suppress(OSError):
                path, _, file = os.readlink(f'/proc/{pid}/fd/{fd}').rpartition('/')
                if path == str(folder) and name in file and _is_writable(pid, fd):
                    return True
    return False


def _pids_of_product() -> list[int]:
    found = []
    for name in os.listdir('/proc'):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                if os.stat(f'/proc/{name}').st_uid == users.PRODUCT.uid:
                    found.append(int(name))
    return found


def _is_writable(pid: int, fd: str) -> bool:
    for line in pathlib.Path(f'/proc/{pid}/fdinfo/{fd}').read_text().splitlines():
        if line.startswith('flags:'):
            return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False
