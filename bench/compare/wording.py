# SPDX-License-Identifier: Apache-2.0
"""How settings and figures are said and ordered: alike in tables, bars and plots."""

from collections.abc import Iterable, Sequence
import dataclasses
import re
import statistics

from bench.compare.sample import Sample

__all__ = ['Setting', 'number', 'ordered', 'settings', 'spread']

_RATES = {'100M': '100 Mbit/s', '250M': '250 Mbit/s', '1G': '1 Gbit/s', 'unlimited': 'unlimited'}
_ALTERNATIVES = (
    'copy',
    'plain',
    'copy-on-read',
    'nbdkit-cache',
    'stream',
    'page-cache',
    'page-cache-short',
    'record',
    'play',
    'raw',
)
_UNITS = {'': 0, 'K': 1, 'M': 2, 'G': 3}


@dataclasses.dataclass(frozen=True)
class Setting:
    """Of the network, and of when reads are sent."""

    rate: str
    delay_ms: int
    think: str

    @classmethod
    def of(cls, sample: Sample) -> 'Setting':
        return cls(sample.rate, sample.delay_ms, sample.think)

    def __str__(self) -> str:
        pauses = ', with the guest\'s pauses' if self.think == 'kept' else ''
        return f'{_RATES.get(self.rate, self.rate)}, {self.delay_ms} ms{pauses}'

    @property
    def place(self) -> tuple[object, ...]:
        """In a list of them: slow networks first."""
        rates = list(_RATES)
        rate = rates.index(self.rate) if self.rate in rates else len(rates)
        return self.think != 'none', self.delay_ms, rate, self.rate


def settings(samples: Iterable[Sample]) -> list[Setting]:
    return sorted({Setting.of(sample) for sample in samples}, key=lambda each: each.place)


def ordered(names: Iterable[str]) -> list[str]:
    """Return each name once: what is compared as in the manual, then the others, 4K before 1M."""

    def place(name: str) -> tuple[object, ...]:
        if name in _ALTERNATIVES:
            return 0, _ALTERNATIVES.index(name)
        words = re.findall(r'(\d+) ?([KMG]?)|(\D+)', name)
        return 1, [
            (0, int(digits) * 1024 ** _UNITS[unit], '') if digits else (1, 0, text)
            for digits, unit, text in words
        ]

    return sorted(set(names), key=place)


def number(value: float) -> str:
    """With three digits, which is more than such measurements repeat."""
    if 0 < value < 0.001:
        return '<0.001'
    if value >= 100 or value == 0:
        return f'{value:,.0f}'
    digits = 1 if value >= 10 else 2 if value >= 1 else 3
    return f'{value:.{digits}f}'


def spread(values: Sequence[float]) -> str:
    """Return median, least and most."""
    median = number(statistics.median(values))
    if len(values) == 1:
        return median
    return f'{median} ({number(min(values))}..{number(max(values))})'
