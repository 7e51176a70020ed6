# SPDX-License-Identifier: Apache-2.0
"""Small valid things to test with; each test changes the one part that it is about."""

from collections.abc import Iterator
import contextlib
import pathlib
import socket
from typing import Any

from oslo_config import cfg

from nova_qcache import conf as qcache_conf
from nova_qcache.cache import sealed_file
from nova_qcache.cache.catalog import Catalog
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.model.plan import Boot
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.record import SealedFile
from nova_qcache.model.source import BaseIdentity
from nova_qcache.model.source import Node
from nova_qcache.model.source import Source
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import Phase
from nova_qcache.model.states import State
from nova_qcache.stats.counters import Counters
from nova_qcache.system.control import Status

MIB = 1024 * 1024
IMAGE = '0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9'
OTHER_IMAGE = '0a1b2c3d-4e5f-6071-8293-000000000000'
GENERATION = Generation('0123456789ab', 3)
KEY = CacheKey(IMAGE, GENERATION)
BOOT = (IMAGE, 'memory://base', 'raw')
"""What Nova says of the disk of one boot."""
IDENTITY = BaseIdentity(size=4096, inode=7, mtime_ns=1_700_000_000_000_000_000)

NOT_IMAGE_IDS = {
    'empty': '',
    'parent folder': '../x',
    'parent folder of the right length': '../' + IMAGE[3:],
    'slash': f'{IMAGE[:8]}/{IMAGE[9:]}',
    'NUL': f'{IMAGE[:35]}\0',
    'NUL behind': f'{IMAGE}\0',
    '300 characters': 'a' * 300,
    'braces': f'{{{IMAGE}}}',
    'URN': f'urn:uuid:{IMAGE}',
    'no dashes': IMAGE.replace('-', ''),
    'trailing newline': f'{IMAGE}\n',
    'trailing newline in the length': f'{IMAGE[:35]}\n',
    'leading blank': f' {IMAGE}',
    'digits of another script': IMAGE.replace('0', '\N{ARABIC-INDIC DIGIT ZERO}'),
    'no hexadecimal digit': IMAGE[:-1] + 'g',
}
"""What Nova or an operator may give in place of an image ID."""


def config(folder: pathlib.Path, **options: Any) -> cfg.ConfigOpts:
    """A configuration with both folders in ``folder``, and ``options`` of [qcache]."""
    values = {
        'cache_path': str(folder / 'cache'),
        'run_path': str(folder / 'run'),
        'quota': 16,
        'min_free': 0,  # whatever is free where tests run
        'lock_timeout_seconds': 60,
        'libvirt_uri': '',
        'start_keeper': False,
        'instances_path': str(folder / 'instances'),
        **options,
    }
    file = folder / 'nova.conf'
    lines = ['[qcache]', *(f'{name} = {value}' for name, value in values.items())]
    file.write_text('\n'.join(lines) + '\n')
    conf = cfg.ConfigOpts()
    qcache_conf.register_opts(conf)
    conf([f'--config-file={file}'], project='nova')
    return conf


def boot(**changes: Any) -> Boot:
    return Boot(*BOOT, **changes)


def sealed(**changes: Any) -> SealedFile:
    values: dict[str, Any] = {
        'size': 65536,
        'inode': 11,
        'mtime_ns': 1_700_000_001_000_000_000,
        'digest': 'sha256:' + 'ab' * 32,
        'reason': FinishReason.IDLE,
        'sealed_at': 1_700_000_001.5,
    }
    return SealedFile(**{**values, **changes})


def counters(**changes: Any) -> Counters:
    """Numbers that can be told from each other; bytes are the test's own."""
    numbers: dict[str, Any] = {
        'boots': 20,
        'plays': 9,
        'records': 2,
        'audits': 1,
        'plain': {'no-room': 5, 'policy': 3},
        'fallbacks': 1,
        'recordings': 2,
        'dropped_recordings': 4,
        'recording_seconds': 12.5,
        'evictions': {'room': 2},
        'verifications': {'equal': 6},
    }
    return Counters(**numbers | changes)


def record(state: State = State.RECORDING, **changes: Any) -> CacheRecord:
    values: dict[str, Any] = {
        'key': KEY,
        'state': state,
        'base': '/base/image',
        'base_format': 'raw',
        'base_identity': IDENTITY,
        'virtual_size': 64 * MIB,
        'quota': 16 * MIB,
        'cluster_size': 4096,
        'extended_l2': False,
        'created_at': 1_700_000_000.25,
        'sealed': sealed() if state in (State.READY, State.STALE) else None,
    }
    return CacheRecord(**{**values, **changes})


def warm(catalog: Catalog, content: bytes = b'cached', **changes: Any) -> CacheRecord:
    """Put a RECORDING cache with its file into a catalog."""
    warming = record(**changes)
    catalog.begin(warming)
    catalog.paths.recording(warming.key).write_bytes(content)
    return warming


def ready(catalog: Catalog, content: bytes = b'cached', **changes: Any) -> Any:
    """Put a READY cache with its file into a catalog."""
    warming = warm(catalog, content, **changes)
    path = catalog.paths.recording(warming.key)
    facts = sealed_file.describe(path, sealed_file.digest(path), FinishReason.IDLE)
    return catalog.seal(warming, facts)


def files(catalog: Catalog) -> dict[str, bytes]:
    """Return all files in the folder of the caches itself."""
    return {
        path.name: path.read_bytes()
        for path in catalog.paths.cache_path.iterdir()
        if path.is_file()
    }


def status(phase: Phase = Phase.RECORDING, **changes: Any) -> Status:
    values: dict[str, Any] = {
        'phase': phase,
        'guests': 0,
        'recorded_bytes': 0,
        'pid': 1234,
        'daemon_pid': 1235,
        'note': 'a note',
    }
    return Status(**{**values, **changes})


@contextlib.contextmanager
def listening(*paths: pathlib.Path) -> Iterator[None]:
    """Listen on unix sockets, as a process of ours does."""
    with contextlib.ExitStack() as stack:
        for path in paths:
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(str(path))
            server.listen()
        yield


class MemorySource(Source):
    """A base that needs no storage, and reads as its test says."""

    schemes = ('memory',)
    drivers = ('null-co',)

    def __init__(self, base_format: str = 'raw', header: bytes | None = b'\0' * 512) -> None:
        super().__init__('memory://base', base_format)
        self.header = header
        self.now = IDENTITY

    @property
    def filename(self) -> str:
        return self.reference

    def identity(self) -> BaseIdentity:
        return self.now

    def first_bytes(self, count: int) -> bytes | None:
        return self.header and self.header[:count]

    def protocol_node(self) -> Node:
        return {'driver': 'null-co'}

    def generation_folder(self) -> pathlib.Path | None:
        return None

    def generation_name(self) -> str:
        return 'base'
