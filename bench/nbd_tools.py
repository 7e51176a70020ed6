# SPDX-License-Identifier: Apache-2.0
"""NBD servers and clients of the benchmarks: bases that count, exports of a chain, guests."""

from collections.abc import Iterator, Sequence
import contextlib
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import tempfile
import time
from typing import Any
import uuid

from rig import BenchError
from rig import Folders

from nova_qcache.plan import EXPORT_NAME

NBD_PYTHON = os.environ.get('NBD_PYTHON', '/usr/bin/python3')
LOAD = pathlib.Path(__file__).resolve().with_name('nbd_load.py')
START_SECONDS = 20

Node = dict[str, Any]


def uri(socket_path: object, export: str = EXPORT_NAME) -> str:
    return f'nbd+unix:///{export}?socket={socket_path}'


# -- servers


def _wait_for_socket(path: pathlib.Path, process: 'subprocess.Popen[bytes]', errors: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
            client.settimeout(START_SECONDS)
            client.connect(str(path))
            if client.recv(8) == b'NBDMAGIC':
                return
        time.sleep(0.01)
    errors.seek(0)
    raise BenchError(f'{process.args!r} does not serve: {errors.read().decode()}')


@contextlib.contextmanager
def _serving(command: Sequence[str], path: pathlib.Path) -> Iterator[int]:
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True
        )
        try:
            _wait_for_socket(path, process, errors)
            yield process.pid
        finally:
            process.kill()
            process.wait()
            path.unlink(missing_ok=True)


_READ = re.compile(rb' Read id=\d+ offset=0x[0-9a-f]+ count=0x([0-9a-f]+) ')


class Base:
    """A remote base: an nbdkit whose log says exactly what was asked of it."""

    def __init__(self, path: pathlib.Path, log_file: pathlib.Path) -> None:
        self.reference = uri(path, '')
        self.node: Node = {'driver': 'nbd', 'server': {'type': 'unix', 'path': str(path)}}
        self._log = log_file

    def asked(self) -> tuple[int, int]:
        """Return the number of reads so far and the sum of their lengths in bytes."""
        lengths = [int(count, 16) for count in _READ.findall(self._log.read_bytes())]
        return len(lengths), sum(lengths)


@contextlib.contextmanager
def nbdkit(
    where: Folders, image: pathlib.Path, rate: str | None = None, delay_ms: int = 0
) -> Iterator[Base]:
    """Serve a raw file as a base, always at the same place; one at a time.

    :param rate: bits per second over all connections, with nbdkit's suffixes
    :param delay_ms: of each read
    """
    path = where.sockets / 'base.nbd'
    log_file = where.data / f'{path.name}.log'
    command = ['nbdkit', '-f', '-r', '-U', str(path)]
    settings = [f'logfile={log_file}']
    if rate:
        command.append('--filter=rate')
        settings.append(f'rate={rate}')
    if delay_ms:
        command.append('--filter=delay')
        settings.append(f'rdelay={delay_ms}ms')
    command += ['--filter=log', 'file', str(image), *settings]
    with _serving(command, path):
        yield Base(path, log_file)
    log_file.unlink()


def file_node(path: object, direct: bool = False) -> Node:
    cache = {'cache': {'direct': True}} if direct else {}
    return {'driver': 'file', 'filename': str(path), 'read-only': True, **cache}


def raw(file: Node) -> Node:
    return {'driver': 'raw', 'read-only': True, 'file': file}


def chain(cache: Node, base: str | None = None) -> Node:
    """What a guest's qemu opens below the overlay in a PLAY boot.

    :param base: the name of a node; without it, the base is where the cache's own header says
    """
    backing = base or {'driver': 'raw', 'read-only': True}
    return {'driver': 'qcow2', 'read-only': True, 'file': cache, 'backing': backing}


@contextlib.contextmanager
def export(where: Folders, *nodes: Node) -> Iterator[str]:
    """Serve the last of these nodes read-only, and give its URI."""
    path = where.sockets / f'{uuid.uuid4().hex[:8]}.export'
    *below, top = nodes
    command = ['qemu-storage-daemon']
    for node in (*below, {**top, 'node-name': 'top'}):
        command += ['--blockdev', json.dumps(node)]
    command += ['--nbd-server', f'addr.type=unix,addr.path={path},max-connections=0']
    command += ['--export', f'type=nbd,id=top,node-name=top,name={EXPORT_NAME}']
    with _serving(command, path):
        yield uri(path)


# -- guests


def connect(socket_path: object, seconds: float = START_SECONDS) -> None:
    """Connect as a guest's qemu does, up to the first sector, and go away again."""
    with socket.socket(socket.AF_UNIX) as guest, guest.makefile('rb') as answers:
        guest.settimeout(seconds)
        guest.connect(str(socket_path))
        if answers.read(18)[:16] != b'NBDMAGICIHAVEOPT':
            raise BenchError(f'no NBD server on {socket_path}')
        name = EXPORT_NAME.encode()
        data = struct.pack('>I', len(name)) + name + struct.pack('>H', 0)
        guest.sendall(struct.pack('>I8sII', 3, b'IHAVEOPT', 7, len(data)) + data)
        kind = 0
        while kind != 1:  # NBD_REP_ACK ends the export's description
            _, _, kind, length = struct.unpack('>QIII', answers.read(20))
            answers.read(length)
            if kind >> 31:
                raise BenchError(f'{socket_path} refuses the export: {kind:#x}')
        guest.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 0, 1, 0, 512))
        if struct.unpack('>III', answers.read(16)[:12])[:2] != (0x67446698, 0):
            raise BenchError(f'{socket_path} does not answer a read')
        answers.read(512)
        guest.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 2, 2, 0, 0))


def start_load(
    export_uri: str, reference: pathlib.Path, *arguments: object
) -> 'subprocess.Popen[str]':
    """Start bench/nbd_load.py; :func:`finish_load` ends it."""
    command = [NBD_PYTHON, str(LOAD), '--uri', export_uri, '--reference', str(reference)]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish_load(process: 'subprocess.Popen[str]', seconds: float = 600) -> dict[str, Any]:
    try:
        output, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise BenchError(f'{process.args!r}: {errors.strip()}')
    counts: dict[str, Any] = json.loads(output)
    return counts


def load(export_uri: str, reference: pathlib.Path, *arguments: object) -> dict[str, Any]:
    return finish_load(start_load(export_uri, reference, *arguments))
