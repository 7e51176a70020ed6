# SPDX-License-Identifier: Apache-2.0
"""The reads of one boot through every alternative, at several speeds of the network.

Sections ``replay`` and ``thinned``. Each alternative has a host of its own in each round, on which
nothing is cached; in a round the order is a random one. What plays and what a local file gives
differ by little, so they take turns more often, one right after the other.

State of caches: the image is in the page cache of the base's server. Files of the host are opened
with O_DIRECT, as Nova does by default; the page cache has no part in them.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import time
from typing import Any

from bench.compare.alternatives import Alternative
from bench.compare.alternatives import ALTERNATIVES
from bench.compare.alternatives import Qcache
from bench.compare.alternatives import Raw
from bench.compare.host import Host
from bench.compare.host import Node
from bench.compare.network import BaseServer
from bench.compare.replayer import Replayer
from bench.compare.replayer import Usage
from bench.compare.sample import Sample
from bench.compare.scene import Scene
from bench.compare.trace import Trace

__all__ = ['Cell', 'first_guest', 'measured', 'one_round', 'pairs', 'prepare', 'replayed']


@dataclasses.dataclass(frozen=True)
class Cell:
    section: str
    rate: str
    delay_ms: int = 0
    think: str = 'none'

    def sample(self, alternative: str, **measured: Any) -> Sample:
        return Sample(alternative=alternative, **dataclasses.asdict(self), **measured)


def replayed(
    host: Host, node: Node, trace: Trace, base: BaseServer, *, think: bool = False
) -> dict[str, Any]:
    """Send the reads of a boot through a chain and return what it took, as fields of a sample.

    The guest is bound to one processor: how fast one processor wakes another, which differs from
    moment to moment, is not what is measured.
    """
    processor = str(max(os.sched_getaffinity(0)))
    with Replayer(node, [*host.prefix, 'taskset', '--cpu-list', processor]) as guest:
        base.forget()
        before = host.used()
        guest.begin(trace, think=think)
        seconds = guest.finish()
        return measured(host, before, guest.usage, seconds)


def measured(
    host: Host, before: Mapping[int, Usage], guest: Usage, seconds: float
) -> dict[str, Any]:
    """Return what a guest took, as fields of a sample.

    :param before: what processes of the host had used when it began
    :param guest: what its own process has used
    """
    requests, size = host.base.asked()
    used = host.used_since(before) + guest
    return {
        'seconds': seconds,
        'base_requests': requests,
        'base_bytes': size,
        'written_bytes': used.written_bytes,
        'cpu_seconds': used.cpu_seconds,
        'disk_bytes': host.disk_bytes(),
    }


def prepare(alternative: Alternative) -> dict[str, Any]:
    """Do what comes before the first guest and return what it took, as fields of a sample."""
    base = alternative.host.base
    base.forget()
    began, before = time.perf_counter(), os.times()
    alternative.prepare()
    after = os.times()
    requests, size = base.asked()
    return {
        'prepare_seconds': time.perf_counter() - began,
        'base_requests': requests,
        'base_bytes': size,
        'written_bytes': alternative.prepared_bytes,
        # Of what has ended by now; what goes on is counted with the guest.
        'cpu_seconds': after[2] + after[3] - before[2] - before[3],
    }


def first_guest(
    alternative: Alternative, trace: Trace, base: BaseServer, *, think: bool = False
) -> dict[str, Any]:
    """Measure the first guest of an image, with what comes before it, as fields of a sample."""
    prepared = prepare(alternative)
    with alternative.guest() as node:
        found = replayed(alternative.host, node, trace, base, think=think)
    for field, value in prepared.items():
        found[field] = found.get(field, 0) + value
    return found


def one_round(scene: Scene, cell: Cell, trace: Trace, number: int, names: Sequence[str]) -> None:
    """Measure the first guest of each alternative, and the second one where it finds something of
    the first; else both are alike. What plays is measured by :func:`pairs`."""
    order = list(names)
    scene.chance.shuffle(order)
    think = cell.think == 'kept'
    with scene.base(cell.rate, cell.delay_ms) as base:
        for name in order:
            scene.say(f'{cell}, round {number}: {name}')
            with scene.host(base) as host:
                alternative = ALTERNATIVES[name](host)
                found = first_guest(alternative, trace, base, think=think)
                scene.collect(cell.sample(name, **found))
                if alternative.keeps and name != 'record':
                    with alternative.guest() as node:
                        found = replayed(host, node, trace, base, think=think)
                    scene.collect(cell.sample(name, guest='second', **found))


def pairs(scene: Scene, cell: Cell, trace: Trace, count: int) -> None:
    """Measure what plays and a local raw file in turns, so many times each."""
    think = cell.think == 'kept'
    with scene.base(cell.rate, cell.delay_ms) as base, scene.host(base) as host:
        scene.say(f'{cell}: play and raw, {count} times')
        plays, raw = Qcache(host), Raw(host)
        plays.prepare()
        with plays.guest() as node:
            replayed(host, node, trace, base)
        plays.settle()
        for number in range(count):
            turns = [('play', plays), ('raw', raw)]
            for name, alternative in turns if number % 2 else reversed(turns):
                with alternative.guest() as node:
                    found = replayed(host, node, trace, base, think=think)
                guest = 'second' if name == 'play' else 'first'
                scene.collect(cell.sample(name, guest=guest, **found))
