# SPDX-License-Identifier: Apache-2.0
"""The reads of one boot, through a sealed cache and from a local raw file.

``replay``: the same trace, in order and one read at a time, through the chain that a PLAY boot
opens (cache.qcow2 <- base) and through a local raw file of the same content. qemu-io reads it,
which opens the chain in its own process as a guest's qemu does: an NBD export on either side would
add the same time to both and so make the ratio look better than it is. Its own time is shown too
(the trace on null-co). Every measurement is a new process, so that qcow2's own caches are cold as
at a boot. Files are in the page cache: all that is read is read once before each measurement; and
the order alternates. Processor time is shown too: other processes disturb it less. --direct opens
the files with O_DIRECT, as Nova's default cache mode does.

The candidates are layouts of a cache, each recorded by a real recorder from an nbdkit that counts,
while a guest replays the trace over NBD and compares every read. A replay of the same trace must
miss nothing, not even holes of the base.
"""

import argparse
from collections.abc import Mapping, Sequence
import pathlib
import statistics
import sys
import time

import boot_trace
import figures
from figures import Figure
import nbd_tools
import qemu_io_replay
from qemu_io_replay import Spent
import rig

RATIO_BAR = 1.10
CANDIDATES = ((4096, False), (16384, True), (65536, False), (131072, True))
"""Cluster size and extended_l2."""
QUOTA_MIB = 1024


class Replay:
    def __init__(self, args: argparse.Namespace, where: rig.Folders) -> None:
        self.args = args
        self.where = where
        if args.trace is None:
            self.reads = boot_trace.synthetic()
        else:
            self.reads = boot_trace.read(args.trace)
        if args.image is not None:
            self.image = args.image.resolve()
        else:
            self.image = where.data / 'base.raw'
            size = max(4 * rig.GIB, *(offset + length for offset, length in self.reads))
            rig.make_disk(self.image, size, boot_trace.surroundings(self.reads, size))
        self.trace = where.data / 'trace'
        boot_trace.write(self.trace, self.reads)

    # -- recording

    def load(self, uri: str) -> float:
        counts = nbd_tools.load(uri, self.image, '--trace', self.trace)
        if counts['errors'] or counts['wrong'] or counts['reads'] != len(self.reads):
            raise rig.BenchError(f'{uri}: {counts}')
        return float(counts['seconds'])

    def record(self, name: str, site: rig.Site, times: int) -> tuple[list[Figure], pathlib.Path]:
        """Record the trace some times; return what it took and the last cache."""
        seconds = []
        for turn in range(times):
            image_id = rig.image_id()
            with nbd_tools.nbdkit(self.where, self.image, self.args.rate, self.args.delay) as base:
                rig.warm(self.image, self.reads)
                plan = site.manager.record(image_id, base.reference, 'raw')
                before = base.asked()
                seconds.append(self.load(nbd_tools.uri(plan.socket)))
                after = base.asked()
                began = time.perf_counter()
                site.manager.seal(image_id, wait_seconds=60)
                sealing = time.perf_counter() - began
            cache = site.sealed(plan)
            if turn < times - 1:
                site.manager.remove(image_id, force=True)
        return [
            Figure.median('record s', seconds, '').of(name),
            Figure('seal s', sealing, '').of(name),
            Figure('base requests', after[0] - before[0], '').of(name),
            Figure('base MiB', (after[1] - before[1]) / rig.MIB, '').of(name),
            Figure('cache MiB', cache.stat().st_size / rig.MIB, '').of(name),
        ], cache

    def plain(self, times: int) -> Figure:
        seconds = []
        for _ in range(times):
            with nbd_tools.nbdkit(self.where, self.image, self.args.rate, self.args.delay) as base:
                rig.warm(self.image, self.reads)
                with nbd_tools.export(self.where, nbd_tools.raw(base.node)) as uri:
                    seconds.append(self.load(uri))
        return Figure.median('record s', seconds, '').of('no recorder')

    # -- playing

    def play(self, caches: Mapping[str, pathlib.Path], default: str) -> list[Figure]:
        direct = self.args.direct
        null = {'driver': 'null-co', 'size': self.image.stat().st_size, 'read-zeroes': False}
        with nbd_tools.nbdkit(self.where, self.image) as base:
            nodes = {
                'raw': nbd_tools.raw(nbd_tools.file_node(self.image, direct)),
                'qemu-io': nbd_tools.raw(null),
            }
            for name, cache in caches.items():
                nodes[name] = nbd_tools.chain(nbd_tools.file_node(cache, direct))
            spent: dict[str, list[Spent]] = {name: [] for name in nodes}
            missed = {}
            order = list(nodes)
            for _ in range(self.args.n):
                for name in order:
                    if name in caches:
                        rig.warm(caches[name])
                    else:
                        rig.warm(self.image, self.reads)
                    before = base.asked()[1]
                    spent[name].append(qemu_io_replay.replay(nodes[name], self.reads))
                    missed[name] = base.asked()[1] - before
                order = [*order[1:], order[0]]
        clock = {name: [1000 * each.seconds for each in spent[name]] for name in nodes}
        processor = {name: [1000 * each.processor for each in spent[name]] for name in nodes}
        result = [
            _ratio(f'replay: cache ({default}) / raw file', clock[default], clock['raw']),
            _ratio('  of their processor time', processor[default], processor['raw']),
            Figure.median('  raw file', clock['raw'], 'ms'),
            Figure.median('  sealed chain', clock[default], 'ms'),
            Figure.median("  qemu-io's own share", clock['qemu-io'], 'ms'),
            Figure('  read from the base by one replay', missed[default] / rig.MIB, 'MiB', 0),
        ]
        result[0].bar = RATIO_BAR
        for name in caches:
            result.append(Figure('missed MiB', missed[name] / rig.MIB, '').of(name))
            result.append(_ratio('play / raw', clock[name], clock['raw']).of(name))
            result.append(_ratio('processor', processor[name], processor['raw']).of(name))
        return result

    def play_over_nbd(self, cache: pathlib.Path) -> Figure:
        """The same as a guest behind a server sees it, every read compared."""
        spent = []
        with nbd_tools.nbdkit(self.where, self.image) as base:
            below = {**nbd_tools.raw(base.node), 'node-name': 'base'}
            top = nbd_tools.chain(nbd_tools.file_node(cache), 'base')
            raw = nbd_tools.raw(nbd_tools.file_node(self.image))
            for turn in range(self.args.n):
                with (
                    nbd_tools.export(self.where, raw) as raw_uri,
                    nbd_tools.export(self.where, below, top) as chain_uri,
                ):
                    rig.warm(cache)
                    rig.warm(self.image, self.reads)
                    if turn % 2:
                        one, other = self.load(chain_uri), self.load(raw_uri)
                    else:
                        other, one = self.load(raw_uri), self.load(chain_uri)
                spent.append((one, other))
        return _ratio('  the same over NBD, every read compared', *zip(*spent, strict=True))


def _ratio(name: str, one: Sequence[float], other: Sequence[float]) -> Figure:
    """The ratio of two medians, with the spread of the ratios of neighbours in time."""
    figure = Figure.median(name, [x / y for x, y in zip(one, other, strict=True)], '')
    figure.value = statistics.median(one) / statistics.median(other)
    return figure


def candidates(default: tuple[int, bool]) -> dict[str, tuple[int, bool]]:
    """Layouts by name, the default one first."""
    layouts = dict.fromkeys([default, *CANDIDATES])
    return {
        f'{size // 1024} KiB{" extended" * extended}': (size, extended)
        for size, extended in layouts
    }


def measure(args: argparse.Namespace) -> list[Figure]:
    with rig.folders(args.folder) as where:
        replay = Replay(args, where)
        total = sum(length for _, length in replay.reads)
        print(f'{len(replay.reads)} reads, {total / rig.MIB:.1f} MiB', flush=True)
        recorded = [replay.plain(args.records)]
        group = rig.Site(where, 'default').conf.qcache
        layouts = candidates((group.cluster_size, group.extended_l2))
        caches = {}
        for number, (name, (size, extended)) in enumerate(layouts.items()):
            site = rig.Site(
                where, f's{number}', quota=QUOTA_MIB, cluster_size=size, extended_l2=extended
            )
            found, caches[name] = replay.record(name, site, args.records)
            recorded += found
        default = next(iter(layouts))
        played = replay.play(caches, default)
        alone = [figure for figure in played if not figure.group]
        grouped = [figure for figure in played if figure.group]
        return [*alone, replay.play_over_nbd(caches[default]), *recorded, *grouped]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('-n', type=int, default=25, help='replays of each layout (25)')
    parser.add_argument('--records', type=int, default=3, help='recordings of each layout (3)')
    parser.add_argument('--trace', type=pathlib.Path, metavar='FILE', help='reads of a real boot')
    parser.add_argument('--image', type=pathlib.Path, metavar='FILE', help='the raw image booted')
    parser.add_argument('--rate', help='speed of the base when it is recorded, bits per second')
    parser.add_argument('--delay', type=int, default=0, help='of each of its reads, ms (0)')
    parser.add_argument('--direct', action='store_true', help='play with O_DIRECT')
    return figures.run(parser, measure)


if __name__ == '__main__':
    sys.exit(main())
