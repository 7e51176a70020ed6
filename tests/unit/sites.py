# SPDX-License-Identifier: Apache-2.0
"""A host in a folder, for tests of what a crash may leave there: caches, a base, leases.

Whoever looks at a :class:`Site` looks as a process does that was started afterwards.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil
import tempfile
from unittest import mock

from nova_qcache.bases.file import FileSource
from nova_qcache.bases.generation import Generations
from nova_qcache.bases.nbd import NbdSource
from nova_qcache.cache import sealed_file
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.cleanup import clean_up
from nova_qcache.cache.leases import Leases
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.source import Source
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import State
from nova_qcache.qemu.img import QemuImg
from nova_qcache.recorder import sealer
from nova_qcache.system.paths import Paths
from tests.unit import builders
from tests.unit.builders import KEY
from tests.unit.power import Disk

__all__ = ['CONTENT', 'NEXT', 'Site', 'memory_folder', 'sound']

NEXT = CacheKey(KEY.image_id, KEY.generation.next())
"""The key after a write to the base."""
CONTENT = b'content of a cache'
_LEASE_SECONDS = 300
_SUFFIXES = ('.json', '.recording', '.qcow2')


@contextlib.contextmanager
def memory_folder() -> Iterator[pathlib.Path]:
    """A folder in memory if there is such a place, with a short path: thousands of files are made
    and removed there, and no power is lost in earnest."""
    memory = '/dev/shm'
    folder = tempfile.mkdtemp(prefix='qc-', dir=memory if os.access(memory, os.W_OK) else '/tmp')
    try:
        yield pathlib.Path(folder)
    finally:
        shutil.rmtree(folder)


def sound(catalog: Catalog, key: CacheKey) -> CacheRecord | None:
    """Return the record of a cache, and see to it that READY is no lie: its file is there, whole,
    and the one that was sealed."""
    record = catalog.load(key)
    if record is not None and record.sealed is not None:
        path = catalog.paths.sealed(key)
        assert sealed_file.digest(path) == record.sealed.digest, f'{record.state} is a lie'
        if record.state is State.READY:
            assert catalog.require_unchanged(record) == path
    return record


class Site:
    """``host`` has what is of this host and ``shared`` the base, on storage of its own."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.base = folder / 'shared' / 'base'
        self.base.parent.mkdir(parents=True)
        self.base.write_bytes(b'content of a base')
        (folder / 'host').mkdir()
        self.paths = Paths(folder / 'host' / 'cache', folder / 'host' / 'run')
        self.paths.prepare()
        self.source: Source = FileSource(str(self.base), 'raw')
        self.before: Generation | None = None
        """The generation of the base when it begins, if it has one."""

    @property
    def catalog(self) -> Catalog:
        return Catalog(self.paths, 60)

    @property
    def generations(self) -> Generations:
        return Generations(self.paths, 60)

    @property
    def leases(self) -> Leases:
        return Leases(self.paths.leases, _LEASE_SECONDS)

    def disk(self) -> Disk:
        """Follow all that outlives a power loss; ``run_path`` does not."""
        cache, shared = self.paths.cache_path, self.base.parent
        return Disk(
            self.folder / 'graves', cache, self.paths.generations, shared, shared / '.nova-qcache'
        )

    def leftovers(self) -> list[str]:
        """Return the temporary files that nobody took away."""
        return sorted(path.name for path in self.folder.rglob('.*') if path.is_file())

    def clean_up(self) -> None:
        clean_up(self.catalog, self.leases)

    # -- the states of a cache

    def warm(self) -> CacheRecord:
        return builders.warm(self.catalog, CONTENT)

    def ready(self) -> CacheRecord:
        record = self.seal_all(self.warm())
        assert record.state is State.READY
        return record

    def seal_all(self, record: CacheRecord) -> CacheRecord:
        """Seal as a recorder does, from the check of the file on."""
        tool = mock.create_autospec(QemuImg, instance=True)
        tool.check.return_value = 1 << 40
        tool.cached_extents.return_value = [(0, 1)]
        return sealer._seal(self.catalog, tool, record, FinishReason.IDLE)

    # -- what is there

    def cache(self, key: CacheKey = KEY) -> str:
        """Return the state of a cache and what else of its record changes in its life."""
        assert set(self.catalog.keys()) <= {KEY, NEXT}, 'a temporary file is no cache'
        record = sound(self.catalog, key)
        if record is None:
            return 'COLD'
        return f'{record.state.value} {record.base_identity.inode} {record.stale_reason}'.strip()

    def file_of_a_cache(self) -> str:
        """Return which files the cache has beside its record."""
        return ' '.join(
            path.suffix
            for path in sorted(self.paths.cache_path.iterdir())
            if path.suffix in _SUFFIXES and not path.name.startswith('.')
        )

    def generation(self) -> str:
        """Return ``old`` or ``new``; a generation of before is never seen again."""
        now, before = self.generations.current(self.source), self.before
        if now == before:
            return 'old'
        assert before is None or now.epoch != before.epoch or now.n > before.n, 'it went back'
        return 'new'

    def leased(self) -> str:
        """Return which caches the consumer has leases of."""
        keys = {lease.key for lease in self.leases.active()}
        return ' '.join(sorted('KEY' if key == KEY else 'OTHER' for key in keys))

    def use_storage_without_files(self) -> None:
        self.source = NbdSource('nbd://host/export', 'raw')
