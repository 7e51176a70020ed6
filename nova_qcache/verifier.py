# SPDX-License-Identifier: Apache-2.0
"""Prove that the bytes in a cache are the bytes of its base, by reading both."""

import bisect
from collections.abc import Sequence
import dataclasses
import pathlib
import random

from nova_qcache import exception
from nova_qcache import qemu_img
from nova_qcache import qemu_io
from nova_qcache import sealed_file
from nova_qcache.counters import Counters
from nova_qcache.generation import Generations
from nova_qcache.key import CacheKey
from nova_qcache.progress import Done
from nova_qcache.progress import ignore
from nova_qcache.progress import Progress
from nova_qcache.record import CacheRecord
from nova_qcache.source import Source
from nova_qcache.states import Staleness
from nova_qcache.store import Store

__all__ = ['Verification', 'Verifier', 'sample']

SAMPLE_BYTES = 1024 * 1024
SAMPLE_UNIT = 4096
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


def sample(extents: Sequence[Extent], generator: random.Random) -> list[Extent]:
    """Choose up to ``SAMPLE_BYTES`` of the extents at random, each byte with the same chance, none
    twice; all of them if they are no more than that.

    A sample of k units out of m misses a change of c units with probability (1 - c/m)^k, about.
    """
    # The extents are cut into units as if they were one after the other. Cut each by itself, those
    # that are no multiple of a unit (subclusters) would end in a small unit that counts as one.
    starts: list[int] = []
    total = 0
    for _, length in extents:
        starts.append(total)
        total += length
    units = range(0, total, SAMPLE_UNIT)
    picked = []
    for begin in sorted(generator.sample(units, min(len(units), SAMPLE_BYTES // SAMPLE_UNIT))):
        end = min(begin + SAMPLE_UNIT, total)
        at = bisect.bisect_right(starts, begin) - 1
        while begin < end:
            offset, length = extents[at]
            skipped = begin - starts[at]
            taken = min(end - begin, length - skipped)
            picked.append((offset + skipped, taken))
            begin += taken
            at += 1
    return picked


class Verifier:
    def __init__(
        self,
        store: Store,
        generations: Generations,
        image_tool: qemu_img.QemuImg,
        io_tool: qemu_io.QemuIo,
    ) -> None:
        self._store = store
        self._generations = generations
        self._image_tool = image_tool
        self._io_tool = io_tool

    def sample_is_equal(self, record: CacheRecord, source: Source) -> bool:
        """Compare a random sample of a READY cache with its base, and act on the answer: READY is
        noted to go with the base's new times, or it becomes STALE and the base gets a new
        generation.

        :raises ToolError: if one of the two cannot be read; nothing changes then
        :raises DeadlinePassed: if reading stalls; nothing changes then
        """
        identity = source.identity()  # before reading: what changes later shows later
        path = self._store.paths.sealed(record.key)
        extents = sample(self._image_tool.cached_extents(path), random.SystemRandom())
        difference = self._first_difference(path, source, extents, ignore)
        if difference is not None or record.sealed is None:
            self._retire(record, source, difference)
            return False
        self._store.refresh(dataclasses.replace(record, base_identity=identity))
        return True

    def verify(
        self, record: CacheRecord, source: Source, progress: Progress, image_hash: str = ''
    ) -> Verification:
        """Read a whole READY cache against its digest, and all that it caches against the base;
        act on the answer as :meth:`sample_is_equal` does. A cache of an older generation of its
        base is carried over to the one of now if it is equal.

        :param image_hash: what Glance says of the image now
        :raises ToolError, DeadlinePassed, InvalidBase: if the base cannot be read; nothing changes
            then
        """
        path = self._store.paths.sealed(record.key)
        sealed = record.sealed
        assert sealed is not None  # the record says READY
        identity = source.identity()
        generation = self._generations.settled(source)
        try:
            found = sealed_file.digest(path, progress('Reading the cache', path.stat().st_size))
        except OSError as e:
            found = e.strerror or str(e)
        if found != sealed.digest:
            reason = f'its digest is {found} and was {sealed.digest}'
            self._store.retire(record, reason, Staleness.DAMAGED)
            self._count(record, 'damaged')
            return Verification(record.key, 'the cache file is not what was sealed', 0)
        extents = self._image_tool.cached_extents(path)
        total = sum(length for _, length in extents)
        difference = self._first_difference(
            path, source, extents, progress('Comparing with the base', total)
        )
        self._count(record, 'equal' if difference is None else 'different')
        if difference is not None:
            self._retire(record, source, difference)
            return Verification(record.key, f'the base differs at offset {difference}', total)
        self._store.seal_file(path)  # a restored file may have other rights
        hashes = [each for each in record.image_hashes if each != image_hash]
        proved = dataclasses.replace(
            record,
            sealed=sealed_file.describe(path, found, sealed.reason, sealed.sealed_at),
            base_identity=identity,
            image_hashes=tuple([*hashes, image_hash][-_MOST_HASHES:] if image_hash else hashes),
        )
        key = record.key
        if generation == key.generation:
            self._store.refresh(proved)
        else:
            try:
                key = self._store.carry_over(proved, generation).key
            except exception.WrongState:
                # It was recorded again meanwhile, and this one is of no use to any boot.
                reason = f'generation {generation} has a cache of its own'
                self._store.retire(record, reason, Staleness.WRITTEN)
                return Verification(record.key, '', total)
        return Verification(key, '', total)

    def _count(self, record: CacheRecord, result: str) -> None:
        self._store.ledger.add(record.key.image_id, Counters(verifications={result: 1}))

    def _retire(self, record: CacheRecord, source: Source, difference: int | None) -> None:
        # In this order: STALE without a new generation would mean plain boots for good.
        if self._generations.current(source) == record.key.generation:
            self._generations.raise_before_write(source)
        self._store.retire(record, f'the base differs at offset {difference}')

    def _first_difference(
        self,
        path: pathlib.Path,
        source: Source,
        extents: Sequence[Extent],
        done: Done,
    ) -> int | None:
        cache = {
            'driver': 'qcow2',
            'backing': None,
            'file': {'driver': 'file', 'filename': str(path)},
        }
        return self._io_tool.first_difference(cache, source.image_node(), extents, done)
