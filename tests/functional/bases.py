# SPDX-License-Identifier: Apache-2.0
"""Bases: files of random content, and NBD servers that count what is read of them."""

from collections.abc import Callable, Sequence
import os
import pathlib
import random
import re
import socket
import subprocess

from tests import seeds
from tests.functional import users
from tests.functional import waiting
from tests.functional.site import Site

__all__ = ['Maker', 'NbdServer', 'QemuNbd', 'Serve', 'flip', 'make_qcow2', 'make_raw']

_HOST = '127.{}.{}.{}'.format(1 + (os.getpid() >> 16) % 254, *divmod(os.getpid() % 65536, 256))
"""The address of this process alone: a port that is free there stays so beside other tests."""
_BAD_READ = """
while read -r start end; do
    if [ "$4" -lt "$end" ] && [ "$(($4 + $3))" -gt "$start" ]; then echo "EIO bad" >&2; exit 1; fi
done < '{bad}'
exec dd if='{path}' iflag=skip_bytes,count_bytes skip="$4" count="$3" status=none
"""
"""Reads $3 bytes at $4."""
_EXTENTS = re.compile(r' Extents id=\d+ offset=')
_READ = re.compile(r' Read id=\d+ offset=0x([0-9a-f]+) count=0x([0-9a-f]+) ')


def make_raw(site: Site, size: int, name: str = 'base.raw') -> pathlib.Path:
    """Make a base of random bytes: no two clusters of it are equal and none is zero."""
    path = site.bases / name
    chance = random.Random(f'{name} {seeds.seed()}')
    with open(path, 'wb') as file:
        left = size
        while left:
            left -= file.write(chance.randbytes(min(left, 1 << 20)))
    return _given(path)


def flip(path: pathlib.Path, offset: int, length: int = 1) -> None:
    """Change one bit of each byte of a range of a file, in place."""
    with open(path, 'r+b') as file:
        file.seek(offset)
        before = file.read(length)
        file.seek(offset)
        file.write(bytes(byte ^ 1 for byte in before))


def make_qcow2(
    site: Site, raw: pathlib.Path, name: str = 'base.qcow2', options: Sequence[str] = ()
) -> pathlib.Path:
    """Make a qcow2 file with the content of a raw one.

    :param options: more of those that ``qemu-img convert`` has
    """
    path = site.bases / name
    command = ['qemu-img', 'convert', '-q', '-f', 'raw', '-O', 'qcow2', *options]
    subprocess.run([*command, str(raw), str(path)], check=True, timeout=waiting.PATIENCE)
    return _given(path)


def _given(path: pathlib.Path) -> pathlib.Path:
    os.chown(path, users.PRODUCT.uid, users.PRODUCT.gid)
    path.chmod(0o644)
    return path


class NbdServer:
    """An nbdkit that serves one file until the product has left, and notes every read."""

    def __init__(
        self,
        site: Site,
        path: pathlib.Path,
        *,
        tcp: bool = False,
        bad: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """:param bad: (offset, length) in bytes of what cannot be read. None: all can, and fast"""
        self.path = path
        self._bad: pathlib.Path | None = None
        if bad is not None:
            self._bad = site.folder / f'{path.name}.bad'
            self.damage(bad)
        self.failing = site.folder / f'{path.name}.fails'
        """While there is such a file, every read fails."""
        self._site = site
        self._log = site.folder / f'{path.name}.log'
        self._process: subprocess.Popen[bytes] | None = None
        if tcp:
            self._port = _free_port()
            self.uri = f'nbd://{_HOST}:{self._port}/'
        else:
            self._port = 0
            self._socket = site.folder / f'{path.name}.sock'
            self.uri = f'nbd+unix:///?socket={self._socket}'
        site.account.surroundings.callback(self.stop)
        self.start()

    def start(self) -> None:
        if self._port:
            place = ['-i', _HOST, '-p', str(self._port)]
        else:
            self._socket.unlink(missing_ok=True)
            place = ['-U', str(self._socket)]
        self._process = subprocess.Popen(
            [
                *('nbdkit', '-f', '-r', *place, '--filter=log', '--filter=error'),
                *(*self._plugin(), f'logfile={self._log}', 'logappend=true'),
                *('error=EIO', 'error-pread-rate=100%', f'error-file={self.failing}'),
            ],
            env=self._site.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._site.account.is_server(self._process.pid)
        waiting.until(self._listens, f'nbdkit at {self.uri}')

    def _plugin(self) -> list[str]:
        if self._bad is None:
            return ['file', str(self.path)]
        read = _BAD_READ.format(bad=self._bad, path=self.path)
        return ['eval', f'get_size=stat -c %s {self.path}', f'pread={read}']

    def damage(self, bad: Sequence[tuple[int, int]]) -> None:
        """Let these (offset, length) in bytes be what cannot be read, and no others."""
        assert self._bad is not None
        hidden = self._bad.with_suffix('.new')
        hidden.write_text(''.join(f'{offset} {offset + length}\n' for offset, length in bad))
        hidden.replace(self._bad)

    def mend(self) -> None:
        self.damage([])

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(waiting.PATIENCE)
            self._process = None

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, 'nbdkit ended'
        if not self._port:
            if not self._socket.exists():
                return False
            self._socket.chmod(0o666)
        kind = socket.AF_INET if self._port else socket.AF_UNIX
        with socket.socket(kind) as client:
            try:
                client.connect((_HOST, self._port) if self._port else str(self._socket))
            except OSError:
                return False
        return True

    def reads(self) -> list[tuple[int, int]]:
        """Return (offset, length) of all reads so far."""
        if not self._log.exists():
            return []
        found = _READ.findall(self._log.read_text())
        return [(int(offset, 16), int(count, 16)) for offset, count in found]

    def questions(self) -> int:
        """Return how often somebody asked which ranges are zeros."""
        return len(_EXTENTS.findall(self._log.read_text()))

    def bytes_read(self) -> int:
        return sum(length for _, length in self.reads())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _greets(place: pathlib.Path) -> bool:
    """Whether a server has said a word: it listens before it opens its file."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(waiting.PATIENCE)
        try:
            client.connect(str(place))
            return bool(client.recv(1))
        except (FileNotFoundError, ConnectionError):
            return False


class QemuNbd:
    """A qemu-nbd that serves one file under one name, until the test's processes have left."""

    def __init__(self, site: Site, path: pathlib.Path, export: str) -> None:
        place = site.folder / 'qemu-nbd.sock'
        command = ['qemu-nbd', '-r', '-t', '-f', 'raw', '-k', str(place), '-x', export, str(path)]
        process = subprocess.Popen(command, env=site.environment, stdin=subprocess.DEVNULL)
        site.account.is_server(process.pid)

        def stop() -> None:
            process.terminate()
            process.wait(waiting.PATIENCE)

        site.account.surroundings.callback(stop)
        waiting.until(lambda: _greets(place), 'qemu-nbd')
        place.chmod(0o666)
        self.uri = f'nbd+unix:///{export}?socket={place}'


Serve = Callable[..., NbdServer]
"""Of the fixture ``serve``."""
Maker = Callable[[Site], tuple[pathlib.Path, str, str]]
"""Makes a base and returns its path, its format and what is to be said of it."""
