# SPDX-License-Identifier: Apache-2.0
"""Results as tables, for a terminal and in reStructuredText."""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import re
import statistics

from bench.compare.bars import Verdict
from bench.compare.sample import Results
from bench.compare.sample import Sample
from bench.compare.wording import number
from bench.compare.wording import ordered
from bench.compare.wording import Setting
from bench.compare.wording import settings
from bench.compare.wording import spread
from bench.figures import aligned

__all__ = ['NOTE', 'Table', 'as_rst', 'as_text', 'bars', 'machine', 'sections']

MIB = 1 << 20
NOTE = (
    'Medians, (least..most) of n. Two figures with a slash are of the first and of the second '
    'guest. Seconds of "copy" include those to prepare it, those of all others do not.'
)

_TITLES = {
    'replay': 'The reads of a boot',
    'thinned': 'A part of the reads of a boot',
    'boot': 'Boots of real guests',
    'place': 'Where the cache lies',
    'scale': 'Several hosts',
    'choice': 'Choice',
}


@dataclasses.dataclass(frozen=True)
class Table:
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    sides: str
    """As :func:`aligned` takes them."""


def sections(results: Results) -> dict[str, list[Table]]:
    """Return the tables of each section that there are results of."""
    found: dict[str, list[Table]] = {}
    for section, title in _TITLES.items():
        samples = results.of(section)
        if section == 'scale':
            tables = _scale(title, samples)
        elif section == 'choice':
            tables = []
            for group in ordered(sample.group for sample in samples):
                of_group = [sample for sample in samples if sample.group == group]
                tables += _matrices(f'{title}, {group}', of_group)
        else:
            tables = _matrices(title, samples)
        if tables:
            found[section] = tables
    return found


def machine(results: Results) -> list[Table]:
    tables = []
    if results.machine:
        tables.append(Table('The machine', ('', ''), list(results.machine.items()), 'll'))
    if results.trace:
        rows = [_fact(*item) for item in results.trace.items()]
        tables.append(Table('The boot whose reads are replayed', ('', ''), rows, 'lr'))
    return tables


def _fact(name: str, value: float) -> tuple[str, str]:
    name = name.replace('_', ' ')
    if name.endswith('bytes'):
        return f'{name.removesuffix("bytes")}MiB', number(value / MIB)
    return name, f'{value:,.0f}' if float(value).is_integer() else number(value)


def bars(verdicts: Sequence[Verdict]) -> Table:
    rows = [
        (
            each.name,
            f'{each.value:.4f}' if each.value < 10 else number(each.value),
            f'<= {each.limit:g}',
            'held' if each.held else 'MISSED',
            each.detail,
        )
        for each in verdicts
    ]
    return Table('Bars', ('bar', 'value', 'limit', '', 'medians (least..most)'), rows, 'lrlll')


# One row for each alternative

_Values = Callable[[Sample], float | None]
_Say = Callable[[Sequence[float]], str]


def _seconds(sample: Sample) -> float:
    return sample.seconds + (sample.prepare_seconds if sample.alternative == 'copy' else 0)


def _to_prepare(sample: Sample) -> float | None:
    return sample.prepare_seconds or None


def _in_mib(name: str) -> _Values:
    def value(sample: Sample) -> float | None:
        found: int | None = getattr(sample, name)
        return None if found is None else found / MIB

    return value


def _median(values: Sequence[float]) -> str:
    return number(statistics.median(values))


def _count(values: Sequence[float]) -> str:
    return f'{statistics.median(values):,.0f}'


def _said(samples: Iterable[Sample], of: _Values, say: _Say = _median) -> str:
    values = [value for value in map(of, samples) if value is not None]
    return say(values) if values else ''


def _both(
    first: Sequence[Sample], second: Sequence[Sample], of: _Values, say: _Say = _median
) -> str:
    texts = [_said(samples, of, say) for samples in (first, second)]
    return ' / '.join(text or '-' for text in texts) if any(texts) else ''


def _row(label: str, samples: Sequence[Sample]) -> dict[str, str]:
    first, second = (
        [sample for sample in samples if sample.guest == guest] for guest in ('first', 'second')
    )
    return {
        '': label,
        'n': str(max(len(first), len(second))),
        's, first guest': _said(first, _seconds, spread),
        's, second guest': _said(second, _seconds, spread),
        's to prepare': _said(first or second, _to_prepare),
        'MiB from base': _both(first, second, _in_mib('base_bytes')),
        'requests': _both(first, second, lambda sample: sample.base_requests, _count),
        'MiB written': _both(first, second, _in_mib('written_bytes')),
        'MiB on disk': _said(second or first, _in_mib('disk_bytes')),
        'CPU s': _both(first, second, lambda sample: sample.cpu_seconds),
    }


def _matrices(title: str, samples: Sequence[Sample]) -> list[Table]:
    """Return a table for each setting, without columns that would be empty."""
    tables = []
    for setting in settings(samples):
        here = [sample for sample in samples if Setting.of(sample) == setting]
        rows = [
            _row(name, [sample for sample in here if sample.alternative == name])
            for name in ordered(sample.alternative for sample in here)
        ]
        header = [name for name in rows[0] if not name or any(row[name] for row in rows)]
        tables.append(
            Table(
                f'{title}: {setting}',
                header,
                [[row[name] for name in header] for row in rows],
                'l' + 'r' * (len(header) - 1),
            )
        )
    return tables


# One row for each number of hosts


def _scale(title: str, samples: Sequence[Sample]) -> list[Table]:
    tables = []
    for setting in settings(samples):
        found: dict[tuple[int, str, str], list[Sample]] = {}
        for sample in samples:
            if Setting.of(sample) == setting:
                key = (sample.hosts, sample.alternative, sample.images)
                found.setdefault(key, []).append(sample)
        figures: dict[str, Callable[[Sequence[Sample]], str]] = {
            'seconds of the slowest': lambda some: _said(some, _seconds, spread),
            'MiB from base': lambda some: _said(some, _in_mib('base_bytes')),
        }
        columns = [
            (alternative, images)
            for images in ('one', 'many')
            for alternative in ordered({name for _, name, its in found if its == images})
        ]
        says = {'one': 'one image', 'many': 'many images'}
        header = ['hosts', *(f'{name}, {says[images]}' for name, images in columns)]
        for what, figure in figures.items():
            rows = [
                [str(hosts), *(figure(found.get((hosts, *column), [])) for column in columns)]
                for hosts in sorted({hosts for hosts, _, _ in found})
            ]
            if any(any(row[1:]) for row in rows):
                full = f'{title}, {what}: {setting}'
                tables.append(Table(full, header, rows, 'r' * len(header)))
    return tables


# Forms


def as_text(table: Table) -> str:
    rows = [row for row in (table.header, *table.rows) if any(row)]
    return f'{table.title}\n{aligned(rows, table.sides)}'


def as_rst(table: Table) -> str:
    header = [table.header] if any(table.header) else []
    lines = [
        f'.. list-table:: {_escaped(table.title)}',
        f'   :header-rows: {len(header)}',
        '   :widths: auto',
        '',
    ]
    for row in (*header, *table.rows):
        for place, text in enumerate(row):
            lines.append(f'   {" " if place else "*"} - {_escaped(text)}')
    return '\n'.join(lines) + '\n'


def _escaped(text: str) -> str:
    """So that it is no markup; "(a) ..." and "- ..." would be lists."""
    text = re.sub(r'([\\*`|_])', r'\\\1', text)
    return re.sub(r'^(?=[^\w\\]|\w+[.)](\s|$))', r'\\', text)
