# SPDX-License-Identifier: Apache-2.0
"""What the demo has measured: as a picture. All axes are linear and begin at 0."""

from __future__ import annotations

import dataclasses
from pathlib import Path
import statistics
from typing import TYPE_CHECKING

from bench.compare.plots import INK
from bench.compare.plots import STYLE
from bench.compare.wording import number
from bench.demo.report import Boot
from bench.demo.report import Findings
from bench.demo.report import MIB
from bench.demo.report import share
from bench.demo.report import speed
from bench.demo.report import title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ['draw']

_DPI = 110
_COLOURS = {
    'plain': '#e69f00',
    'record': '#56b4e9',
    'play': '#0072b2',
    'play3': '#0072b2',
    'raw': '#009e73',
}
_NAMES = {
    'plain': 'plain: the base alone',
    'record': 'recording its cache',
    'play': 'playing its cache',
    'play3': 'playing, 3 guests',
    'raw': 'a local raw file',
}
_GREY = '#8c959f'


@dataclasses.dataclass(frozen=True)
class _Bar:
    """:param estimated: how much of its end is not measured, or says nothing"""

    label: str
    colour: str
    values: list[float]
    estimated: float = 0.0
    note: str = ''

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def draw(findings: Findings, path: Path) -> None:
    """Write the picture; this needs matplotlib."""
    import matplotlib

    # No pyplot: it keeps what it has drawn, and asks for a screen.
    with matplotlib.rc_context(STYLE):
        figure = _figure(findings)
        part = path.with_name(f'.{path.name}.part')
        figure.savefig(part, format='png', dpi=_DPI)
    part.replace(path)


def _figure(findings: Findings) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.4), layout='constrained')
    figure.suptitle(_headline(findings), x=0.01, ha='left')
    grid = figure.add_gridspec(3, 2, height_ratios=(1, 3, 4), hspace=0.08)
    _panel(
        figure.add_subplot(grid[0, :]),
        '1  Stock Nova copies the image before its first server starts (hosts with a shared base: '
        f'one copy for all), {speed(findings.rate)}',
        'seconds',
        [_copy(findings)],
    )
    _panel(
        figure.add_subplot(grid[1, 0]),
        '2  Real guests: what their boot read from the base',
        'MiB',
        [_boot(boot, boot.base_bytes / MIB) for boot in findings.boots],
    )
    _panel(
        figure.add_subplot(grid[1, 1]),
        '    Their seconds' + (', of an emulated processor' if findings.is_emulated else ''),
        'seconds, emulated: they compare nothing' if findings.is_emulated else 'seconds',
        [
            _boot(boot, boot.seconds, is_emulated=findings.is_emulated)
            for boot in findings.boots
            if boot.seconds is not None
        ],
    )
    for column, replay in enumerate(findings.replays):
        head = '3  Reads of that boot replayed' if column == 0 else '    The same'
        rounds = len(replay.samples['plain'])
        _panel(
            figure.add_subplot(grid[2, column]),
            f'{head}, {title(replay)}, {speed(findings.rate)}',
            f'seconds for {share(replay)}; median, least and most of {rounds} rounds',
            [_Bar(_NAMES[name], _COLOURS[name], replay.seconds(name)) for name in replay.samples],
        )
    return figure


def _headline(findings: Findings) -> str:
    plain, play = (
        next(boot for boot in findings.boots if boot.name == name) for name in ('plain', 'play')
    )
    return (
        f'A boot of Debian 12 reads {number(plain.base_bytes / MIB)} MiB from its base; '
        f'playing its cache, {number(play.base_bytes / MIB)} MiB'
    )


def _copy(findings: Findings) -> _Bar:
    copy = findings.copy
    rest = copy.seconds - copy.measured_seconds
    note = f'(hatched: extrapolated from {copy.measured_bytes / MIB:,.0f} MiB)'
    return _Bar(f'{copy.image_bytes / MIB:,.0f} MiB', _GREY, [copy.seconds], rest, note)


def _boot(boot: Boot, value: float, *, is_emulated: bool = False) -> _Bar:
    note = '(emulated)' if is_emulated else ''
    colour = _GREY if is_emulated else _COLOURS[boot.name]
    label = _NAMES[boot.name] if boot.seconds is not None else 'plain: its reads replayed'
    return _Bar(label, colour, [value], value if is_emulated else 0.0, note)


def _panel(axes: Axes, title: str, unit: str, bars: list[_Bar]) -> None:
    most = max(max(bar.values) for bar in bars)
    for row, bar in enumerate(bars):
        solid = bar.median - bar.estimated
        axes.barh(row, solid, 0.62, color=bar.colour)
        axes.barh(
            row,
            bar.estimated,
            0.62,
            left=solid,
            facecolor='white',
            edgecolor=bar.colour,
            hatch='///',
        )
        if len(bar.values) > 1:
            reach = [[bar.median - min(bar.values)], [max(bar.values) - bar.median]]
            axes.errorbar(bar.median, row, xerr=reach, color=INK, linewidth=1, capsize=3)
        axes.annotate(
            f'{number(bar.median)} {bar.note}'.strip(),
            (max(bar.values), row),
            xytext=(5, 0),
            textcoords='offset points',
            va='center',
        )
    axes.set_title(title)
    axes.set_xlabel(unit)
    axes.set_xlim(0, most * 1.25 or 1)
    axes.set_ylim(len(bars) - 0.5, -0.5)  # the first on top
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.tick_params(length=0)
    axes.grid(axis='x')
