# SPDX-License-Identifier: Apache-2.0
"""One simulated compute host: folders of its own, the processes that are started for it, and what
they use."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import time
from typing import Any
import uuid

from bench import rig
from bench.compare.network import BaseServer
from bench.compare.replayer import Usage
from bench.compare.replayer import usage

__all__ = ['Host', 'Node', 'local_file']

Node = dict[str, Any]
_START_SECONDS = 20


def local_file(path: object, *, direct: bool = True) -> Node:
    """A file of the host as Nova opens it: by default, without the page cache."""
    return {'driver': 'file', 'filename': str(path), 'cache': {'direct': direct}}


class Host:
    """Nothing is cached on it at first. All that it started has ended when it is closed.

    :param base: where the image is, at the far end of the network
    :param export: the name of the image there
    :param image: the same bytes in a local file
    """

    def __init__(
        self,
        where: rig.Folders,
        base: BaseServer,
        export: str,
        image: pathlib.Path,
        *,
        direct: bool = True,
    ) -> None:
        name = uuid.uuid4().hex[:8]
        self.folder = where.data / f'host-{name}'
        self.sockets = where.sockets / name
        self.base = base
        self.export = export
        self.image = image
        self.direct = direct
        self.prefix: Sequence[str] = ()
        """Words before the command of a guest."""
        self._undo = contextlib.ExitStack()
        self.folder.mkdir()
        self.sockets.mkdir()

    def __enter__(self) -> 'Host':
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._undo.close()
        finally:
            rig.end_processes(self.folder, self.sockets)
            shutil.rmtree(self.folder)
            shutil.rmtree(self.sockets, ignore_errors=True)

    # -- what stands on it

    def base_node(self) -> Node:
        return self.base.node(self.export)

    def base_reference(self) -> str:
        return self.base.reference(self.export)

    def local(self, path: object) -> Node:
        return local_file(path, direct=self.direct)

    @contextlib.contextmanager
    def overlay(self, below: Node) -> Iterator[Node]:
        """The disk of one guest, for writing; it is gone afterwards, as with its server."""
        path = self.folder / f'{uuid.uuid4().hex[:8]}.overlay'
        size = str(self.image.stat().st_size)
        command = ['qemu-img', 'create', '-q', '-f', 'qcow2', str(path), size]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)
        try:
            yield {'driver': 'qcow2', 'file': self.local(path), 'backing': below}
        finally:
            path.unlink()

    def start(self, command: Sequence[object], **environment: str) -> 'subprocess.Popen[bytes]':
        """Start a process that lives as long as the host."""
        process = subprocess.Popen(
            ['setpriv', '--pdeathsig', 'KILL', '--', *map(str, command)],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / 'errors').open('ab'),
        )

        def end() -> None:
            process.kill()
            process.wait()

        self._undo.callback(end)
        return process

    def at_end(self, undo: Callable[..., object], *arguments: object) -> None:
        """Call this at the end, before the processes that were started until now are ended."""
        self._undo.callback(undo, *arguments)

    def wait_for(self, what: pathlib.Path, process: 'subprocess.Popen[bytes]') -> None:
        """Wait until a socket accepts, or a file is there.

        :raises BenchError: if that does not come, with what its process complained of
        """
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if what.is_socket():
                with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
                    client.connect(str(what))
                    return
            elif what.is_file():
                return
            time.sleep(0.01)
        errors = (self.folder / 'errors').read_text(errors='replace')
        raise rig.BenchError(f'{process.args!r} does not serve: {errors}')

    # -- what it uses

    def used(self) -> dict[int, Usage]:
        """What each of its processes has used that lives now; guests apart."""
        return {pid: usage(pid) for pid in self._processes()}

    def used_since(self, before: Mapping[int, Usage]) -> Usage:
        """What they have used since :meth:`used` was asked; of those that ended, nothing."""
        total = Usage()
        for pid, now in self.used().items():
            total += now - before.get(pid, Usage())
        return total

    def disk_bytes(self) -> int:
        """What its files take, those included that have no name any more."""
        inodes = {}
        for path in self.folder.rglob('*'):
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink():
                    inodes[path.stat().st_ino] = path.stat().st_blocks * 512
        for pid in self._processes():
            with contextlib.suppress(OSError):
                for fd in pathlib.Path(f'/proc/{pid}/fd').iterdir():
                    if os.readlink(fd).startswith(f'{self.folder}/'):
                        inodes[fd.stat().st_ino] = fd.stat().st_blocks * 512
        return sum(inodes.values())

    def _processes(self) -> list[int]:
        named = [os.fsencode(self.folder), os.fsencode(self.sockets)]
        found = []
        for entry in pathlib.Path('/proc').iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    line = (entry / 'cmdline').read_bytes()
                    is_guest = b'qemu-io' in line or b'qemu-system' in line
                    if not is_guest and any(name in line for name in named):
                        found.append(int(entry.name))
        return found
