# SPDX-License-Identifier: Apache-2.0
"""Results of bench/compare as pictures."""

import struct
import sys
from unittest import mock
import warnings

import pytest

from bench.compare import plots
from bench.compare.sample import Results
from tests.unit.bench.made import everything
from tests.unit.bench.made import FILES
from tests.unit.bench.made import results
from tests.unit.bench.made import sample


def size(path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head.startswith(b'\x89PNG\r\n')
    width, height = struct.unpack('>II', head[16:])
    return width, height


def styled(plot, found: Results):
    import matplotlib

    with matplotlib.rc_context(plots.STYLE):
        return plot(found)


def words(plot, found: Results) -> set[str]:
    said = set()
    for axes in styled(plot, found).axes:
        said |= {text.get_text() for text in axes.texts} | {axes.get_title(loc='left')}
        said |= {label.get_text() for label in axes.get_yticklabels()}
    return said


def test_plots(tmp_path):
    paths = plots.draw(everything(), tmp_path)
    assert {path.name for path in paths} == {path.name for path in tmp_path.iterdir()} == FILES
    for path in paths:
        width, height = size(path)
        assert 700 < width < 1500
        assert 300 < height < 1000
        assert 3000 < path.stat().st_size < 100_000


@pytest.mark.parametrize(
    'section, files',
    [
        ('replay', {'replay.png', 'bytes.png'}),
        ('thinned', {'thinned.png'}),
        ('boot', {'boot.png'}),
        ('scale', {'scale.png'}),
        ('choice', set()),
    ],
)
def test_what_was_not_measured_is_not_drawn(tmp_path, section, files):
    found = results(*everything().of(section))
    assert {path.name for path in plots.draw(found, tmp_path)} == files


def test_replay_says_its_figures():
    said = words(plots._replay, everything(play=1.25))
    assert {'100 Mbit/s, 0 ms', '1 Gbit/s, 0 ms', 'unlimited, 0 ms'} <= said
    assert {'plain', 'record', 'play', 'raw'} <= said
    assert {'3.20', '1.25', '1.00'} <= said


def test_pauses_and_other_delays_are_not_in_the_plot():
    found = [
        sample('replay', 'plain', 5),
        sample('replay', 'plain', 6, think='kept'),
        sample('replay', 'plain', 7, delay_ms=20),
    ]
    said = words(plots._replay, results(*found))
    assert '5.00' in said
    assert not {'6.00', '7.00'} & said


def test_bytes_says_its_figures_and_no_bytes_are_0(tmp_path):
    found = everything()
    assert {'20.0', '0.100', '0', '1 Gbit/s, 0 ms'} <= words(plots._bytes, found)
    nothing = results(sample('replay', 'raw', base_bytes=0))
    assert '0' in words(plots._bytes, nothing)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        plots.draw(nothing, tmp_path)


def test_boot_says_its_figures():
    assert {'45.0', '46.0', '31.0'} <= words(plots._boot, everything())


@pytest.mark.parametrize('plot', [plots._replay, plots._thinned, plots._bytes, plots._boot])
def test_a_copy_is_beside_nothing(plot):
    """Nova copies an image to its bases before any of the others is there to be chosen."""
    found = everything()
    assert any(each.alternative == 'copy' for each in found.of('boot'))
    assert 'copy' not in words(plot, found)


@pytest.mark.parametrize('plot', [plots._replay, plots._thinned, plots._bytes, plots._boot])
def test_bars_stand_on_no_axis_that_begins_anywhere(plot):
    for axes in styled(plot, everything()).axes:
        assert not axes.patches
        assert axes.get_xscale() == 'log' or axes.get_xlim()[0] == 0


def test_a_point_is_the_median_and_its_line_goes_from_the_least_to_the_most():
    boots = [sample('boot', 'plain', seconds) for seconds in (20, 24, 21, 26, 22)]
    (axes,) = styled(plots._boot, results(*boots)).axes
    line, point = axes.lines
    assert list(line.get_xdata()) == [20, 26]
    assert list(point.get_xdata()) == [22]


def test_each_kind_keeps_its_colour_in_the_file(tmp_path):
    from matplotlib import colors
    from PIL import Image

    plots.draw(everything(), tmp_path)
    with Image.open(tmp_path / 'replay.png') as image:
        palette = image.getpalette() or []
        there = [palette[place : place + 3] for place in range(0, len(palette), 3)]
    for wanted in (plots._OTHERS, *plots._OWN.values()):
        rgb = [round(255 * part) for part in colors.to_rgb(wanted)]
        away = [max(abs(a - b) for a, b in zip(rgb, each, strict=True)) for each in there]
        assert min(away) < 12, wanted


def test_scale_shows_hosts_with_one_image_and_begins_at_0():
    found = everything()
    found.samples.append(sample('scale', 'plain', 999, hosts=64, images='many', think='kept'))
    (axes,) = styled(plots._scale, found).axes
    assert axes.get_ylim() == (0, pytest.approx(74 * 1.08))
    assert axes.get_xscale() == 'log'
    names = [line.get_label().partition(':')[0] for line in axes.lines]
    assert names == ['plain', 'record', 'play', 'raw']
    assert axes.lines[0].get_label() == 'plain: the shared base (11.0 to 74.0 s)'
    assert list(axes.lines[0].get_xdata()) == [1, 8, 64]


def test_nothing_global_is_changed(tmp_path):
    import matplotlib

    before = matplotlib.rcParams['axes.titlesize']
    with mock.patch.dict(sys.modules, {'matplotlib.pyplot': None}):  # cannot be imported
        plots.draw(results(sample('boot', 'plain')), tmp_path)
    assert matplotlib.rcParams['axes.titlesize'] == before != plots.STYLE['axes.titlesize']


def test_the_same_results_make_the_same_files(tmp_path):
    found = results(*everything().of('scale'))
    first = [path.read_bytes() for path in plots.draw(found, tmp_path)]
    assert first == [path.read_bytes() for path in plots.draw(found, tmp_path)]
