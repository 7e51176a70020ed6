# SPDX-License-Identifier: Apache-2.0
"""What needs no guest: a part of the copy that stock Nova makes, and the reads of a boot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import functools
from pathlib import Path
import subprocess
import time

from bench.compare import blocks
from bench.compare.alternatives import Alternative
from bench.compare.alternatives import ALTERNATIVES
from bench.compare.host import Host
from bench.compare.host import Node
from bench.compare.replay import Cell
from bench.compare.replay import first_guest
from bench.compare.scene import Scene
from bench.compare.trace import Trace
from bench.demo.progress import progress
from bench.demo.report import Copy
from bench.demo.report import MIB

__all__ = ['copied', 'replay', 'traces']

COPY_MIB = 256
"""What is copied of the image; the rest is extrapolated."""
DELAY_MS = 20
PART = 24
"""One block of reads in so many is replayed where each takes 20 ms: plain, all would take one
minute each time."""


class Recorded(Alternative):
    """A sealed cache that is there already."""

    def __init__(self, host: Host, cache: Path) -> None:
        super().__init__(host)
        self._cache = cache

    def below(self) -> Node:
        return blocks.chain(self.host.local(self._cache))


def copied(scene: Scene, rate: str) -> Copy:
    """Copy the first part of the image to this host's disk, as Glance sends it: holes, too."""
    size = scene.image.stat().st_size
    part = min(COPY_MIB, size // MIB)
    copy = scene.where.data / 'copy'
    with scene.base(rate) as base, progress(f'copying {part} of {size // MIB} MiB of the image'):
        command = ['qemu-img', 'dd', '-f', 'raw', '-O', 'raw', 'bs=1M', f'count={part}']
        names = [f'if={base.reference(scene.export)}', f'of={copy}']
        began = time.monotonic()
        subprocess.run([*command, *names], check=True, stdin=subprocess.DEVNULL, timeout=600)
        seconds = time.monotonic() - began
    copy.unlink()
    return Copy(seconds, part * MIB, size)


def traces(trace: Trace) -> dict[int, Trace]:
    """Return what is replayed, by the milliseconds that each request takes more."""
    return {0: trace, DELAY_MS: trace.thinned(PART)}


def replay(scene: Scene, reads: Mapping[int, Trace], cache: Path, rate: str, rounds: int) -> None:
    """Send the reads of a boot through each chain, as one guest after the other on a host each.

    In each round all take turns in a random order, so that whatever else the machine does
    concerns all of them alike.
    """
    makers: dict[str, Callable[[Host], Alternative]] = {
        name: ALTERNATIVES[name] for name in ('plain', 'record', 'raw')
    }
    makers['play'] = functools.partial(Recorded, cache=cache)
    doing = ''
    with progress('replaying the reads of that boot:', lambda: doing):
        for number in range(rounds):
            for delay_ms, trace in reads.items():
                cell = Cell('replay', rate, delay_ms)
                order = list(makers)
                scene.chance.shuffle(order)
                with scene.base(rate, delay_ms) as base:
                    for name in order:
                        doing = f'{name}, {delay_ms} ms, round {number + 1} of {rounds}'
                        with scene.host(base) as host:
                            found = first_guest(makers[name](host), trace, base)
                        guest = 'second' if name == 'play' else 'first'
                        scene.collect(cell.sample(name, guest=guest, **found))
