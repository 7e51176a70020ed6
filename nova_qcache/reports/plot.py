# SPDX-License-Identifier: Apache-2.0
"""Picture of the pool: the size and quota of each cache, its hit ratio, and the savings of all
caches over time.

matplotlib is large and only for this, so it is imported here and nowhere else, and only when a
picture is drawn.
"""

from collections.abc import Sequence
import dataclasses
import datetime
import importlib
import io
import logging
import os
import pathlib
from typing import Any, TYPE_CHECKING

from nova_qcache import exception
from nova_qcache.reports.snapshot import ImageSnapshot
from nova_qcache.reports.time_series import Point
from nova_qcache.system import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ['MOST_BARS', 'Picture', 'draw']

MOST_BARS = 20
"""More images than that make no picture that anybody can read."""

_SUFFIXES = ('.pdf', '.png', '.svg')
_MODE = 0o644
_DPI = 130

# All in inches, so that a picture of one image looks like one of many.
_WIDTH = 12.0
_HEAD = 1.35
_ROW = 0.34
_THICK = 0.62
"""Of a bar, in rows."""
_GAP = 1.15
_TIMES = 2.6
_FOOT = 0.55
_LEFT = 0.3
_TICKS = 0.85
"""Where the line begins."""
_NAMES = 4.1
"""Where the names of images end and the bars of sizes begin."""
_MIDDLE = 9.1
"""Where the bars of hit ratios begin."""

# Okabe and Ito's colours, which people who see colours differently tell apart, too.
_CACHE = '#0072b2'
_SERVED = '#009e73'
_BASE = '#d55e00'
_POOL = '#7a7a7a'
_TRACK = '#e8edf1'
_INK = '#24292f'
_FAINT = '#6b7480'

_STYLE: dict[Any, Any] = {
    'axes.edgecolor': '#b9c0c7',
    'axes.labelcolor': _FAINT,
    'axes.titlecolor': _INK,
    'axes.titlelocation': 'left',
    'axes.titlesize': 10.5,
    'axes.titleweight': 'bold',
    'font.size': 9,
    'svg.fonttype': 'none',
    'text.color': _INK,
    'text.parse_math': False,
    'xtick.color': _FAINT,
    'ytick.color': _INK,
}


@dataclasses.dataclass(frozen=True)
class Picture:
    title: str
    subtitle: str
    images: Sequence[ImageSnapshot]
    """The most important first; those beyond :data:`MOST_BARS` are only counted."""
    points: Sequence[Point]
    """In order of time."""


def draw(picture: Picture, path: pathlib.Path) -> None:
    """Draw it into a file, which is replaced as a whole.

    :raises PictureUnwritable: if the name ends in nothing that is known, or it cannot be written
    :raises PlottingMissing: if matplotlib is not installed
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise exception.PictureUnwritable(
            path=str(path),
            reason=f'{path.suffix or "a name without a suffix"} is not a known format',
            remedy=f'Give a name that ends in {", ".join(_SUFFIXES)}',
        )
    content = _rendered(picture, path.suffix.lower().removeprefix('.'))
    try:
        files.replace_atomically(path, content, _MODE)
    except OSError as e:
        raise exception.PictureUnwritable(
            path=str(path),
            reason=f'{e.strerror or e} (user {os.geteuid()})',
            remedy='Give a folder that the owner of the caches may write to; root acts as it',
        ) from e


def _rendered(picture: Picture, file_format: str) -> bytes:
    # That the owner of the caches has no home for matplotlib's settings is no news.
    logging.getLogger('matplotlib').setLevel(logging.ERROR)
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as e:
        raise exception.PlottingMissing(reason=str(e)) from e
    images = picture.images[:MOST_BARS]
    rows = max(1, len(images)) * _ROW
    height = _HEAD + rows + _GAP + _TIMES + _FOOT
    # No pyplot: it keeps what it has drawn, and asks for a screen.
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height))
        figure.text(_LEFT / _WIDTH, 1 - 0.42 / height, picture.title, fontsize=15, weight='bold')
        figure.text(_LEFT / _WIDTH, 1 - 0.72 / height, picture.subtitle, color=_FAINT)

        def place(left: float, right: float, top: float, inches: float) -> 'Axes':
            bottom = height - top - inches
            return figure.add_axes(
                (left / _WIDTH, bottom / height, (right - left) / _WIDTH, inches / height)
            )

        _draw_names(place(_LEFT, _NAMES, _HEAD, rows), images, len(picture.images))
        _draw_sizes(place(_NAMES, _MIDDLE - 0.25, _HEAD, rows), images)
        _draw_ratios(place(_MIDDLE, _WIDTH - _LEFT, _HEAD, rows), images)
        _draw_times(place(_TICKS, _WIDTH - _LEFT, _HEAD + rows + _GAP, _TIMES), picture.points)
        content = io.BytesIO()
        figure.savefig(content, format=file_format, dpi=_DPI)
    return content.getvalue()


def _draw_names(axes: 'Axes', images: Sequence[ImageSnapshot], count: int) -> None:
    which = f'the {len(images)} of {count} with the most boots' if count > len(images) else 'all'
    axes.set_title(f'Images ({which})')
    width = max((len(f'{image.counters.boots:,}') for image in images), default=0)
    for row, image in enumerate(images):
        name = f'{image.image_id}  {image.counters.boots:>{width},} boots'
        axes.text(0, row, name, va='center', family='monospace', fontsize=8)
    if not images:
        axes.text(0, 0, 'No image has booted yet', va='center', color=_FAINT)
    _set_rows(axes, images)
    axes.set_axis_off()


def _draw_sizes(axes: 'Axes', images: Sequence[ImageSnapshot]) -> None:
    axes.set_title('Cache and quota')
    largest = max([1024**2, *(max(image.quota or 0, image.allocated) for image in images)])
    unit, name = _unit(largest)
    for row, image in enumerate(images):
        size, quota = image.allocated / unit, (image.quota or 0) / unit
        axes.barh(row, quota, height=_THICK, color=_TRACK)
        axes.barh(row, size, height=_THICK, color=_CACHE)
        said = f'{size:,.1f} of {quota:,.0f}' if image.quota else 'no cache'
        place = max(size, quota) + largest / unit * 0.015
        axes.text(place, row, said, va='center', color=_FAINT)
    axes.set_xlim(0, largest / unit)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= largest / unit])
    axes.set_xlim(0, largest / unit * 1.25)
    axes.xaxis.set_major_formatter('{x:,g}')
    axes.set_xlabel(name)
    _set_rows(axes, images)


def _draw_ratios(axes: 'Axes', images: Sequence[ImageSnapshot]) -> None:
    axes.set_title('Hit ratio of audited boots')
    for row, image in enumerate(images):
        if image.counters.hit_ratio is None:
            axes.text(1, row, 'not audited yet', va='center', color=_FAINT, style='italic')
            continue
        percent = 100 * image.counters.hit_ratio
        axes.barh(row, 100, height=_THICK, color=_TRACK)
        axes.barh(row, percent, height=_THICK, color=_SERVED)
        axes.text(101.5, row, f'{percent:.2f} %', va='center', color=_FAINT)
    axes.set_xlim(0, 135)
    axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel('percent')
    _set_rows(axes, images)


def _set_rows(axes: 'Axes', images: Sequence[ImageSnapshot]) -> None:
    axes.set_ylim(max(1, len(images)) - 0.5, -0.5)  # the first on top
    axes.set_yticks([])
    _clear(axes)


def _draw_times(axes: 'Axes', points: Sequence[Point]) -> None:
    # In line with the other titles, left of the ticks.
    margin = (_LEFT - _TICKS) / (_WIDTH - _LEFT - _TICKS)
    axes.set_title('Savings over time', x=margin)
    _clear(axes)
    if len(points) < 2:
        text = "Each run of Nova's image cache manager notes one point; there is no line yet"
        axes.text(margin, 0.9, text, transform=axes.transAxes, color=_FAINT)
        axes.set_axis_off()
        return
    dates: Any = importlib.import_module('matplotlib.dates')  # its hints are not complete
    times: Any = [datetime.datetime.fromtimestamp(point.at, datetime.UTC) for point in points]
    lines = (
        ('served by caches', _SERVED, '-', [point.served_bytes for point in points]),
        ('read from bases to record and audit', _BASE, '-', [each.base_bytes for each in points]),
        ('size of the pool', _POOL, '--', [point.pool_bytes for point in points]),
    )
    unit, name = _unit(max(max(values) for *_, values in lines))
    for label, colour, style, values in lines:
        scaled = [value / unit for value in values]
        axes.plot(times, scaled, style, color=colour, label=label, linewidth=1.8)
    served = [point.served_bytes / unit for point in points]
    axes.fill_between(times, served, color=_SERVED, alpha=0.12, linewidth=0)
    axes.set_ylim(bottom=0)
    axes.margins(x=0)
    axes.set_ylabel(name)
    axes.grid(axis='y', color=_TRACK)
    axes.set_axisbelow(True)
    locator = dates.AutoDateLocator(minticks=4, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.legend(frameon=False, loc='lower right', bbox_to_anchor=(1, 1), ncols=len(lines))


def _clear(axes: 'Axes') -> None:
    axes.spines[['top', 'right', 'left']].set_visible(False)


def _unit(largest: float) -> tuple[int, str]:
    for exponent, name in ((4, 'TiB'), (3, 'GiB')):
        if largest >= 2 * 1024**exponent:
            return 1024**exponent, name
    return 1024**2, 'MiB'
