# SPDX-License-Identifier: Apache-2.0
"""NBD servers and clients of the benchmarks: exports of a chain, guests."""

from collections.abc import Iterator, Sequence
import contextlib
import json
import os
import pathlib
import socket
import struct
import subprocess
import tempfile
import time
from typing import Any
import uuid

from rig import BenchError
from rig import Folders

from nova_qcache.model.plan import EXPORT_NAME

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


def file_node(path: object) -> Node:
    return {'driver': 'file', 'filename': str(path), 'read-only': True}


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
