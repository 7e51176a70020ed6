# SPDX-License-Identifier: Apache-2.0
"""The picture of the pool: what it says, and what becomes of a path or a host that is unfit."""

import os
import re
import struct
import sys
from unittest import mock
from xml.etree import ElementTree

import pytest

from nova_qcache import exception
from nova_qcache.reports import plot
from nova_qcache.reports.plot import Picture
from nova_qcache.reports.snapshot import ImageSnapshot
from nova_qcache.reports.time_series import Point
from nova_qcache.stats.counters import Counters

MIB = 1024 * 1024
DAY = 24 * 3600


def image(number: int) -> ImageSnapshot:
    counters = Counters(boots=5000 - number, audited_bytes=10_000, missed_bytes=6)
    size, quota = (40 + number) * MIB, 512 * MIB
    return ImageSnapshot(f'image-{number:03}', counters, ('READY',), size, quota)


def picture(count: int, points: int = 3) -> Picture:
    return Picture(
        'Boot caches of a host',
        'pool 1.0 of 2.0 GiB',
        [image(number) for number in range(count)],
        [
            Point(1_700_000_000 + day * DAY, day << 32, day << 20, 64 * MIB)
            for day in range(points)
        ],
    )


@pytest.fixture
def words(tmp_path):
    """Draw as SVG, whose texts are texts, and return those."""

    def drawn(what: Picture) -> list[str]:
        path = tmp_path / 'picture.svg'
        plot.draw(what, path)
        root = ElementTree.fromstring(path.read_bytes())
        return [''.join(node.itertext()) for node in root.iter('{http://www.w3.org/2000/svg}text')]

    return drawn


def size(path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head.startswith(b'\x89PNG\r\n')
    width, height = struct.unpack('>II', head[16:])
    return width, height


@pytest.mark.parametrize('count', [0, 1, 5, 40])
def test_png(tmp_path, count):
    path = tmp_path / 'picture.png'
    plot.draw(picture(count, points=count), path)
    width, height = size(path)
    assert width == 1560
    assert 700 < height < 1700
    assert os.listdir(tmp_path) == [path.name]
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_is_said_of_each_image(words):
    said = words(picture(2))
    assert {'Boot caches of a host', 'pool 1.0 of 2.0 GiB', 'Images (all)'} <= set(said)
    assert {'image-000  5,000 boots', 'image-001  4,999 boots'} <= set(said)
    assert {'40.0 of 512', '41.0 of 512', '99.94 %'} <= set(said)
    assert {'Savings over time', 'served by caches', 'GiB', 'MiB'} <= set(said)


def test_of_many_images_those_with_the_most_boots_are_shown(words):
    said = words(picture(40))
    assert 'Images (the 20 of 40 with the most boots)' in said
    shown = [text for text in said if re.match('image-[0-9]', text)]
    assert shown == [f'image-{number:03}  {5000 - number:,} boots' for number in range(20)]


def test_what_is_not_known_is_no_number(words):
    said = words(Picture('title', 'subtitle', [ImageSnapshot('image', Counters(boots=1))], []))
    assert {'no cache', 'not audited yet'} <= set(said)
    assert any('no line yet' in text for text in said)


def test_names_that_look_like_formulas_are_names(words):
    assert '$host$ x_1' in words(Picture('$host$ x_1', '', [], []))


def test_points_of_one_time_are_no_trouble(words):
    points = [Point(1_700_000_000, 0, 0, 0)] * 2
    assert 'Savings over time' in words(Picture('title', '', [], points))


def test_nothing_global_is_changed(tmp_path):
    import matplotlib

    before = matplotlib.rcParams['axes.titlesize']
    with mock.patch.dict(sys.modules, {'matplotlib.pyplot': None}):  # cannot be imported
        plot.draw(picture(1), tmp_path / 'picture.png')
    assert matplotlib.rcParams['axes.titlesize'] == before != plot._STYLE['axes.titlesize']


@pytest.mark.parametrize('name', ['picture', 'picture.gif', 'picture.png.txt', '.png'])
def test_a_name_that_says_no_format(tmp_path, name):
    with pytest.raises(exception.PictureUnwritable, match=r'\.pdf, \.png, \.svg') as caught:
        plot.draw(picture(1), tmp_path / name)
    assert name in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_name_in_capitals(tmp_path):
    plot.draw(picture(1), tmp_path / 'PICTURE.PNG')
    assert size(tmp_path / 'PICTURE.PNG')


def test_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / 'none' / 'picture.png'
    with pytest.raises(exception.PictureUnwritable, match='No such file') as caught:
        plot.draw(picture(1), path)
    assert str(path) in str(caught.value)


def test_without_matplotlib(tmp_path):
    with (
        mock.patch.dict(sys.modules, {'matplotlib': None}),
        pytest.raises(exception.PlottingMissing, match='pip install matplotlib'),
    ):
        plot.draw(picture(1), tmp_path / 'picture.png')
    assert os.listdir(tmp_path) == []
