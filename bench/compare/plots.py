# SPDX-License-Identifier: Apache-2.0
"""Results as plots. matplotlib is imported when one is drawn; a table needs none."""

from collections.abc import Callable, Iterable, Sequence
import io
import operator
import pathlib
import statistics
from typing import Any, TYPE_CHECKING

from bench.compare.sample import cells
from bench.compare.sample import Results
from bench.compare.sample import Sample
from bench.compare.wording import number
from bench.compare.wording import ordered
from bench.compare.wording import Setting
from bench.compare.wording import settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ['INK', 'STYLE', 'draw']

MIB = 1 << 20
_DPI = 110
_COLOURS = 64

# Okabe and Ito's colours, which people who see colours differently tell apart, too.
_OTHERS = '#e69f00'
_OWN = {'record': '#0072b2', 'play': '#0072b2', 'raw': '#009e73'}
_LINES = {
    'plain': ('#e69f00', 'o', '-', 'plain: the shared base'),
    'record': ('#56b4e9', 's', '-', 'record: the first boot on each host'),
    'play': ('#0072b2', 'D', '-', 'play: the caches'),
    'raw': ('#009e73', 'x', '--', 'raw: a local file'),
}
INK = '#24292f'
_FAINT = '#6b7480'
_APART = 0.4
"""Of the first and the second guest, in rows."""

STYLE: dict[Any, Any] = {
    'axes.axisbelow': True,
    'axes.edgecolor': '#b9c0c7',
    'axes.labelcolor': _FAINT,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlecolor': INK,
    'axes.titlelocation': 'left',
    'axes.titlesize': 10.5,
    'figure.titlesize': 13,
    'figure.titleweight': 'bold',
    'font.size': 9,
    'grid.color': '#e8edf1',
    'legend.frameon': False,
    'text.color': INK,
    'text.parse_math': False,
    'xtick.color': _FAINT,
    'ytick.color': INK,
}

_Value = Callable[[Sample], float]
_SECONDS: _Value = operator.attrgetter('seconds')


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
    with matplotlib.rc_context(STYLE):
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
        # By coverage: other ways take the colour of few points for a neighbour's.
        way = Image.Quantize.MAXCOVERAGE
        few = image.convert('RGB').quantize(_COLOURS, way, dither=Image.Dither.NONE)
        few.save(content, format='png', optimize=True)
    return content.getvalue()


def _figure(width: float, height: float) -> 'Figure':
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout='constrained')


# Points of the alternatives, each with its range: a bar would need an axis from 0


def _replay(results: Results) -> 'Figure | None':
    samples = _compared(results.of('replay', delay_ms=0, think='none'))
    title = 'The reads of a boot, without the guest: seconds'
    return _panels(samples, title, 'seconds', _SECONDS, log=True)


def _thinned(results: Results) -> 'Figure | None':
    samples = _compared(results.of('thinned', delay_ms=20, think='none'))
    title = 'A part of the reads of a boot, each 20 ms from the base: seconds'
    return _panels(samples, title, 'seconds', _SECONDS, log=True)


def _bytes(results: Results) -> 'Figure | None':
    samples = [
        sample
        for sample in _compared(results.of('replay', delay_ms=0, think='none'))
        if sample.base_bytes is not None
    ]
    # They are much the same at each rate: one is enough.
    rates = [setting.rate for setting in settings(samples)]
    rate = '1G' if '1G' in rates else rates[0] if rates else None
    samples = [sample for sample in samples if sample.rate == rate]
    title = 'The reads of a boot: MiB from the base'
    return _panels(samples, title, 'MiB', lambda each: (each.base_bytes or 0) / MIB)


def _boot(results: Results) -> 'Figure | None':
    samples = _compared(results.of('boot'))
    return _panels(samples, 'Boots of real guests: seconds', 'seconds', _SECONDS)


def _compared(samples: Iterable[Sample]) -> list[Sample]:
    """Leave out ``copy``: Nova copies an image to its bases before anything else can be chosen."""
    return [sample for sample in samples if sample.alternative != 'copy']


def _panels(
    samples: Sequence[Sample], title: str, unit: str, value: _Value, *, log: bool = False
) -> 'Figure | None':
    """Draw a panel for each setting, side by side, with a point for each kind of guest."""
    if not samples:
        return None
    found = settings(samples)
    names = ordered(sample.alternative for sample in samples)
    figure = _figure(7.5 if len(found) == 1 else 3.2 + 2.9 * len(found), 1.55 + 0.42 * len(names))
    figure.suptitle(title, x=0.01, ha='left')
    grid = figure.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)
    for axes, setting in zip(grid[0], found, strict=True):
        here = [sample for sample in samples if Setting.of(sample) == setting]
        _limit(axes, [value(sample) for sample in samples], log=log)
        for row, name in enumerate(names):
            _points(axes, row, [each for each in here if each.alternative == name], value)
        axes.set_title(str(setting))
        axes.set_xlabel(f'{unit}, logarithmic' if log else unit)
        axes.grid(axis='both')
        axes.tick_params(length=0)
        axes.spines['left'].set_visible(False)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)  # the first on top
    _explain(figure, samples)
    return figure


def _points(axes: 'Axes', row: int, samples: Sequence[Sample], value: _Value) -> None:
    guests = [
        [sample for sample in samples if sample.guest == guest] for guest in ('first', 'second')
    ]
    for place, of_guest in enumerate(guests):
        if not of_guest:
            continue
        at = row + (place - 0.5) * _APART if all(guests) else row
        colour = _OWN.get(of_guest[0].alternative, _OTHERS)
        values = [value(sample) for sample in of_guest]
        median, most = statistics.median(values), max(values)
        axes.plot([min(values), most], [at, at], color=colour, linewidth=1.6)
        mark = _marker(colour, is_second=bool(place))
        axes.plot(median, at, clip_on=False, zorder=3, **mark)
        axes.annotate(
            number(median),
            (most, at),
            xytext=(6, 0),
            textcoords='offset points',
            va='center',
            fontsize=7.5,
        )


def _marker(colour: str, *, is_second: bool) -> dict[str, Any]:
    inside = 'white' if is_second else colour
    shape = {'marker': 'o', 'markersize': 5.5, 'linestyle': 'none'}
    return {**shape, 'color': colour, 'markerfacecolor': inside, 'markeredgewidth': 1.4}


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


def _explain(figure: 'Figure', samples: Sequence[Sample]) -> None:
    from matplotlib.lines import Line2D

    own = _OWN['record']
    handles = [
        Line2D([], [], label=label, **_marker(colour, is_second=is_second))
        for label, colour, is_second in (
            ('others, first guest', _OTHERS, False),
            ('others, second guest', _OTHERS, True),
            ('this project, first guest', own, False),
            ('this project, second guest', own, True),
            ('a local raw file', _OWN['raw'], False),
        )
    ]
    times = sorted({len(each) for each in cells(samples).values()})
    of = ' or '.join(map(str, times))
    label = f'median, and least to most of {of}'
    handles.append(Line2D([], [], color=INK, linewidth=1.6, label=label))
    figure.legend(handles=handles, loc='outside lower center', ncols=3, fontsize=8)


# Lines over the number of hosts


def _scale(results: Results) -> 'Figure | None':
    """Where all boot one image; the table has the others, which are much the same."""
    samples = [each for each in results.of('scale', images='one') if each.alternative in _LINES]
    found = settings(samples)
    if not found:
        return None
    figure = _figure(8, 0.9 + 3.3 * len(found))
    figure.suptitle(
        'Hosts that start at once: seconds until the last has its reads', x=0.01, ha='left'
    )
    for (axes,), setting in zip(figure.subplots(len(found), 1, squeeze=False), found, strict=True):
        here = [each for each in samples if Setting.of(each) == setting]
        _lines(axes, here)
        axes.set_title(str(setting))
        axes.set_xlabel('hosts, logarithmic')
        axes.set_ylabel('seconds')
        axes.set_ylim(0, max(each.seconds for each in here) * 1.08 or 1)
    return figure


def _lines(axes: 'Axes', samples: Sequence[Sample]) -> None:
    counts = sorted({sample.hosts for sample in samples})
    for name, (colour, marker, style, says) in _LINES.items():
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
            label=f'{says} ({number(medians[0])} to {number(medians[-1])} s)',
        )
    axes.set_xscale('log', base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.grid()
    axes.legend()
