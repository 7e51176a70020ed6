# SPDX-License-Identifier: Apache-2.0
"""Prove that the bytes in a cache are the bytes of its base, by reading both."""

from collections.abc import Sequence
import dataclasses
import pathlib

from nova_qcache import exception
from nova_qcache.bases.generation import Generations
from nova_qcache.cache import sealed_file
from nova_qcache.cache.catalog import Catalog
from nova_qcache.model.key import CacheKey
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.source import Source
from nova_qcache.model.states import Staleness
from nova_qcache.qemu import img
from nova_qcache.qemu import io
from nova_qcache.stats.counters import Counters
from nova_qcache.system.progress import Done
from nova_qcache.system.progress import Progress

__all__ = ['Verification', 'Verifier']

_MOST_HASHES = 8

Extent = tuple[int, int]
"""(offset, length) in bytes of the guest's disk."""


@dataclasses.dataclass(frozen=True)
class Verification:
    key: CacheKey
    problem: str
    """Empty if every cached byte is a byte of the base."""
    compared: int
    """Bytes."""


class Verifier:
    def __init__(
        self,
        catalog: Catalog,
        generations: Generations,
        image_tool: img.QemuImg,
        io_tool: io.QemuIo,
    ) -> None:
        self._catalog = catalog
        self._generations = generations
        self._image_tool = image_tool
        self._io_tool = io_tool

    def verify(
        self,
        record: CacheRecord,
        source: Source,
        progress: Progress,
        image_hash: str = '',
        rate: int = 0,
    ) -> Verification:
        """Read a whole READY cache against its digest, and all that it caches against the base,
        and act on the answer: READY is noted to go with what the base looks like now, or it
        becomes STALE and the base gets a new generation. A cache of an older generation of its
        base is re-tagged to the present one if it is equal.

        :param image_hash: what Glance says of the image now
        :param rate: bytes of the base that are read in a second at the most, 0 for as many as come
        :raises ToolError, DeadlinePassed, InvalidBase: if the base cannot be read; nothing changes
            then
        """
        path = self._catalog.paths.sealed(record.key)
        sealed = record.sealed
        assert sealed is not None  # the record says READY
        identity = source.identity()
        # Not that of the record: a cache of before that is still equal gets the one of now.
        generation = self._generations.settled(source)
        try:
            found = sealed_file.digest(path, progress('Reading the cache', path.stat().st_size))
            reason = f'its digest is {found} and was {sealed.digest} when it was sealed'
        except OSError as e:
            found, reason = '', f'its file cannot be read ({e.strerror or e})'
        if found != sealed.digest:
            self._catalog.retire(record, reason, Staleness.DAMAGED)
            self._count(record, 'damaged')
            return Verification(record.key, 'the cache file differs from what was sealed', 0)
        extents = self._image_tool.cached_extents(path)
        total = sum(length for _, length in extents)
        difference = self._first_difference(
            path, source, extents, progress('Comparing with the base', total), rate
        )
        self._count(record, 'equal' if difference is None else 'different')
        if difference is not None:
            self._retire(record, source, difference)
            return Verification(record.key, f'the base differs at offset {difference}', total)
        self._catalog.seal_file(path)  # a restored file may have other rights
        hashes = [each for each in record.image_hashes if each != image_hash]
        proved = dataclasses.replace(
            record,
            sealed=sealed_file.describe(path, found, sealed.reason, sealed.sealed_at),
            base_identity=identity,
            image_hashes=tuple([*hashes, image_hash][-_MOST_HASHES:] if image_hash else hashes),
        )
        key = record.key
        if generation == key.generation:
            self._catalog.refresh(proved)
        else:
            try:
                key = self._catalog.retag(proved, generation).key
            except exception.WrongState:
                # It was recorded again meanwhile, and this one is of no use to any boot.
                reason = f'generation {generation} of its base has another cache'
                self._catalog.retire(record, reason, Staleness.WRITTEN)
                return Verification(record.key, '', total)
        return Verification(key, '', total)

    def _count(self, record: CacheRecord, result: str) -> None:
        self._catalog.counter_store.add(record.key.image_id, Counters(verifications={result: 1}))

    def _retire(self, record: CacheRecord, source: Source, difference: int | None) -> None:
        # In this order: STALE without a new generation would mean plain boots for good.
        if self._generations.current(source) == record.key.generation:
            self._generations.raise_before_write(source)
        self._catalog.retire(record, f'the base differs at offset {difference}')

    def _first_difference(
        self,
        path: pathlib.Path,
        source: Source,
        extents: Sequence[Extent],
        done: Done,
        rate: int,
    ) -> int | None:
        source.learn()
        cache = {
            'driver': 'qcow2',
            'backing': None,
            'file': {'driver': 'file', 'filename': str(path)},
        }
        return self._io_tool.first_difference(cache, source.image_node(), extents, done, rate)
