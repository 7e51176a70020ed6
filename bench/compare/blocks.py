# SPDX-License-Identifier: Apache-2.0
"""Block nodes and what serves them: exports of qemu-storage-daemon, files of FUSE."""

from collections.abc import Iterator
import contextlib
import json
import pathlib
import socket
import subprocess
from typing import Any

from bench.compare.host import Host
from bench.compare.host import Node
from bench.rig import BenchError

__all__ = ['Monitor', 'chain', 'exported', 'mounted', 'nbd', 'raw', 'separate']

_ANSWER_SECONDS = 60


def raw(file: Node) -> Node:
    return {'driver': 'raw', 'read-only': True, 'file': {**file, 'read-only': True}}


def nbd(socket_path: object, export: str) -> Node:
    server = {'type': 'unix', 'path': str(socket_path)}
    return {'driver': 'nbd', 'server': server, 'export': export}


def chain(cache: Node) -> Node:
    """A sealed cache on the base, as a PLAY boot has it below the overlay.

    The base is where the cache's own header says: in a node that is described inside another one,
    qemu takes either that name or options of another kind for it, never both.
    """
    base = {'driver': 'raw', 'read-only': True}
    file = {**cache, 'read-only': True}
    return {'driver': 'qcow2', 'read-only': True, 'file': file, 'backing': base}


def separate(node: Node, base: Node) -> list[Node]:
    """Return a node and all below it as nodes by themselves, those below first.

    :param base: what stands where a header is to say what the base is
    """
    found: list[Node] = []

    def add(each: Node, is_backing: bool) -> str:
        if each['driver'] in ('raw', 'qcow2', 'copy-on-read') and 'file' not in each:
            each = base
        # By itself nothing says that a node is only read.
        flat = {**each, 'read-only': True} if is_backing else dict(each)
        for role in ('file', 'backing'):
            if isinstance(each.get(role), dict):
                flat[role] = add(each[role], is_backing or role == 'backing')
        flat['node-name'] = f'node{len(found)}'
        found.append(flat)
        return str(flat['node-name'])

    add(node, False)
    return found


class Monitor:
    """QMP over a socket, one command at a time."""

    def __init__(self, path: pathlib.Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_ANSWER_SECONDS)
        self._socket.connect(str(path))
        self._file = self._socket.makefile('rb')
        self._file.readline()
        self.execute('qmp_capabilities')

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        request = {'execute': command, 'arguments': arguments or {}}
        self._socket.sendall(json.dumps(request).encode() + b'\n')
        while True:
            answer = json.loads(self._file.readline())
            if 'return' in answer:
                return answer['return']
            if 'error' in answer:
                raise BenchError(f'{command}: {answer["error"]["desc"]}')

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@contextlib.contextmanager
def exported(host: Host, node: Node, name: str, *, writable: bool = False) -> Iterator[Monitor]:
    """Serve a node on the host's socket of that name, as export ``top``."""
    served, monitor = host.sockets / name, host.sockets / f'{name}.qmp'
    process = host.start(
        [
            'qemu-storage-daemon',
            *('--chardev', f'socket,id=qmp,path={monitor},server=on,wait=off'),
            *('--monitor', 'chardev=qmp'),
            *('--blockdev', json.dumps({**node, 'node-name': 'top'})),
            *('--nbd-server', f'addr.type=unix,addr.path={served},max-connections=0'),
            *('--export', f'type=nbd,id=top,node-name=top,name=top,writable={_on(writable)}'),
        ]
    )
    host.wait_for(served, process)
    talk = Monitor(monitor)
    try:
        yield talk
    finally:
        talk.close()
        process.kill()
        process.wait()


def _unmount(folder: pathlib.Path) -> None:
    # Lazily: whoever has it open is ended right after.
    command = ['umount', '--lazy', str(folder)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)


def _on(value: bool) -> str:
    return 'on' if value else 'off'


def mounted(host: Host, reference: str, *, keep: bool) -> pathlib.Path:
    """Make what an NBD server serves a file of the host, as a network file system does.

    :param keep: whether its pages stay in the page cache when nobody has it open
    """
    folder = host.folder / f'mount-{len(list(host.folder.iterdir()))}'
    folder.mkdir()
    file = folder / 'image'
    process = host.start([*host.prefix, 'nbdfuse', '-r', file, reference])
    host.at_end(_unmount, folder)
    host.wait_for(file, process)
    if not keep:
        return file
    kept = folder.with_name(f'{folder.name}-kept')
    kept.mkdir()
    options = ['-f', '-r', '-o', 'kernel_cache']
    process = host.start([*host.prefix, 'bindfs', *options, folder, kept])
    host.at_end(_unmount, kept)
    host.wait_for(kept / 'image', process)
    return kept / 'image'
