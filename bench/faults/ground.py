# SPDX-License-Identifier: Apache-2.0
"""What a host stands on: the file system of its caches, and the base of its image."""

from collections.abc import Iterator
import dataclasses
import errno
import fcntl
import itertools
import os
import pathlib
import random
import shlex
import shutil
import signal
import subprocess
import time

import psutil

from bench.faults.guest import Node
from nova_qcache.system import files
from tests.functional import account
from tests.functional import bases
from tests.functional import users
from tests.functional import waiting
from tests.functional.site import MIB
from tests.functional.site import Site

__all__ = ['Base', 'Disk', 'Ground', 'free_blocks', 'has_ended', 'signal_all']

_EXT4_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN of the kernel's fs/ext4/ext4.h."""
_NOTHING_FLUSHED = b'\x02\x00\x00\x00'
"""EXT4_GOING_FLAGS_NOLOGFLUSH: what is not on the disk by now is lost."""
_ROOM_MIB = 40
"""What a file system of its own has beyond the quota."""


@dataclasses.dataclass(frozen=True)
class Ground:
    """What a fault needs."""

    disk: str = 'folder'
    """``folder``, ``tmpfs`` or ``ext4``: the last two are small file systems of their own."""
    base: str = 'file'
    """``file``, ``qcow2``, ``nbd``, ``tcp``, or ``fuse``: a file through bindfs."""
    quota_mib: int = 64
    reconnect_seconds: int = 300


class Disk:
    """Where ``cache_path`` is."""

    def __init__(self, site: Site, ground: Ground) -> None:
        self.path = site.cache_path
        self._kind = ground.disk
        self._image = site.folder / 'cache.ext4'
        size = ground.quota_mib + _ROOM_MIB
        if self._kind == 'tmpfs':
            options = f'size={size}m,nr_inodes=80'
            site.mount(self.path, '-t', 'tmpfs', '-o', options, 'tmpfs', user=users.PRODUCT)
        elif self._kind == 'ext4':
            with self._image.open('wb') as file:
                file.truncate(size * MIB)
            command = ['mkfs.ext4', '-q', '-m', '0', '-N', '80', str(self._image)]
            subprocess.run(command, check=True)
            site.mount(self.path, '-o', 'loop', str(self._image), user=users.PRODUCT)
            # Whose folder it is was so for long, and does not go with the power.
            files.sync_folder(self.path)

    @property
    def is_mounted(self) -> bool:
        return self._kind != 'folder'

    def fill(self) -> None:
        """Take all space that is left, as somebody else's file does."""
        assert self.is_mounted
        with (self.path / 'filler').open('wb', buffering=0) as file:
            for size in (MIB, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as e:
                    if e.errno != errno.ENOSPC:
                        raise

    def fill_inodes(self) -> None:
        assert self.is_mounted
        folder = self.path / 'fillers'
        folder.mkdir()
        for number in itertools.count():
            try:
                (folder / str(number)).touch()
            except OSError as e:
                if e.errno != errno.ENOSPC:
                    raise
                return

    def free(self) -> None:
        """Give back what was taken."""
        (self.path / 'filler').unlink(missing_ok=True)
        for path in (self.path / 'fillers').glob('*'):
            path.unlink()
        if (self.path / 'fillers').exists():
            (self.path / 'fillers').rmdir()

    def lose_power(self) -> None:
        """What was not synced is lost, from now on nothing can be written."""
        assert self._kind == 'ext4'
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _EXT4_SHUTDOWN, _NOTHING_FLUSHED)
        finally:
            os.close(fd)

    def come_back(self) -> list[str]:
        """Mount it again after that, which replays its journal; return what is wrong with it."""
        waiting.until(self._is_unmounted, 'the end of whoever uses the file system')
        # A mount namespace that was made meanwhile, by whomever, has the mount as well: this file
        # mounted again would be the file system that is dead.
        dead, self._image = self._image, self._image.with_suffix('.again')
        shutil.copyfile(dead, self._image)
        dead.unlink()
        mount = ['mount', '-o', 'loop', str(self._image), str(self.path)]
        alone = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c']
        replay = f'{shlex.join(mount)} && umount {shlex.quote(str(self.path))}'
        subprocess.run([*alone, replay], check=True)
        done = subprocess.run(
            ['e2fsck', '-f', '-n', str(self._image)], capture_output=True, text=True
        )
        subprocess.run(mount, check=True)
        return [f'e2fsck: {done.stdout.strip()[-300:]}'] if done.returncode else []

    def _is_unmounted(self) -> bool:
        return not subprocess.run(['umount', str(self.path)], capture_output=True).returncode


def free_blocks(path: pathlib.Path) -> tuple[int, int]:
    """Return the free bytes and the free inodes of a file system."""
    facts = os.statvfs(path)
    return facts.f_bfree * facts.f_frsize, facts.f_ffree


class Base:
    """A base of random data with holes."""

    def __init__(self, site: Site, ground: Ground, chance: random.Random) -> None:
        self.site = site
        self.kind = ground.base
        self.size = chance.randrange(64, 257, 16) * MIB
        self.format = 'raw'
        self.data = sorted(_extents(chance, self.size))
        self.reference = self._make(chance)
        self._reconnect_seconds = ground.reconnect_seconds
        self.server: bases.NbdServer | None = None
        self.name = str(self.reference)
        path = self.reference
        if self.kind == 'qcow2':
            self.format = 'qcow2'
            path = bases.make_qcow2(site, self.reference)
            self.name = str(path)
        elif self.kind == 'fuse':
            shown = site.make_folder('shown')
            site.bindfs(site.bases, shown)
            path = shown / self.reference.name
            self.name = str(path)
        elif self.kind in ('nbd', 'tcp'):
            self.server = bases.NbdServer(site, self.reference, tcp=self.kind == 'tcp')
            self.name = self.server.uri
        self._path = path

    def _make(self, chance: random.Random) -> pathlib.Path:
        path = self.site.bases / 'base.raw'
        with path.open('wb') as file:
            file.truncate(self.size)
            for offset, length in self.data:
                file.seek(offset)
                for _ in range(length // MIB):
                    file.write(chance.randbytes(MIB))
        os.chown(path, users.PRODUCT.uid, users.PRODUCT.gid)
        path.chmod(0o644)
        return path

    def nodes(self) -> list[Node]:
        """Return how a guest's qemu opens it; a plain chain waits for a remote base, too."""
        file: Node = {'driver': 'file', 'filename': str(self._path), 'read-only': True}
        if self.server is not None:
            file = {'driver': 'nbd', 'reconnect-delay': self._reconnect_seconds}
            file['server'] = self._server_address(self.server.uri)
        node: Node = {'driver': self.format, 'node-name': 'base', 'read-only': True, 'file': file}
        if self.format == 'qcow2':
            node['backing'] = None
        return [node]

    def _server_address(self, uri: str) -> dict[str, str]:
        if self.kind == 'tcp':
            host, _, port = uri.removeprefix('nbd://').rstrip('/').partition(':')
            return {'type': 'inet', 'host': host, 'port': port}
        return {'type': 'unix', 'path': uri.partition('socket=')[2]}

    def hang(self) -> None:
        """It answers nothing and refuses nothing: a hard mount whose server is away."""
        signal_all(self._servers(), signal.SIGSTOP)

    def go_on(self) -> None:
        signal_all(self._servers(), signal.SIGCONT)

    def _servers(self) -> list[psutil.Process]:
        found = []
        for process in account.processes_of(self.site.folder):
            if process.name() in ('nbdkit', 'bindfs'):
                found.append(process)
        assert found, 'the base has no server'
        return found


def signal_all(processes: list[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to each of these; what is killed or stopped has been when this returns."""
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
    if number in (signal.SIGSTOP, signal.SIGKILL):
        seen = _has_stopped if number == signal.SIGSTOP else has_ended
        deadline = time.monotonic() + waiting.PATIENCE
        while time.monotonic() < deadline and not all(map(seen, processes)):
            time.sleep(0.002)


def _has_stopped(process: psutil.Process) -> bool:
    try:
        return has_ended(process) or process.status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return True


def has_ended(process: psutil.Process) -> bool:
    """Return whether it runs no more, whether or not its parent has noticed."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _extents(chance: random.Random, size: int) -> Iterator[tuple[int, int]]:
    """Yield where a base has data: 24 MiB in pieces of 2 MiB."""
    for place in chance.sample(range(size // (2 * MIB)), 12):
        yield place * 2 * MIB, 2 * MIB
