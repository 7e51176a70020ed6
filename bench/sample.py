# SPDX-License-Identifier: Apache-2.0
"""How often a random sample misses a change of a base, beside what the formula says.

A base whose times alone differ is compared by a sample of 1 MiB (nova_qcache.verifier). Here
clusters of 4 KiB are changed at random among those that are cached, again and again, and the very
function that draws samples draws one each time. Chance of a miss with k of m units in the sample
and c of them changed: (1 - k/m)^c, about.

    python bench/sample.py [--cached-mib 76] [--cache FILE] [--draws 20000] [--json FILE]
"""

import argparse
from collections.abc import Sequence
import json
import math
import pathlib
import random
import sys

from nova_qcache import verifier
from nova_qcache.qemu_img import QemuImg

MIB = 1024 * 1024
CHANGED = (1, 10, 100, 1000)
_EXTENT_UNITS = 32
"""Guests read a disk in pieces; how long they are matters nothing to a sample, and is tried."""


def made_up_extents(cached: int, generator: random.Random) -> list[verifier.Extent]:
    """Extents of a cache with so many bytes, of random lengths at random places."""
    found, at, left = [], 0, cached // verifier.SAMPLE_UNIT
    while left:
        units = min(left, generator.randint(1, 2 * _EXTENT_UNITS))
        at += generator.randint(1, 2000) * verifier.SAMPLE_UNIT
        found.append((at, units * verifier.SAMPLE_UNIT))
        at += units * verifier.SAMPLE_UNIT
        left -= units
    return found


def clusters_of(extents: Sequence[verifier.Extent]) -> set[int]:
    """The numbers of the clusters in which there is any byte of the extents."""
    unit = verifier.SAMPLE_UNIT
    return {
        cluster
        for offset, length in extents
        for cluster in range(offset // unit, (offset + length - 1) // unit + 1)
    }


def measure(
    extents: Sequence[verifier.Extent], changed: int, draws: int, generator: random.Random
) -> dict[str, float]:
    """Return how often a sample missed that many changed clusters, measured and by the formula."""
    clusters = sorted(clusters_of(extents))
    missed = 0
    for _ in range(draws):
        dirty = set(generator.sample(clusters, changed))
        missed += dirty.isdisjoint(clusters_of(verifier.sample(extents, generator)))
    measured = missed / draws
    share = min(1.0, verifier.SAMPLE_BYTES / sum(length for _, length in extents))
    return {
        'changed_clusters': changed,
        'measured': measured,
        'plus_minus': 1.96 * math.sqrt(max(measured * (1 - measured), 1 / draws) / draws),
        'formula': (1 - share) ** changed,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description='How often does a sample miss a change?')
    parser.add_argument('--cached-mib', type=int, default=76, help="a Debian 12 guest's boot: 76")
    parser.add_argument('--cache', type=pathlib.Path, help='a sealed cache, in place of that')
    parser.add_argument('--draws', type=int, default=20_000)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--json', type=pathlib.Path, metavar='FILE')
    args = parser.parse_args(argv)
    generator = random.Random(args.seed)
    if args.cache is not None:
        extents = QemuImg().cached_extents(args.cache)
    else:
        extents = made_up_extents(args.cached_mib * MIB, generator)
    size = len(clusters_of(extents))
    rows = [
        measure(extents, changed, args.draws, generator) for changed in CHANGED if changed <= size
    ]
    print(f'{size} cached clusters of 4 KiB, a sample of {verifier.SAMPLE_BYTES} bytes')
    print('changed clusters  missed, measured  missed, formula')
    for row in rows:
        measured = f'{row["measured"]:.4f} +- {row["plus_minus"]:.4f}'
        print(f'{row["changed_clusters"]:16d}  {measured:>16}  {row["formula"]:15.4f}')
    if args.json is not None:
        args.json.write_text(json.dumps({'clusters': size, 'rows': rows}, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
