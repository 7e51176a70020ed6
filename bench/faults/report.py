# SPDX-License-Identifier: Apache-2.0
"""What was tried and what was lost: for programs, for people, for the documentation."""

import collections
from collections.abc import Iterable
import dataclasses
import textwrap
from typing import Any

from bench.faults.catalogue import FAULTS
from bench.faults.fault import Phase
from bench.faults.row import Row

__all__ = ['as_json', 'line_of', 'summary', 'table']


def as_json(rows: list[Row], seed: int) -> dict[str, Any]:
    return {
        'tried': len(rows),
        'guest_errors': sum(row.guest_errors for row in rows),
        'wrong_bytes': sum(row.wrong_bytes for row in rows),
        'leaks': sum(len(row.leaks) for row in rows),
        'problems': sum(len(row.problems) for row in rows),
        'seed': seed,
        'faults': [dataclasses.asdict(row) for row in rows],
    }


def line_of(number: int, row: Row) -> str:
    """Return one line about one fault, and more if something was lost."""
    plans = collections.Counter(row.guests)
    text = (
        f'{number:4d} {row.kind:16} {row.phase:22} {row.ground["base"]:5} {row.ground["disk"]:6}'
        f' {" ".join(f"{plan} {count}" for plan, count in plans.items())},'
        f' longest wait {row.longest_wait_s:.1f} s, cache {row.cache or "?"} ({row.seconds:.1f} s)'
    )
    if row.lost:
        text += f'\n     LOST: {row.guest_errors} errors, {row.wrong_bytes} wrong clusters'
        for words in (*row.leaks, *row.problems, *row.notes):
            text += f'\n     - {words}'
    return text


def _by_kind(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for kind in (*FAULTS, 'nothing'):
        of_kind = [row for row in rows if row.kind == kind]
        if of_kind:
            found[kind] = of_kind
    return found


def _caches(rows: list[Row]) -> str:
    counted = collections.Counter(row.cache or 'unknown' for row in rows)
    return ', '.join(f'{cache} {count}' for cache, count in counted.most_common())


def _seen(rows: list[Row]) -> str:
    errors = sum(row.guest_errors for row in rows)
    wrong = sum(row.wrong_bytes for row in rows)
    longest = max(row.longest_wait_s for row in rows)
    said = []
    if errors:
        said.append(f'{errors} errors')
    if wrong:
        said.append(f'{wrong} wrong clusters')
    if not said:
        said.append('no error, no wrong byte')
    return f'{", ".join(said)}; longest wait of a read {longest:.1f} s'


def summary(rows: list[Row], seed: int) -> str:
    lines = [f'{"fault":16} {"tried":>5} {"lost":>4}  what the guests saw; the cache']
    for kind, of_kind in _by_kind(rows).items():
        lost = sum(row.lost for row in of_kind)
        lines.append(
            f'{kind:16} {len(of_kind):5d} {lost:4d}  {_seen(of_kind)}; {_caches(of_kind)}'
        )
    facts = as_json(rows, seed)
    names = ('tried', 'guest_errors', 'wrong_bytes', 'leaks', 'problems', 'seed')
    lines.append(', '.join(f'{name} {facts[name]}' for name in names))
    return '\n'.join(lines)


def table(rows: list[Row], command: str) -> str:
    """Return a table in reStructuredText."""
    lines = [
        '.. SPDX-License-Identifier: Apache-2.0',
        f'.. Made by: {command}',
        '',
        f'.. list-table:: {len(rows)} faults at random moments (``{command}``)',
        '   :header-rows: 1',
        '   :widths: 30 30 30 10',
        '',
        *_cells('fault', 'what the guests saw', 'what became of the cache', 'tried'),
    ]
    for kind, of_kind in _by_kind(rows).items():
        says = FAULTS[kind].says if kind in FAULTS else kind
        phases = [phase.value for phase in Phase if any(r.phase == phase.value for r in of_kind)]
        fault = f'{says}: {", ".join(phases)}'
        lines += _cells(fault, _seen(of_kind), _caches(of_kind), str(len(of_kind)))
    return '\n'.join(lines) + '\n'


def _cells(*texts: str) -> list[str]:
    lines = []
    for number, text in enumerate(texts):
        lines += textwrap.wrap(
            text,
            width=99,
            initial_indent='   * - ' if number == 0 else '     - ',
            subsequent_indent=' ' * 7,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines
