# SPDX-License-Identifier: Apache-2.0
"""Results as plots. matplotlib is imported when one is drawn; a table needs none."""

from collections.abc import Callable, Sequence
import dataclasses
import io
import pathlib
import statistics
from typing import Any, TYPE_CHECKING

from bench.compare.sample import Results
from bench.compare.sample import Sample
from bench.compare.wording import number
from bench.compare.wording import ordered
from bench.compare.wording import Setting
from bench.compare.wording import settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ['draw']

MIB = 1 << 20
_DPI = 110
_COLOURS = 64

# Okabe and Ito's colours, which people who see colours differently tell apart, too.
_OTHERS = '#e69f00'
_OWN = {'record': '#0072b2', 'play': '#0072b2', 'raw': '#009e73'}
_LINES = {
    'plain': ('#e69f00', 'o', '-'),
    'record': ('#56b4e9', 's', '-'),
    'play': ('#0072b2', 'D', '-'),
    'raw': ('#009e73', 'x', '--'),
}
_INK = '#24292f'
_FAINT = '#6b7480'
_COPYING = '#8c959f'
_LIGHTER = {'#e69f00': '#f4d38c', '#0072b2': '#8cbede', '#009e73': '#8cd2bd'}
"""Of second guests."""
_THICK = 0.38
"""Of a bar, in rows."""

_STYLE: dict[Any, Any] = {
    'axes.axisbelow': True,
    'axes.edgecolor': '#b9c0c7',
    'axes.labelcolor': _FAINT,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlecolor': _INK,
    'axes.titlelocation': 'left',
    'axes.titlesize': 10.5,
    'figure.titlesize': 13,
    'figure.titleweight': 'bold',
    'font.size': 9,
    'grid.color': '#e8edf1',
    'legend.frameon': False,
    'text.color': _INK,
    'text.parse_math': False,
    'xtick.color': _FAINT,
    'ytick.color': _INK,
}

_Value = Callable[[Sample], float]


def draw(results: Results, folder: pathlib.Path) -> list[pathlib.Path]:
    """Draw what there are results of and return the files.

    :raises ImportError: if there is no matplotlib
    """
    import matplotlib

    plots = {
        'replay.png': _replay,
        'thinned.png': _thinned,
        'bytes.png': _bytes,
        'boot.png': _boot,
        'scale.png': _scale,
    }
    paths = []
    # No pyplot: it keeps what it has drawn, and asks for a screen.
    with matplotlib.rc_context(_STYLE):
        for name, plot in plots.items():
            figure = plot(results)
            if figure is not None:
                (folder / name).write_bytes(_png(figure))
                paths.append(folder / name)
    return paths


def _png(figure: 'Figure') -> bytes:
    """With a palette: a third of the size, and these files are kept."""
    from PIL import Image  # matplotlib needs it as well

    drawn, content = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format='png', dpi=_DPI)
    with Image.open(drawn) as image:
        few = image.convert('RGB').quantize(_COLOURS, dither=Image.Dither.NONE)
        few.save(content, format='png', optimize=True)
    return content.getvalue()


def _figure(width: float, height: float) -> 'Figure':
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout='constrained')


# Bars of the alternatives


def _replay(results: Results) -> 'Figure | None':
    samples = results.of('replay', delay_ms=0, think='none')
    return _panels(samples, 'The reads of a boot: seconds', 'seconds', _seconds, log=True)


def _thinned(results: Results) -> 'Figure | None':
    samples = results.of('thinned', delay_ms=20, think='none')
    title = 'A part of the reads of a boot, each 20 ms from the base: seconds'
    return _panels(samples, title, 'seconds', _seconds, log=True)


def _bytes(results: Results) -> 'Figure | None':
    samples = [
        sample
        for sample in results.of('replay', delay_ms=0, think='none')
        if sample.base_bytes is not None
    ]
    # They are much the same at each rate: one is enough.
    rates = [setting.rate for setting in settings(samples)]
    rate = '1G' if '1G' in rates else rates[0] if rates else None
    samples = [sample for sample in samples if sample.rate == rate]
    title = 'The reads of a boot: MiB from the base'
    return _panels(samples, title, 'MiB', lambda each: (each.base_bytes or 0) / MIB, log=True)


def _boot(results: Results) -> 'Figure | None':
    return _panels(results.of('boot'), 'Boots of real guests: seconds', 'seconds', _seconds)


def _seconds(sample: Sample) -> float:
    return sample.total_seconds if sample.alternative == 'copy' else sample.seconds


def _panels(
    samples: Sequence[Sample], title: str, unit: str, value: _Value, *, log: bool = False
) -> 'Figure | None':
    """Draw a panel for each setting, side by side, with a bar for each kind of guest."""
    if not samples:
        return None
    found = settings(samples)
    names = ordered(sample.alternative for sample in samples)
    figure = _figure(7.5 if len(found) == 1 else 3.2 + 2.9 * len(found), 1.55 + 0.42 * len(names))
    figure.suptitle(title, x=0.01, ha='left')
    grid = figure.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)
    for axes, setting in zip(grid[0], found, strict=True):
        here = [sample for sample in samples if Setting.of(sample) == setting]
        for row, name in enumerate(names):
            _bars(axes, row, [each for each in here if each.alternative == name], value, log=log)
        axes.set_title(str(setting))
        axes.set_xlabel(f'{unit}, logarithmic' if log else unit)
        axes.grid(axis='x')
        axes.tick_params(length=0)
        axes.spines['left'].set_visible(False)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)  # the first on top
        _limit(axes, [value(sample) for sample in samples], log=log)
    _explain(figure, copying=not log and 'copy' in names)
    return figure


def _bars(axes: 'Axes', row: int, samples: Sequence[Sample], value: _Value, *, log: bool) -> None:
    guests = [
        [sample for sample in samples if sample.guest == guest] for guest in ('first', 'second')
    ]
    for place, of_guest in enumerate(guests):
        if not of_guest:
            continue
        at = row + (place - 0.5) * (_THICK + 0.02) if all(guests) else row
        name = of_guest[0].alternative
        colour = _OWN.get(name, _OTHERS)
        values = [value(sample) for sample in of_guest]
        median, most = statistics.median(values), max(values)
        axes.barh(at, median, _THICK, color=_LIGHTER[colour] if place else colour)
        if name == 'copy' and not log:  # on a logarithmic axis parts of a bar say nothing
            copying = statistics.median(sample.prepare_seconds for sample in of_guest)
            axes.barh(at, copying, _THICK, color=_COPYING)
        if len(values) > 1 and most > 0:
            axes.plot([min(values), most], [at, at], color=_INK, linewidth=0.9)
        # A 0 has no place on a logarithmic axis.
        from_left = axes.get_yaxis_transform()
        axes.annotate(
            number(median),
            (most, at),
            xycoords='data' if most > 0 else from_left,
            xytext=(3, 0),
            textcoords='offset points',
            va='center',
            fontsize=7.5,
        )


def _limit(axes: 'Axes', values: Sequence[float], *, log: bool) -> None:
    """Leave room for figures on the right."""
    most = max(values)
    if not log or most == 0:
        axes.set_xlim(0, most * 1.2 or 1)
        return
    left = max(min(value for value in values if value > 0), most / 1e5) / 2
    axes.set_xscale('log')
    axes.set_xlim(left, most * (most / left) ** 0.25)
    axes.xaxis.set_major_formatter(lambda x, _: f'{x:,g}')
    axes.xaxis.set_minor_formatter(lambda x, _: '')


def _explain(figure: 'Figure', *, copying: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    own = _OWN['record']
    handles = [
        Patch(color=_OTHERS, label='others, first guest'),
        Patch(color=_LIGHTER[_OTHERS], label='others, second guest'),
        Patch(color=own, label='this project, first guest'),
        Patch(color=_LIGHTER[own], label='this project, second guest'),
        Patch(color=_OWN['raw'], label='a local raw file'),
        Line2D([], [], color=_INK, linewidth=0.9, label='least to most'),
    ]
    if copying:
        handles.append(Patch(color=_COPYING, label='copying, before the guest starts'))
    figure.legend(
        handles=handles, loc='outside lower center', ncols=(len(handles) + 1) // 2, fontsize=8
    )


# Lines over the number of hosts


def _scale(results: Results) -> 'Figure | None':
    samples = [each for each in results.of('scale') if each.alternative in _LINES]
    found = settings(samples)
    kinds = [kind for kind in ('one', 'many') if any(each.images == kind for each in samples)]
    if not found:
        return None
    figure = _figure(1 + 4.7 * len(kinds), 0.9 + 3.6 * len(found))
    figure.suptitle(
        'Several hosts at once: seconds of the slowest, by their number', x=0.01, ha='left'
    )
    grid = figure.subplots(len(found), len(kinds), sharey='row', squeeze=False)
    for line, setting in zip(grid, found, strict=True):
        for axes, kind in zip(line, kinds, strict=True):
            wanted = {'images': kind, **dataclasses.asdict(setting)}
            _lines(axes, results.of('scale', **wanted))
            says = 'one image for all' if kind == 'one' else 'another image for each'
            axes.set_title(f'{says}: {setting}')
            axes.set_xlabel('hosts, logarithmic')
        line[0].set_ylabel('seconds')
        most = max(each.seconds for each in samples if Setting.of(each) == setting)
        line[0].set_ylim(0, most * 1.08 or 1)  # of both
    return figure


def _lines(axes: 'Axes', samples: Sequence[Sample]) -> None:
    counts = sorted({sample.hosts for sample in samples})
    for name, (colour, marker, style) in _LINES.items():
        by_hosts: dict[int, list[float]] = {}
        for sample in samples:
            if sample.alternative == name:
                by_hosts.setdefault(sample.hosts, []).append(sample.seconds)
        if not by_hosts:
            continue
        hosts = sorted(by_hosts)
        medians = [statistics.median(by_hosts[each]) for each in hosts]
        least = [min(by_hosts[each]) for each in hosts]
        most = [max(by_hosts[each]) for each in hosts]
        axes.fill_between(hosts, least, most, color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            hosts,
            medians,
            color=colour,
            marker=marker,
            linestyle=style,
            markersize=5,
            label=f'{name} ({number(medians[0])} to {number(medians[-1])} s)',
        )
    axes.set_xscale('log', base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.grid()
    axes.legend()
