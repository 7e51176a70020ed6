# SPDX-License-Identifier: Apache-2.0
"""The reads of one boot: those of a real one from a file, or made up deterministically.

A trace is a file with a line ``offset length`` (or ``offset,length``) in bytes for each read, in
order; bench/demo writes one of the boot that it measures.
"""

from collections.abc import Sequence
import pathlib
import random

from rig import Extent
from rig import GIB
from rig import MIB

_AREA = 8 * MIB  # files of one folder lie close together
_BLOCK = 4096


def read(path: pathlib.Path) -> list[Extent]:
    reads = []
    for line in path.read_text().splitlines():
        fields = line.replace(',', ' ').split()
        if fields and not fields[0].startswith('#'):
            reads.append((int(fields[0]), int(fields[1])))
    return reads


def write(path: pathlib.Path, reads: Sequence[Extent]) -> None:
    path.write_text(''.join(f'{offset} {length}\n' for offset, length in reads))


def synthetic(disk: int = 4 * GIB, total: int = 76 * MIB, seed: int = 1) -> list[Extent]:
    """A boot-like trace: files of very different sizes, each read by a growing readahead, metadata
    of one block between them, nothing twice, as a guest with a page cache of its own reads."""
    chance = random.Random(seed)
    taken: set[int] = set()
    reads: list[Extent] = []
    done = 0
    # A small system fills the front of its disk.
    areas = [chance.randrange(disk // _AREA * 2 // 5) for _ in range(30)]
    while done < total:
        start = chance.choice(areas) * _AREA // _BLOCK + chance.randrange(_AREA // _BLOCK)
        blocks = min(int(chance.lognormvariate(1.2, 1.7)) + 1, 1024)
        window = 4
        while blocks > 0 and done < total:
            count = min(window, blocks)
            wanted = range(start, start + count)
            if taken.isdisjoint(wanted):
                taken.update(wanted)
                reads.append((start * _BLOCK, count * _BLOCK))
                done += count * _BLOCK
            start += count
            blocks -= count
            window = min(32, window * 2)
    return reads


def surroundings(reads: Sequence[Extent], disk: int, around: int = MIB) -> list[Extent]:
    """What of a disk must hold data, so that clusters beside the reads are not holes: the reads
    with what is near them."""
    merged: list[Extent] = []
    for offset, length in sorted(reads):
        start = max(0, offset - around) // _BLOCK * _BLOCK
        end = min(disk, offset + length + around)
        if merged and start <= sum(merged[-1]):
            merged[-1] = (merged[-1][0], max(end, sum(merged[-1])) - merged[-1][0])
        else:
            merged.append((start, end - start))
    return merged
