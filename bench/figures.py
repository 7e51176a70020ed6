# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks have measured: as a table for people, as JSON for programs.

Run as a program, it shows the JSON files of several benchmarks together:
``figures.py [--json ALL] FILE...``
"""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
from typing import Any


@dataclasses.dataclass
class Figure:
    """One measured value.

    ``bar`` is what it may be at most; ``low``, ``high`` and ``samples`` belong to a median.
    Figures of several groups that have names in common are shown as one table.
    """

    name: str
    value: float
    unit: str
    bar: float | None = None
    low: float | None = None
    high: float | None = None
    samples: int | None = None
    note: str = ''
    group: str = ''

    @classmethod
    def median(
        cls, name: str, samples: Sequence[float], unit: str, bar: float | None = None
    ) -> 'Figure':
        value = statistics.median(samples)
        return cls(name, value, unit, bar, min(samples), max(samples), len(samples))

    def of(self, group: str) -> 'Figure':
        return dataclasses.replace(self, group=group)

    @property
    def held(self) -> bool:
        return self.bar is None or self.value <= self.bar

    def row(self) -> tuple[str, str, str, str, str]:
        spread = ''
        if self.low is not None and self.high is not None:
            spread = f'{_number(self.low)} .. {_number(self.high)}, n={self.samples}'
        bar = '' if self.bar is None else f'<= {_number(self.bar)}'
        judged = '' if self.bar is None else ('ok' if self.held else 'MISSED')
        value = f'{_number(self.value)} {self.unit}'.strip()
        return self.name, value, spread or self.note, bar, judged


def _number(value: float) -> str:
    if isinstance(value, int) or float(value).is_integer():
        return f'{value:,.0f}'
    return f'{value:.3f}' if abs(value) < 10 else f'{value:.1f}'


def table(figures: Sequence[Figure]) -> str:
    alone = [figure.row() for figure in figures if not figure.group]
    parts = []
    if alone:
        parts.append(aligned([('figure', 'value', 'min .. max', 'bar', ''), *alone], 'lrlll'))
    grouped = [figure for figure in figures if figure.group]
    if grouped:
        parts.append(_matrix(grouped))
    return '\n\n'.join(parts)


def _matrix(figures: Sequence[Figure]) -> str:
    names = list(dict.fromkeys(figure.name for figure in figures))
    groups = list(dict.fromkeys(figure.group for figure in figures))
    cells = {(figure.group, figure.name): figure for figure in figures}

    def cell(group: str, name: str) -> str:
        figure = cells.get((group, name))
        if figure is None:
            return ''
        return figure.row()[1] + ('' if figure.held else ' MISSED')

    def bar(name: str) -> str:
        return next((f.row()[3] for f in figures if f.name == name and f.bar is not None), '')

    rows = [['', *names], *([group, *(cell(group, name) for name in names)] for group in groups)]
    bars = [bar(name) for name in names]
    if any(bars):
        rows.append(['bar', *bars])
    if len(names) > 9:
        rows = [list(column) for column in zip(*rows, strict=True)]
    return aligned(rows, 'l' + 'r' * (len(rows[0]) - 1))


def aligned(rows: Sequence[Sequence[str]], sides: str) -> str:
    """Return rows as text.

    :param sides: one letter for each column: left or right
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join(
            text.ljust(width) if side == 'l' else text.rjust(width)
            for text, width, side in zip(row, widths, sides, strict=True)
        ).rstrip()
        for row in rows
    )


def versions() -> dict[str, str]:
    """What was measured, and on what."""
    done = subprocess.run(['qemu-img', '--version'], capture_output=True, text=True, check=True)
    return {
        'qemu': done.stdout.split()[2],
        'python': sys.version.split()[0],
        'kernel': os.uname().release,
        'processors': str(os.cpu_count()),
        'load': f'{os.getloadavg()[0]:.1f}',
    }


def run(
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace], list[Figure]],
    argv: Sequence[str] | None = None,
) -> int:
    """Be the main program of a benchmark.

    :return: 0 if all bars were held, 1 if one was missed, 2 if it could not be measured
    """
    parser.add_argument('--json', type=pathlib.Path, metavar='FILE', help='write figures there')
    parser.add_argument(
        '--folder', type=pathlib.Path, help='where disks and caches go (default: TMPDIR)'
    )
    args = parser.parse_args(argv)
    name = pathlib.Path(parser.prog).name
    on = versions()
    if float(on['load']) > 1:
        print(f'{name}: other processes are at work here (load {on["load"]})', file=sys.stderr)
    try:
        figures = measure(args)
    except KeyboardInterrupt:
        print(f'{name}: interrupted', file=sys.stderr)
        return 130
    except Exception as error:  # whatever it is, it was no measurement
        print(f'{name}: {type(error).__name__}: {error}', file=sys.stderr)
        return 2
    print(table(figures))
    if args.json:
        head = {
            'command': f'bench/{name} {_options(parser, args)}'.strip(),
            'on': on,
        }
        _write(args.json, [head, *map(_terse, figures)])
    return 0 if all(figure.held for figure in figures) else 1


def _terse(figure: Figure) -> dict[str, Any]:
    """Without what is as by default; six digits are more than is measured."""
    return {
        field.name: round(value, 6) if isinstance(value, float) else value
        for field in dataclasses.fields(Figure)
        if (value := getattr(figure, field.name)) != field.default
    }


def _write(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text('[\n' + ',\n'.join(map(json.dumps, rows)) + '\n]\n')


def _options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> str:
    """Options that are not as by default, without those that change no figure."""
    words = []
    for action in parser._actions:
        value = getattr(args, action.dest, action.default)
        if action.dest not in ('json', 'folder') and value != action.default:
            words.append(action.option_strings[-1])
            words += [] if action.nargs == 0 else [str(value)]
    return shlex.join(words)


def main() -> int:
    parser = argparse.ArgumentParser(description='Show what several benchmarks have measured.')
    parser.add_argument('files', nargs='+', type=pathlib.Path)
    parser.add_argument('--json', type=pathlib.Path)
    args = parser.parse_args()
    documents = [json.loads(file.read_text()) for file in args.files]
    figures = []
    for head, *rows in documents:
        on = ', '.join(f'{name} {value}' for name, value in head['on'].items())
        print(f'$ {head["command"]}    # {on}')
        own = [Figure(**fields) for fields in rows]
        print(f'{table(own)}\n')
        figures += own
    missed = [figure.name for figure in figures if not figure.held]
    judged = sum(figure.bar is not None for figure in figures)
    print(
        f'\n{judged - len(missed)} of {judged} bars held', *missed, sep='; missed: ' * bool(missed)
    )
    if args.json:
        _write(args.json, [row for rows in documents for row in rows])
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
