# SPDX-License-Identifier: Apache-2.0
"""The command: N random faults, one after the other. bench/faults.sh has what it needs."""

import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import sys
import tempfile

from bench.faults import burn
from bench.faults import catalogue
from bench.faults import report
from bench.faults.fault import Fault
from bench.faults.fault import Phase
from bench.faults.plants import PLANTS
from bench.faults.processes import Nothing
from bench.faults.rounds import Round
from bench.faults.row import Row
from bench.faults.scene import RECONNECT_SECONDS
from tests.functional import installation


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='bench/faults.sh', description='Faults at random moments, and what was lost.'
    )
    parser.add_argument('count', type=int, metavar='N', help='how many faults')
    parser.add_argument('--seed', type=int, help='the same seed, the same faults (random)')
    parser.add_argument('--json', type=pathlib.Path, metavar='FILE', help='write all rows there')
    parser.add_argument(
        '--table', type=pathlib.Path, metavar='FILE', help='write a table in reStructuredText'
    )
    parser.add_argument(
        '--kind', action='append', default=[], choices=sorted(catalogue.FAULTS), help='only this'
    )
    parser.add_argument('--phase', choices=[phase.name.lower() for phase in Phase])
    parser.add_argument(
        '--only', type=int, metavar='NUMBER', help='of the N faults of a seed only this one'
    )
    parser.add_argument(
        '--scale', type=float, default=1.0, help='of the time that faults last (1)'
    )
    parser.add_argument(
        '--reconnect',
        type=int,
        default=RECONNECT_SECONDS,
        metavar='SECONDS',
        help=f'for how long guests wait for a recorder that they lost ({RECONNECT_SECONDS})',
    )
    parser.add_argument(
        '--burn',
        type=_burners,
        default={},
        metavar='WHAT',
        help=f'beside others who leave little of the host: {",".join(burn.KINDS)}, or cpu=2',
    )
    parser.add_argument(
        '--plant', choices=sorted(PLANTS), help='in the first round, a loss that must be found'
    )
    args = parser.parse_args(argv)
    if args.count < 1 or args.scale < 0:
        parser.error('N is at least 1, --scale at least 0')
    return args


def _burners(text: str) -> dict[str, int]:
    found = {}
    for word in text.split(','):
        kind, _, count = word.partition('=')
        if kind not in burn.KINDS or not re.fullmatch('[0-9]{0,3}', count):
            known = ','.join(burn.KINDS)
            raise argparse.ArgumentTypeError(
                f'{word!r} is none of {known}, with or without =NUMBER'
            )
        found[kind] = int(count or burn.KINDS[kind])
    return found


def rounds(args: argparse.Namespace, product: installation.Installation, rows: list[Row]) -> None:
    """Run one after the other, and add a row for each."""
    phase = Phase[args.phase.upper()] if args.phase else None
    for number in range(1, args.count + 1):
        if args.only not in (None, number):
            continue
        chance = random.Random(f'{args.seed} {number}')
        planted = args.plant if number == 1 else None
        fault: type[Fault]
        if planted:
            fault, moment = Nothing, Phase.PLAYING
        else:
            fault, moment = catalogue.choose(chance, args.kind, phase)
        plant = PLANTS[planted]() if planted else None
        options = {
            'scale': args.scale,
            'plant': plant,
            'reconnect_seconds': args.reconnect,
        }
        rows.append(Round(fault, moment, chance, **options).run(product))
        print(report.line_of(number, rows[-1]), flush=True)


def _interrupted(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if os.geteuid() != 0:
        print('Faults are for root: file systems are mounted, users changed.', file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    if args.seed is None:
        args.seed = random.SystemRandom().randrange(10**6)
    with contextlib.ExitStack() as undo:
        folder = pathlib.Path(tempfile.mkdtemp(prefix='qct-product-', dir='/tmp'))
        undo.callback(shutil.rmtree, folder)
        rows: list[Row] = []
        try:
            product = installation.find(folder)
            with burn.burning(args.burn):
                rounds(args, product, rows)
        except KeyboardInterrupt:
            print(f'Interrupted after {len(rows)} faults.', file=sys.stderr)
            return 130
    print(report.summary(rows, args.seed))
    if args.json is not None:
        args.json.write_text(json.dumps(report.as_json(rows, args.seed), indent=1) + '\n')
    if args.table is not None:
        words = ['bench/faults.sh', str(args.count), '--seed', str(args.seed)]
        if args.burn:
            words += ['--burn', ','.join(f'{kind}={count}' for kind, count in args.burn.items())]
        command = shlex.join(words)
        args.table.write_text(report.table(rows, command))
    return int(any(row.lost for row in rows))


if __name__ == '__main__':
    sys.exit(main())
