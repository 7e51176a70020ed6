# SPDX-License-Identifier: Apache-2.0
"""Savings over time: few points, evenly spread, whatever becomes of the file."""

import errno
import itertools
import json
import logging
import os
from unittest import mock

import pytest

from nova_qcache.cache.pool import PoolState
from nova_qcache.reports.snapshot import Snapshot
from nova_qcache.reports.time_series import _thinned
from nova_qcache.reports.time_series import Point
from nova_qcache.reports.time_series import TimeSeries
from nova_qcache.stats.counters import Counters

POOL = PoolState(
    budget=1000, min_free=10, allocated=300, free=500, caches=2, recordings=1, reserved=50
)


def _snapshot(at: float, saved: int = 0) -> Snapshot:
    host = Counters(recorded_bytes=7, missed_bytes=1, audited_bytes=3, saved_bytes=saved)
    return Snapshot(at=at, host=host, images=(), pool=POOL)


@pytest.fixture
def time_series(paths):
    return TimeSeries(paths)


@pytest.fixture
def file(paths):
    return paths.statistics / 'history.json'


def test_nothing_noted(time_series, caplog):
    assert time_series.points() == []
    assert not caplog.records


def test_points_are_kept_across_restarts(time_series, paths):
    time_series.note(_snapshot(100.5, 20))
    time_series.note(_snapshot(200, 40))
    assert TimeSeries(paths).points() == [Point(100.5, 22, 8, 300), Point(200, 42, 8, 300)]


def test_nothing_else_is_left_in_the_folder(time_series, file):
    time_series.note(_snapshot(1))
    assert [path.name for path in file.parent.iterdir()] == ['history.json']


@pytest.mark.parametrize(
    'text',
    [
        b'',
        b'[]',
        b'{"version": 0, "points": []}',
        b'{"version": 1}',
        b'{"version": 1, "points": [[1, 2, 3]]}',
        b'{"version": 1, "points": [[1, 2, 3, "4"]]}',
        b'{"version": 1, "points": [[1, 2, 3, true]]}',
        b'{"version": 1, "points": [[1, 2, 3, -4]]}',
        b'{"version": 1, "points": [[1, 2, 3, NaN]]}',
        b'{"version": 1, "points": [[1, 2, 3, 1e999]]}',
        b'{"version": 1, "points": 5}',
        b'{"version": 1, "points": [' + b'[1, 2, 3, 4],' * 1000 + b'[1, 2, 3, 4]]}',
        b'\xff',
        b'[' * 100_000,
    ],
)
def test_what_is_no_history_begins_anew_with_one_warning(time_series, file, caplog, text):
    file.write_bytes(text)
    time_series.note(_snapshot(5))
    time_series.note(_snapshot(6))
    assert [point.at for point in time_series.points()] == [5, 6]
    (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert str(file) in warning.getMessage()


@pytest.mark.parametrize('text', [b'', b'{"version": 2, "points": {}}'], ids=['none', 'newer'])
def test_who_looks_changes_nothing(time_series, file, caplog, text):
    file.write_bytes(text)
    inode = file.stat().st_ino
    for _ in range(3):
        assert time_series.points() == []
    assert (file.read_bytes(), file.stat().st_ino) == (text, inode)
    (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert str(file) in warning.getMessage()


def test_a_history_of_a_newer_version_stays(time_series, file, caplog):
    text = b'{"version": 2, "points": {}}'
    file.write_bytes(text)
    time_series.note(_snapshot(5))
    assert file.read_bytes() == text
    assert 'have version 2, but this nova-qcache reads up to 1' in caplog.text


def test_a_history_that_cannot_be_read_now_stays(time_series, file, caplog):
    time_series.note(_snapshot(5))
    before = file.read_bytes()
    with mock.patch.object(type(file), 'read_bytes', autospec=True) as read:
        read.side_effect = OSError(errno.EIO, os.strerror(errno.EIO))
        time_series.note(_snapshot(6))
    assert file.read_bytes() == before
    assert 'Failed to add a point' in caplog.text


def test_points_of_a_clock_that_was_ahead_go(time_series):
    for at in (1, 2, 9_000_000_000):
        time_series.note(_snapshot(at))
    time_series.note(_snapshot(3))
    assert [point.at for point in time_series.points()] == [1, 2, 3]


def test_a_file_that_cannot_be_written_is_a_warning_and_no_error(time_series, file, caplog):
    time_series.note(_snapshot(1))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with mock.patch.object(os, 'rename', autospec=True, side_effect=full):
        time_series.note(_snapshot(2))
        time_series.note(_snapshot(3))
    assert [point.at for point in time_series.points()] == [1]
    assert [each.levelno for each in caplog.records].count(logging.WARNING) == 1
    assert 'No space left' in caplog.text


def test_a_folder_that_vanished_is_no_error(time_series, file, caplog):
    file.parent.rmdir()
    time_series.note(_snapshot(1))
    assert time_series.points() == []
    assert 'time series' in caplog.text


def test_few_points_cover_a_long_time_evenly():
    points: list[Point] = []
    for run in range(5_000):  # four months at Nova's interval of 40 minutes
        points = _thinned([*points, Point(run * 2400.0, run, run, 0)])
    assert len(points) == 1000
    assert points[0].at == 0
    assert points[-1].at == 4_999 * 2400.0
    gaps = [two.at - one.at for one, two in itertools.pairwise(points)]
    assert min(gaps) > 0
    assert max(gaps) <= 2 * 5_000 * 2400 / 1000


def test_a_history_is_small(time_series, file):
    points = [Point(1_700_000_000.25 + run, 2**50, 2**50, 2**40) for run in range(1000)]
    rows = [[each.at, each.served_bytes, each.base_bytes, each.pool_bytes] for each in points]
    file.write_text(json.dumps({'version': 1, 'points': rows}))
    assert time_series.points() == points
    assert os.path.getsize(file) < 100_000
