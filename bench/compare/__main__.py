# SPDX-License-Identifier: Apache-2.0
"""Measure, and write what was found to a file; bench/run.sh has what it needs."""

import argparse
from collections.abc import Callable
import pathlib
import shlex
import sys

from bench import rig
from bench.compare import boots
from bench.compare import choices
from bench.compare import machine
from bench.compare import place
from bench.compare import replay
from bench.compare import scale
from bench.compare.network import network
from bench.compare.replay import Cell
from bench.compare.sample import Results
from bench.compare.sample import Sample
from bench.compare.scene import Scene
from bench.compare.trace import Trace

REMOTE = (
    'plain',
    'copy-on-read',
    'nbdkit-cache',
    'stream',
    'record',
    'page-cache',
    'page-cache-short',
)
"""What reads the base while the guest boots."""
BOOTS = ('plain', 'copy-on-read', 'nbdkit-cache', 'stream', 'record', 'page-cache', 'raw')
SMOKE = ('plain', 'nbdkit-cache', 'record')
SHORT = ('replay', 'thinned', 'scale')
"""Sections of a short run."""
PART = 24
"""Of the blocks of a boot's reads one in so many is replayed where each of them takes 20 ms."""
DELAY_MS = 20
PACE_SECONDS = 10
"""Of a guest's own work in a boot, roughly as on a processor that is not emulated."""
RATES = ('100M', '1G', 'unlimited')
COUNTS = (1, 2, 4, 8, 16, 32, 64)
CROWD_PART, CROWD_RATE, CROWD_SECONDS = 8, '250M', 4
"""Each of many hosts replays an eighth of a boot, over a quarter of 1 Gbit/s, in half of the time
that the whole would take over all of it: so two processors can be 64 hosts."""


def measure(scene: Scene, args: argparse.Namespace) -> None:
    parts: dict[str, Callable[[Scene, argparse.Namespace], None]] = {
        'replay': _replay,
        'kept': _kept,
        'thinned': _thinned,
        'place': _place,
        'scale': _scale,
        'choice': _choice,
        'boot': _boot,
    }
    for name, part in parts.items():
        if name in (args.only or (SHORT if args.smoke else parts)):
            part(scene, args)


def _replay(scene: Scene, args: argparse.Namespace) -> None:
    if args.smoke:
        # A rate at which the network decides, not how fast a busy machine wakes a process.
        cell = Cell('replay', '100M')
        replay.pairs(scene, cell, scene.trace, 3 * args.rounds)
        for number in range(args.rounds):
            replay.one_round(scene, cell, scene.trace, number, SMOKE)
        return
    for rate in RATES:
        cell = Cell('replay', rate)
        replay.pairs(scene, cell, scene.trace, 3 * args.rounds)
        for number in range(args.rounds):
            # How long a copy takes at 100 Mbit/s, minutes, is the network's alone to say.
            is_copied = rate != '100M' or number == 0
            replay.one_round(scene, cell, scene.trace, number, [*REMOTE, *['copy'] * is_copied])


def _kept(scene: Scene, args: argparse.Namespace) -> None:
    """With the guest's own pauses."""
    cell, paced = Cell('replay', '1G', think='kept'), scene.trace.paced(PACE_SECONDS)
    replay.pairs(scene, cell, paced, args.rounds)
    for number in range(args.rounds):
        replay.one_round(scene, cell, paced, number, ['plain', 'record'])


def _thinned(scene: Scene, args: argparse.Namespace) -> None:
    reads = scene.trace.thinned(PART)
    if args.smoke:
        cell = Cell('thinned', '1G', DELAY_MS)
        replay.one_round(scene, cell, reads, 0, ['plain', 'record'])
        return
    # What plays hardly asks the base: the whole of a boot is little there.
    for rate in RATES:
        replay.pairs(scene, Cell('replay', rate, DELAY_MS), scene.trace, 3 * args.rounds)
    # Where each request takes so long, how fast its bytes come says little of the others.
    cell = Cell('thinned', '1G', DELAY_MS)
    replay.pairs(scene, cell, reads, args.rounds)
    for number in range(args.rounds):
        replay.one_round(scene, cell, reads, number, REMOTE)


def _place(scene: Scene, args: argparse.Namespace) -> None:
    place.measure(scene, scene.trace, args.rounds)


def _scale(scene: Scene, args: argparse.Namespace) -> None:
    if args.smoke:
        scale.measure(scene, (1, 4), 1, CROWD_PART, CROWD_SECONDS, CROWD_RATE)
    else:
        scale.measure(scene, COUNTS, args.rounds, CROWD_PART, CROWD_SECONDS, CROWD_RATE)


def _choice(scene: Scene, args: argparse.Namespace) -> None:
    scene.other, scene.third = boots.recorded(scene), boots.recorded(scene)
    choices.measure(scene, args.rounds)


def _boot(scene: Scene, args: argparse.Namespace) -> None:
    for number in range(args.boots):
        boots.boot_round(scene, '100M', number, BOOTS)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='bench/run.sh', description=__doc__.splitlines()[0])
    parser.add_argument('--image', type=pathlib.Path, required=True, help='a raw disk that boots')
    parser.add_argument('--json', type=pathlib.Path, required=True)
    parser.add_argument('--folder', type=pathlib.Path)
    parser.add_argument('--smoke', action='store_true')
    parser.add_argument('--only', action='append', default=[])
    parser.add_argument('--rounds', type=int, help='of each replay (5; --smoke: 3)')
    parser.add_argument('--boots', type=int, default=1, help='of a real guest on each alternative')
    parser.add_argument('--seed', type=int, default=1, help='of the order')
    parser.add_argument('--trace', type=pathlib.Path, help='use these reads, or write them there')
    args = parser.parse_args(argv)
    for name in args.only:
        if args.smoke and name not in SHORT:
            parser.error(f'a short run does not measure "{name}"; it has {", ".join(SHORT)}')
    args.rounds = args.rounds or (3 if args.smoke else 5)
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    words = ['--smoke'] * args.smoke + [f'--rounds={args.rounds}', f'--boots={args.boots}']
    results = Results(f'bench/run.sh {shlex.join(words)}', machine.describe(), {})

    def collect(sample: Sample) -> None:
        results.samples.append(sample)
        results.write(args.json)  # what was measured before it was interrupted counts

    try:
        with rig.folders(args.folder) as where, network() as link:
            images = where.data / 'images'
            images.mkdir()
            (images / 'image').symlink_to(args.image.resolve())
            scene = Scene(where, link, images / 'image', collect, args.seed)
            scene.trace = _trace(scene, args.trace)
            thinned = scene.trace.thinned(PART)
            results.trace = {
                'reads': len(scene.trace.reads),
                'bytes': scene.trace.bytes,
                'bursts': scene.trace.bursts,
                'think_seconds': scene.trace.think,
                'thinned_reads': len(thinned.reads),
                'thinned_bytes': thinned.bytes,
            }
            measure(scene, args)
    except KeyboardInterrupt:
        print('bench/run.sh: interrupted', file=sys.stderr)
        return 130
    except rig.BenchError as error:
        print(f'bench/run.sh: {error}', file=sys.stderr)
        return 2
    return 0


def _trace(scene: Scene, file: pathlib.Path | None) -> Trace:
    if file is not None and file.exists():
        return Trace.read(file)
    trace = boots.recorded(scene)
    if file is not None:
        trace.write(file)
    return trace


if __name__ == '__main__':
    sys.exit(main())
