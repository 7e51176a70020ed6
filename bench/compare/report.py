# SPDX-License-Identifier: Apache-2.0
"""Show results, and whether they hold the bars: ``python -m bench.compare.report FILE...``

The exit status is 0 if all bars were held, 1 if one was missed, 2 if there was no telling.
"""

import argparse
from collections.abc import Sequence
import pathlib
import sys
import textwrap

from bench.compare import bars
from bench.compare import plots
from bench.compare import tables
from bench.compare.sample import Results

__all__ = ['as_text', 'main', 'write_tables']


def as_text(results: Results, verdicts: Sequence[bars.Verdict]) -> str:
    parts = [f'$ {results.command}', textwrap.fill(tables.NOTE, 99)]
    parts += map(tables.as_text, tables.machine(results))
    for of_section in tables.sections(results).values():
        parts += map(tables.as_text, of_section)
    if verdicts:
        parts.append(tables.as_text(tables.bars(verdicts)))
    missed = [each.name for each in verdicts if not each.held]
    parts.append(f'{len(verdicts) - len(missed)} of {len(verdicts)} bars held')
    return '\n\n'.join(parts) + ''.join(f'\nmissed: {name}' for name in missed)


def write_tables(results: Results, verdicts: Sequence[bars.Verdict], folder: pathlib.Path) -> None:
    """Write what a page of the manual includes: a file for each section, and ``bars.rst``."""
    folder.mkdir(parents=True, exist_ok=True)
    blocks = {
        'machine': tables.machine(results),
        'bars': [tables.bars(verdicts)],
        **tables.sections(results),
    }
    for name, of_section in blocks.items():
        (folder / f'{name}.rst').write_text('\n'.join(map(tables.as_rst, of_section)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='bench.compare.report', description='Show what was measured, and judge it.'
    )
    parser.add_argument('files', nargs='+', type=pathlib.Path, metavar='FILE')
    parser.add_argument(
        '--plots', type=pathlib.Path, metavar='FOLDER', help='draw pictures there, too'
    )
    parser.add_argument(
        '--smoke', action='store_true', help='judge a short run, whose seconds say little'
    )
    args = parser.parse_args(argv)
    try:
        results = Results.read(args.files)
    except (OSError, ValueError) as error:
        print(f'{parser.prog}: {error}', file=sys.stderr)
        return 2
    verdicts = bars.judge(results, args.smoke)
    print(as_text(results, verdicts))
    if args.plots:
        try:
            args.plots.mkdir(parents=True, exist_ok=True)
            plots.draw(results, args.plots)
        except (ImportError, OSError) as error:
            print(f'{parser.prog}: {error}', file=sys.stderr)
            return 2
    return 0 if all(each.held for each in verdicts) else 1


if __name__ == '__main__':
    sys.exit(main())
