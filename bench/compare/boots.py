# SPDX-License-Identifier: Apache-2.0
"""Real guests: the boot whose reads are replayed, and boots on every alternative (section
``boot``)."""

from collections.abc import Sequence
from typing import Any

from qemu_guest import BOOTED
from qemu_guest import Guest

from bench.compare import blocks
from bench.compare.alternatives import ALTERNATIVES
from bench.compare.host import Host
from bench.compare.host import Node
from bench.compare.network import BaseServer
from bench.compare.replay import Cell
from bench.compare.replay import measured
from bench.compare.replay import prepare
from bench.compare.replayer import usage
from bench.compare.scene import Scene
from bench.compare.trace import of_log
from bench.compare.trace import Trace

__all__ = ['boot_round', 'recorded']

_BOOT_SECONDS = 400
_MEMORY_MIB = 512
_TRACE_DELAY_MS = 1
"""Long against what the base's server needs, so that it can be told which reads the guest sent
together; short against a boot."""


def booted(host: Host, node: Node, base: BaseServer) -> dict[str, Any]:
    """Boot a guest to the end and return what it took, as fields of a sample."""
    nodes = blocks.separate(node, host.base_node())
    drive = str(nodes[-1]['node-name'])
    guest = Guest('bench', blockdevs=nodes, drive=drive, memory_mib=_MEMORY_MIB)
    base.forget()
    before = host.used()
    with guest:
        seconds = guest.wait_for(BOOTED, _BOOT_SECONDS)
        return measured(host, before, usage(guest.pid), seconds)


def recorded(scene: Scene) -> Trace:
    """Boot a guest plainly and return its reads."""
    scene.say('a boot, whose reads are replayed')
    with scene.base('unlimited', _TRACE_DELAY_MS) as base, scene.host(base) as host:
        with host.overlay(host.base_node()) as node:
            booted(host, node, base)
        return of_log(base.log())


def boot_round(scene: Scene, rate: str, number: int, names: Sequence[str]) -> None:
    """Boot one guest on each alternative; ``play`` follows ``record`` on its host."""
    cell = Cell('boot', rate)
    order = list(names)
    scene.chance.shuffle(order)
    with scene.base(rate) as base:
        for name in order:
            with scene.host(base) as host:
                alternative = ALTERNATIVES[name](host)
                prepared = prepare(alternative)['prepare_seconds']
                scene.say(f'boot at {rate}, round {number}: {name}')
                with alternative.guest() as node:
                    found = booted(host, node, base)
                scene.collect(cell.sample(name, prepare_seconds=prepared, **found))
                if name == 'record':
                    alternative.settle()
                    scene.say(f'boot at {rate}, round {number}: play')
                    with alternative.guest() as node:
                        found = booted(host, node, base)
                    scene.collect(cell.sample('play', guest='second', **found))
