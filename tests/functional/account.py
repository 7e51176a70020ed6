# SPDX-License-Identifier: Apache-2.0
"""What a test has started, and the proof that nothing of it is left.

All processes of a test have its folder in their environment or on their command line, also those
that the product starts and leaves to themselves.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import tempfile
import time

import psutil

from tests.functional import waiting

__all__ = ['VARIABLE', 'Account', 'opened', 'processes_of']

VARIABLE = 'QCACHE_TEST_FOLDER'
_EXEC_SECONDS = 1


class Account:
    def __init__(self) -> None:
        # Sockets lie in it, and their paths may have 107 bytes.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='qct-', dir='/tmp'))
        self.folder.chmod(0o755)
        self.surroundings = contextlib.ExitStack()
        """What the product needs until its last process has left: servers of bases, mounts."""
        self.farewells: list[Callable[[], object]] = []
        """Called again and again until the product's last process has left."""
        self._servers: set[int] = set()

    def is_server(self, pid: int) -> None:
        """Note a process that ``surroundings`` ends."""
        self._servers.add(pid)

    def close(self) -> list[str]:
        """Wait for the product's processes, end everything, return what should not be there."""
        problems = []
        deadline = time.monotonic() + waiting.PATIENCE
        while self._product() and time.monotonic() < deadline:
            for farewell in self.farewells:
                farewell()
            time.sleep(0.05)
        problems += self._end('was left by the product', self._product())
        problems += [f'{path} was left' for path in _sockets(self.folder / 'run')]
        try:
            self.surroundings.close()
        except Exception as e:
            problems.append(f'the surroundings do not end: {e!r}')
        problems += self._end('was left by the test', processes_of(self.folder))
        for mount in self._mounts():
            problems.append(f'{mount} is still mounted')
            subprocess.run(['umount', '--lazy', mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        return problems

    def _product(self) -> list[psutil.Process]:
        return [each for each in processes_of(self.folder) if each.pid not in self._servers]

    def _mounts(self) -> list[str]:
        lines = pathlib.Path('/proc/self/mounts').read_text().splitlines()
        return [line.split()[1] for line in lines if f'{self.folder}/' in line]

    def _end(self, why: str, processes: list[psutil.Process]) -> list[str]:
        problems = []
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                problems.append(f'process {process.pid} {why}: {" ".join(process.cmdline())}')
                process.send_signal(signal.SIGCONT)
                process.kill()
        psutil.wait_procs(processes, timeout=waiting.PATIENCE)
        return problems


@contextlib.contextmanager
def opened() -> Iterator[Account]:
    """An account that is closed at the end: nothing may be left then."""
    book = Account()
    try:
        yield book
    finally:
        problems = book.close()
    assert not problems, '\n'.join(problems)


def processes_of(folder: pathlib.Path) -> list[psutil.Process]:
    """Return the living processes of the test that works in the folder."""
    # Not with psutil: tests ask all the time, and that takes four times as long.
    said, named = f'{VARIABLE}={folder}\0'.encode(), f'{folder}/'.encode()
    found = []
    for name in os.listdir('/proc'):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        # It has just ended, or is none of ours; a zombie has neither of both.
        with contextlib.suppress(OSError, psutil.Error):
            if named in _command(name) or said in _read(name, 'environ'):
                found.append(psutil.Process(int(name)))
    return found


def _command(pid: str) -> bytes:
    """Return the command line of a process. In the middle of its exec it has neither that nor an
    environment: wait for it.

    :raises OSError: if it has ended, or is the kernel's
    """
    deadline = time.monotonic() + _EXEC_SECONDS
    while not (text := _read(pid, 'cmdline')) and time.monotonic() < deadline:
        os.readlink(f'/proc/{pid}/exe')
        time.sleep(0.001)
    return text


def _read(pid: str, name: str) -> bytes:
    with open(f'/proc/{pid}/{name}', 'rb', buffering=0) as file:
        return file.read()


def _sockets(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.rglob('*') if stat.S_ISSOCK(path.lstat().st_mode)]
