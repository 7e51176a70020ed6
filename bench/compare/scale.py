# SPDX-License-Identifier: Apache-2.0
"""Many hosts that boot at once, against one base behind one network (section ``scale``).

Each host has its folder, its chain and its processes, and begins with nothing cached; what plays
was recorded once and copied to all. They have one image in common or another one each: files of
the same bytes wherever a boot reads and around it, and holes elsewhere. The figure is the time of
the slowest host.

In reality so many hosts have as many disks and processors. What this machine lacks is kept out:

* The disk: all files lie in the page cache, read before the clock starts, and are opened without
  O_DIRECT. Only recorders write to the disk, no faster than the network lets them.
* Processors: a part of the reads of a boot is replayed, with think time as a guest has it, scaled
  to ``pace_seconds``, which has to be long enough for the reads of all hosts to be served
  meanwhile. Where a guest reads much in short time all hosts do so at once, and that no pace
  hides. How much it is, is told by
  ``raw``, which needs no network: its time at N hosts against that of one is what the machine
  adds, and what the others are to be held against. A recorder needs some times the processor
  that a local file does: a time of ``record`` that is near its ``cpu_seconds``, divided by the
  processors, is this machine's and no network's.
"""

from collections.abc import Iterator, Sequence
import concurrent.futures
import contextlib
import itertools
import os
import pathlib
import shutil
import subprocess

from bench import rig
from bench.compare import blocks
from bench.compare.alternatives import Alternative
from bench.compare.alternatives import ALTERNATIVES
from bench.compare.alternatives import Qcache
from bench.compare.host import Host
from bench.compare.host import Node
from bench.compare.network import BaseServer
from bench.compare.replay import Cell
from bench.compare.replay import replayed
from bench.compare.replayer import Replayer
from bench.compare.replayer import Usage
from bench.compare.replayer import usage
from bench.compare.scene import Scene
from bench.compare.trace import Trace

__all__ = ['measure']

_NAMES = ('plain', 'record', 'play', 'raw')
_AROUND = 64 << 10
"""Images have the bytes of whole blocks of this size: no alternative here reads more than a
cluster of 16 KiB around what a guest asks for."""
_PREPARING = 2
"""Recorders that start at a time."""


def measure(
    scene: Scene, counts: Sequence[int], rounds: int, part: int, pace_seconds: float, rate: str
) -> None:
    """Measure all alternatives at each number of hosts, once.

    In further rounds what plays and the local file are measured again, with one host and with
    most: these are held against each other.

    :param part: of the reads of a boot one in so many is replayed
    :param pace_seconds: the think time of a guest
    """
    trace = scene.trace.thinned(part).paced(pace_seconds)
    folder = scene.where.data / 'crowd'
    folder.mkdir()
    try:
        _make_images(scene, trace, folder, max(counts))
        with scene.base(rate, folder=folder) as base:
            _make_caches(scene, trace, folder, max(counts), base)
            for number in range(rounds):
                crowds = _crowds(counts, of_all=number == 0)
                scene.chance.shuffle(crowds)
                for count, images, name in crowds:
                    scene.say(f'{count} hosts at {rate}, images: {images}, round {number}: {name}')
                    with _crowd(scene, base, folder, count, images) as hosts:
                        _measure_one(scene, rate, trace, hosts, images, name)
    finally:
        shutil.rmtree(folder)


def _crowds(counts: Sequence[int], *, of_all: bool) -> list[tuple[int, str, str]]:
    if of_all:
        return list(itertools.product(counts, ('one', 'many'), _NAMES))
    return list(itertools.product(sorted({1, max(counts)}), ['one'], ['play', 'raw']))


# -- the files: image-0, image-1 and so on, and a cache for each


def _make_images(scene: Scene, trace: Trace, folder: pathlib.Path, count: int) -> None:
    scene.say(f'{count} images')
    extents = trace.blocks(_AROUND, scene.image.stat().st_size)
    with scene.image.open('rb') as old:
        for number in range(count):
            with (folder / f'image-{number}').open('wb') as new:
                new.truncate(scene.image.stat().st_size)
                for offset, length in extents:
                    os.pwrite(new.fileno(), os.pread(old.fileno(), length, offset), offset)
                os.fsync(new.fileno())  # or the disk would be at it while others are measured


def _make_caches(
    scene: Scene, trace: Trace, folder: pathlib.Path, count: int, base: BaseServer
) -> None:
    scene.say(f'{count} caches')
    with Host(scene.where, base, 'image-0', folder / 'image-0', direct=False) as host:
        recorder = Qcache(host)
        recorder.prepare()
        with recorder.guest() as node:
            replayed(host, node, trace, base)
        recorder.settle()
        for number in range(count):
            copy = folder / f'cache-{number}'
            shutil.copy(recorder.cache, copy)
            with copy.open('rb') as file:
                os.fsync(file.fileno())


# -- the hosts


@contextlib.contextmanager
def _crowd(
    scene: Scene, base: BaseServer, folder: pathlib.Path, count: int, images: str
) -> Iterator[list[Host]]:
    with contextlib.ExitStack() as undo:
        hosts = []
        for number in range(count):
            export = f'image-{number if images == "many" else 0}'
            host = Host(scene.where, base, export, folder / f'image-{number}', direct=False)
            hosts.append(undo.enter_context(host))
        yield hosts


class _Play(Alternative):
    """With a cache that was recorded elsewhere."""

    def prepare(self) -> None:
        command = ['qemu-img', 'rebase', '-u', '-f', 'qcow2', '-F', 'raw']
        command += ['-b', self.host.base_reference(), str(_cache(self.host))]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)

    def below(self) -> Node:
        return blocks.chain(self.host.local(_cache(self.host)))


def _cache(host: Host) -> pathlib.Path:
    return host.image.with_name(host.image.name.replace('image', 'cache'))


def _measure_one(
    scene: Scene, rate: str, trace: Trace, hosts: list[Host], images: str, name: str
) -> None:
    base = hosts[0].base
    alternatives = [_Play(host) if name == 'play' else ALTERNATIVES[name](host) for host in hosts]
    with concurrent.futures.ThreadPoolExecutor(_PREPARING) as pool:
        list(pool.map(lambda each: each.prepare(), alternatives))
    for host in hosts:
        rig.warm(host.image, trace.extents())
        rig.warm(_cache(host))
    with _guests(alternatives) as guests:
        base.forget()
        before = _used(hosts)
        for guest in guests:
            guest.begin(trace, think=True)
        # Each is waited for by itself: its seconds end when it has finished.
        with concurrent.futures.ThreadPoolExecutor(len(guests)) as pool:
            seconds = max(pool.map(Replayer.finish, guests))
        requests, size = base.asked()
        used = _used(hosts) - before
        scene.collect(
            Cell('scale', rate, think='kept').sample(
                name,
                guest='second' if name == 'play' else 'first',
                hosts=len(hosts),
                images=images,
                seconds=seconds,
                base_requests=requests,
                base_bytes=size,
                cpu_seconds=used.cpu_seconds + sum(each.usage.cpu_seconds for each in guests),
            )
        )


@contextlib.contextmanager
def _guests(alternatives: Sequence[Alternative]) -> Iterator[list[Replayer]]:
    """One on each host, all of them open."""
    with contextlib.ExitStack() as undo:
        guests = []
        for alternative in alternatives:
            guest = Replayer(undo.enter_context(alternative.guest()))
            undo.callback(guest.close)
            guests.append(guest)
        for guest in guests:
            guest.open()
        yield guests


def _used(hosts: Sequence[Host]) -> Usage:
    """What ``Host.used`` says of all of them, from one look at the processes."""
    named = [os.fsencode(folder) for host in hosts for folder in (host.folder, host.sockets)]
    total = Usage()
    for entry in pathlib.Path('/proc').iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                line = (entry / 'cmdline').read_bytes()
                if b'qemu-io' not in line and any(name in line for name in named):
                    total += usage(int(entry.name))
    return total
