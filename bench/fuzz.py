# SPDX-License-Identifier: Apache-2.0
"""Feed damaged documents to everything that reads what others wrote: files, sockets, names.

Each target is one parser and valid documents for it, which are damaged before it reads them. It
may answer, or raise one of the errors of nova_qcache.exception that it documents; all else is a
failure, which is printed with its case. The same seed makes the same cases.
"""

import argparse
import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import json
import pathlib
import sys
import tempfile
import time
import traceback
from types import SimpleNamespace
from typing import Any
from unittest import mock

from damage import Damage

from nova_qcache import exception
from nova_qcache.bases import generation
from nova_qcache.cache import leases
from nova_qcache.model import record
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import canonical_image_id
from nova_qcache.model.key import Generation
from nova_qcache.qemu.qmp import Monitor
from nova_qcache.recorder.control_server import ControlServer
from nova_qcache.system import control

KEY = CacheKey('0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9', Generation('0123456789ab', 3))
MOST_SHOWN = 5
"""Failures of one target that are printed in full."""
QMP_SHARE = 500
"""A case of QMP is a session with a server and takes milliseconds: so many times fewer."""
QMP_SECONDS = 0.02
"""For an answer that may never come."""

SEALED = {
    'size': 65536,
    'inode': 11,
    'mtime_ns': 1_700_000_001_000_000_000,
    'digest': 'sha256:' + 'ab' * 32,
    'reason': 'idle',
    'sealed_at': 1_700_000_001.5,
}
RECORD = {
    'version': 1,
    'image_id': KEY.image_id,
    'generation': {'epoch': KEY.generation.epoch, 'n': KEY.generation.n},
    'state': 'WARMING',
    'base': '/base/image',
    'base_format': 'raw',
    'base_identity': {'size': 4096, 'inode': 7, 'mtime_ns': 1_700_000_000_000_000_000},
    'virtual_size': 1 << 26,
    'quota': 1 << 24,
    'cluster_size': 4096,
    'extended_l2': False,
    'created_at': 1_700_000_000.25,
    'revision': 1,
    'image_hashes': ['ab' * 32],
    'stale_reason': '',
}
STATUS = {
    'phase': 'recording',
    'guests': 2,
    'recorded_bytes': 4096,
    'pid': 10,
    'daemon_pid': 11,
    'note': 'a note',
}
GREETING = {
    'QMP': {
        'version': {'qemu': {'micro': 0, 'minor': 2, 'major': 7}, 'package': ''},
        'capabilities': [],
    }
}
EVENT = {
    'event': 'BLOCK_WRITE_THRESHOLD',
    'data': {'node-name': 'cfile', 'amount-exceeded': 1, 'write-threshold': 2},
    'timestamp': {'seconds': 1, 'microseconds': 2},
}

# -- targets


class Content:
    """In place of a path: a file that has this content."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read_bytes(self) -> bytes:
        return self._content


class Connection:
    """In place of a socket: on which this is said, and then the other side hangs up."""

    said = b''

    def __init__(self, *_: object) -> None:
        self._left = [self.said]

    def __enter__(self) -> 'Connection':
        return self

    def __exit__(self, *_: object) -> None: ...

    def settimeout(self, seconds: float) -> None: ...

    def connect(self, path: str) -> None: ...

    def sendall(self, request: bytes) -> None: ...

    def recv(self, size: int) -> bytes:
        return self._left.pop()[:size] if self._left else b''


def read_record(text: bytes) -> None:
    found = record.loads(text, '/cache/x.json', KEY)
    assert found.key == KEY
    assert record.loads(record.dumps(found), '/cache/x.json', KEY) == found


def read_lease(text: bytes) -> None:
    found = leases._read(Content(text))  # type: ignore[arg-type]
    if found is not None:
        assert isinstance(leases._lasts(found), bool)
        assert CacheKey.from_stem(found.key.stem) == found.key


def read_generation(text: bytes) -> None:
    found = generation._read(Content(text))  # type: ignore[arg-type]
    if found is not None:
        assert CacheKey.from_stem(CacheKey(KEY.image_id, found).stem) is not None


def read_key(text: bytes) -> None:
    name = text.decode('utf-8', 'surrogateescape')
    found = CacheKey.from_stem(name)
    assert found is None or found.stem == name
    image_id = canonical_image_id(name[:36] if len(name) > 40 else name)
    assert '/' not in image_id


def read_reply(text: bytes) -> None:
    Connection.said = text.replace(b'\n', b' ') + b'\n'
    status = control.RecorderClient(pathlib.Path('/run/x.ctl')).status()
    assert all(isinstance(getattr(status, name), int) for name in control._NUMBERS)
    assert status.note.encode() is not None


async def say_status(command: str, request: Mapping[str, Any]) -> dict[str, Any]:
    return STATUS


SERVER = ControlServer(pathlib.Path('/run/x.ctl'), ('status', 'seal'), say_status)


def read_request(text: bytes) -> None:
    async def reply_to() -> bytes:
        reader = asyncio.StreamReader()
        reader.feed_data(text)
        reader.feed_eof()
        return await SERVER._reply(reader)

    assert isinstance(json.loads(asyncio.run(reply_to())), dict)


@dataclasses.dataclass(frozen=True)
class Target:
    parse: Callable[[bytes], object]
    valid: Sequence[Any]
    """Documents, or texts that are no JSON."""
    allowed: tuple[type[Exception], ...] = ()

    def cases(self, count: int, damage: Damage) -> Iterator[bytes]:
        for _ in range(count):
            valid = damage.choice(self.valid)
            is_text = isinstance(valid, bytes)
            yield damage.text(valid) if is_text else damage.document(valid)


TARGETS = {
    'record': Target(
        read_record,
        [
            RECORD,
            {**RECORD, 'state': 'READY', 'sealed': SEALED},
            {**RECORD, 'state': 'STALE', 'sealed': SEALED, 'stale_reason': 'differs'},
        ],
        (exception.RecordBroken,),
    ),
    'lease': Target(
        read_lease,
        [{'consumer': 'x', 'stem': KEY.stem, 'until': 1e9, 'boot_id': leases.boot_id()}],
    ),
    'generation': Target(read_generation, [{'epoch': '0123456789ab', 'n': 3}]),
    'key': Target(
        read_key, [KEY.stem.encode(), KEY.image_id.encode()], (exception.InvalidImageId,)
    ),
    'recorder reply': Target(
        read_reply,
        [STATUS, {'version': 1, **STATUS}, {'error': 'no such command'}],
        (exception.RecorderUnreachable,),
    ),
    'door request': Target(
        read_request, [{'command': 'status'}, {'version': 1, 'command': 'seal'}]
    ),
}


class Failures:
    """Of one target."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.count = 0

    def add(self, case: object, error: BaseException) -> None:
        self.count += 1
        if self.count <= MOST_SHOWN:
            said = ''.join(traceback.format_exception(error)[-3:])
            shown = said.encode(errors='backslashreplace').decode()
            print(f'{self._name}: {case!r:.2000}\n{shown}', file=sys.stderr)


def is_fit(error: Exception, allowed: tuple[type[Exception], ...]) -> bool:
    """Whether an error is a documented one, and one that can be shown to people."""
    if not isinstance(error, allowed):
        return False
    with contextlib.suppress(UnicodeEncodeError):
        return bool(str(error).encode())
    return False


def run(name: str, target: Target, count: int, seed: object) -> int:
    """Return how many cases failed."""
    failures = Failures(name)
    connection = SimpleNamespace(socket=Connection, AF_UNIX=1, SOCK_STREAM=1)
    with mock.patch.object(control, 'socket', connection):
        for case in target.cases(count, Damage(f'{seed}/{name}')):
            try:
                target.parse(case)
            except Exception as e:
                if not is_fit(e, target.allowed):
                    failures.add(case, e)
    return failures.count


# -- QMP, which takes a server


def conversations(count: int, damage: Damage) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield a greeting, and what is said after each command; ``ID`` stands for the command's."""
    replies = [{'return': {}, 'id': 'ID'}, {'error': {'class': 'E', 'desc': 'no'}, 'id': 'ID'}]
    for number in range(count):
        greeting = json.dumps(GREETING).encode()
        if number % 10 == 0:  # and no more, since one that is refused is waited for
            greeting = damage.document(GREETING)
        elif number % 10 == 5:
            version = damage.document(GREETING['QMP']['version'])
            greeting = b'{"QMP": {"version": %s, "capabilities": []}}' % version
        agreed = json.dumps(replies[0]).encode()
        said = [
            agreed if number % 3 else damage.document(replies[0]),
            damage.document(EVENT) + b'\r\n' + damage.document(damage.choice(replies)),
            damage.document(damage.choice(replies)),
        ]
        yield greeting, said


async def talk(path: pathlib.Path, greeting: bytes, said: Iterable[bytes]) -> None:
    """Be a recorder that talks to such a daemon."""
    left = iter(said)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError):
            writer.write(greeting + b'\r\n')
            while command := await reader.read(65536):  # there is no newline behind it
                its_id = json.dumps(json.loads(command).get('id')).encode()
                writer.write(next(left, b'{}').replace(b'"ID"', its_id) + b'\r\n')
        writer.close()

    async def listen() -> None:
        async for data in monitor.events('BLOCK_WRITE_THRESHOLD'):
            assert isinstance(data, dict)

    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(serve, str(path))
    monitor = Monitor(path)
    listener = asyncio.create_task(listen())
    try:
        await monitor.connect(QMP_SECONDS)
        monitor.require_version('qemu-storage-daemon')
        for _ in range(2):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(monitor.execute('x-test'), QMP_SECONDS)
    except exception.QcacheError as e:
        assert is_fit(e, (exception.QcacheError,))
    finally:
        await monitor.disconnect()
        listener.cancel()
        await asyncio.wait([listener])
        server.close()
    if not listener.cancelled():
        listener.result()


async def run_qmp(count: int, seed: object) -> int:
    failures = Failures('qmp')
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    with tempfile.TemporaryDirectory(prefix='qc-') as folder:
        for greeting, said in conversations(count, Damage(f'{seed}/qmp')):
            try:
                await talk(pathlib.Path(folder, 'qmp'), greeting, said)
            except Exception as e:
                failures.add((greeting, said), e)
    return failures.count


def main() -> int:
    parser = argparse.ArgumentParser(description='Damage what others wrote, and read it.')
    parser.add_argument('--cases', type=int, default=1_000_000, help='for each parser')
    parser.add_argument('--seed', default='0')
    parser.add_argument('--only', choices=[*TARGETS, 'qmp'], action='append')
    parser.add_argument('--json', type=pathlib.Path, metavar='FILE')
    options = parser.parse_args()
    found = {}
    for name in options.only or [*TARGETS, 'qmp']:
        begin = time.monotonic()
        if name == 'qmp':
            count = max(1, options.cases // QMP_SHARE)
            failed = asyncio.run(run_qmp(count, options.seed))
        else:
            count = options.cases
            failed = run(name, TARGETS[name], count, options.seed)
        seconds = round(time.monotonic() - begin, 1)
        found[name] = {'cases': count, 'failures': failed, 'seconds': seconds}
        print(f'{name}: {count} cases, {failed} failed, {seconds} s', flush=True)
    if options.json:
        report = {'seed': options.seed, 'targets': found}
        options.json.write_text(json.dumps(report, indent=1) + '\n')
    return 1 if any(target['failures'] for target in found.values()) else 0


if __name__ == '__main__':
    sys.exit(main())
