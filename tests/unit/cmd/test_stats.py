# SPDX-License-Identifier: Apache-2.0
"""nova-qcache stats."""

import csv
import io
import re

import pytest

from nova_qcache.cache.pool import PoolState
from nova_qcache.reports import metrics
from nova_qcache.reports.snapshot import ImageSnapshot
from nova_qcache.reports.snapshot import Snapshot
from nova_qcache.reports.snapshot import SOURCES
from nova_qcache.reports.time_series import Point
from nova_qcache.stats.counters import Counters
from tests.unit import builders
from tests.unit.builders import IMAGE
from tests.unit.builders import MIB
from tests.unit.builders import OTHER_IMAGE

COUNTERS = builders.counters(
    recorded_bytes=10 * MIB,
    audited_bytes=8 * MIB,
    missed_bytes=2 * MIB,
    saved_bytes=50 * MIB,
    evicted_bytes=3 * MIB,
    invalidations={'changed': 7},
    boot_bytes=5 * MIB,
    last_boot_at=1_700_000_000,
    last_used_at=1_700_000_001,
)
IMAGES = (
    ImageSnapshot(IMAGE, COUNTERS, ('READY', 'STALE'), MIB * 5 // 2, 16 * MIB, is_pinned=True),
    ImageSnapshot(OTHER_IMAGE, Counters()),
)
POOL = PoolState(
    budget=1024 * MIB, min_free=1, allocated=300, free=500, caches=2, recordings=1, reserved=50
)
FIGURES = Snapshot(
    at=1_700_000_002,
    host=COUNTERS,
    images=IMAGES,
    pool=POOL,
    recorders={'recording': 1},
    guests=3,
)
COUNTED = {
    'boots': 20,
    'plays': 9,
    'records': 2,
    'audits': 1,
    'plain': {'no-room': 5, 'policy': 3},
    'fallbacks': 1,
    'recordings': 2,
    'dropped_recordings': 4,
    'recorded_bytes': 10 * MIB,
    'recording_seconds': 12.5,
    'audited_bytes': 8 * MIB,
    'missed_bytes': 2 * MIB,
    'saved_bytes': 50 * MIB,
    'evictions': {'room': 2},
    'evicted_bytes': 3 * MIB,
    'invalidations': {'changed': 7},
    'verifications': {'equal': 6},
    'boot_bytes': 5 * MIB,
    'last_boot_at': '2023-11-14T22:13:20+00:00',
    'last_used_at': '2023-11-14T22:13:21+00:00',
    'hit_ratio': 0.75,
    'served_bytes': 56 * MIB,
    'base_bytes': 12 * MIB,
}


@pytest.fixture(autouse=True)
def snapshot(manager):
    manager.snapshot.return_value = FIGURES
    manager.time_series.points.return_value = []


def test_a_table_of_images(run):
    ended = run('stats', '-f', 'csv')
    first, second = csv.DictReader(io.StringIO(ended.out))
    assert first == {
        'Image': IMAGE,
        'State': 'READY',
        'MiB': '2.5',
        'Quota MiB': '16',
        'Boots': '20',
        'Play': '9',
        'Record': '2',
        'Audit': '1',
        'Recordings': '2',
        'Pinned': 'yes',
        'Plain': '8',
        'Hit %': '75.0',
        'Saved MiB': '56.0',
        'Base MiB': '12.0',
        'Last use': '2023-11-14T22:13:21+00:00',
    }
    assert (second['Image'], second['State'], second['Hit %']) == (OTHER_IMAGE, 'COLD', '')
    assert (second['Quota MiB'], second['Last use']) == ('', '')


def test_json_of_images_has_all_that_is_known(run):
    first, second = run('stats', '-f', 'json').json
    assert first == {
        'image_id': IMAGE,
        'state': 'READY',
        'states': ['READY', 'STALE'],
        'is_pinned': True,
        'allocated_bytes': MIB * 5 // 2,
        'quota_bytes': 16 * MIB,
        **COUNTED,
    }
    assert second.keys() == first.keys()
    assert (second['hit_ratio'], second['last_used_at'], second['plain']) == (None, None, {})


def test_a_table_for_people_is_as_wide_as_a_terminal(run, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    assert all(len(line) <= 80 for line in run('stats', '--host').out.splitlines())
    lines = run('stats').out.splitlines()
    assert len(lines) == 3 + 2 + 1, 'no cell goes on in a second line'
    assert {len(line) for line in lines} <= set(range(81))
    assert 'Last use' not in lines[1]
    assert 'Last use' in run('stats', '--long', '--max-width=0').out


def test_json_of_the_host_is_one_object(run):
    host = run('stats', '--host', '-f', 'json').json
    assert host == {
        'gathered_at': '2023-11-14T22:13:22+00:00',
        **{name: value for name, value in COUNTED.items() if name != 'boot_bytes'},
        'pool_budget_bytes': 1024 * MIB,
        'pool_allocated_bytes': 300,
        'pool_reserved_bytes': 50,
        'pool_min_free_bytes': 1,
        'pool_free_bytes': 500,
        'pool_caches': 2,
        'pool_recordings': 1,
        'states': {'READY': 1, 'STALE': 1},
        'images': 2,
        'pinned_images': 1,
        'recorders': {'recording': 1},
        'guests': 3,
        'sources': SOURCES,
    }


def test_columns_of_the_host_can_be_chosen(run):
    assert run('stats', '--host', '-f', 'json', '-c', 'plays').json == {'plays': 9}


def test_yaml(run):
    ended = run('stats', '--host', '-f', 'yaml', '-c', 'evictions')
    assert ended.out.split() == ['evictions:', 'room:', '2']


def test_a_table_of_the_host_has_the_source_of_each_figure(run):
    ended = run('stats', '--host', '-f', 'csv')
    rows = {row['Figure']: row for row in csv.DictReader(io.StringIO(ended.out))}
    shown = {name: row['Value'] for name, row in rows.items()}
    expected = {
        'boots: play': '9',
        'boots: record': '2',
        'recordings': '2',
        'boots: plain: no-room': '5',
        'boots: plain: policy': '3',
        'evictions: room': '2',
        'invalidations: changed': '7',
        'verifications: equal': '6',
        'recorded bytes': '10.0 MiB',
        'recording seconds': '12.5 s',
        'hit ratio': '75.00%',
        'pool budget bytes': '1.0 GiB',
        'pool allocated bytes': '300 bytes',
        'recorders: recording': '1',
        'last boot at': '2023-11-14T22:13:20+00:00',
    }
    assert {name: shown.get(name) for name in expected} == expected
    assert rows['boots: plain: policy']['Source'] == SOURCES['plain']
    assert rows['pool free bytes']['Source'] == SOURCES['pool']
    assert all(row['Source'] for row in rows.values())


def test_what_did_not_happen_is_said_too(run, manager):
    manager.snapshot.return_value = Snapshot(0, Counters(), (), POOL)
    ended = run('stats', '--host')
    assert re.search(r'\| evictions +\| 0 ', ended.out)
    assert re.search(r'\| hit ratio +\| None ', ended.out)


def test_nothing_there(run, manager):
    manager.snapshot.return_value = Snapshot(0, Counters(), (), POOL)
    assert run('stats', '-f', 'json').json == []
    ended = run('stats')
    assert (ended.code, ended.err) == (0, '')


def test_metrics(run, tmp_path):
    path = tmp_path / 'nova-qcache.prom'
    assert run('stats', '-f', 'json', f'--metrics={path}').json
    assert path.read_bytes() == metrics.text(FIGURES)


def test_plot(run, manager, tmp_path):
    manager.time_series.points.return_value = [Point(1, 2, 3, 4), Point(5, 6, 7, 8)]
    path = tmp_path / 'pool.svg'
    assert run('stats', '-f', 'json', f'--plot={path}').json
    text = path.read_text()
    assert f'{IMAGE}  20 boots' in text
    assert f'{OTHER_IMAGE}   0 boots' in text
    for said in ('2.5 of 16', '75.00 %', 'no cache', 'not audited yet', 'served by caches'):
        assert said in text
    for said in ('of 1.0 GiB', '20 boots, 9 of them from a cache', 'hit ratio', '75.0%'):
        assert said in text


@pytest.mark.parametrize('option', ['--plot=/nowhere/x.png', '--metrics=/nowhere/x.prom'])
def test_a_file_that_cannot_be_written_is_one_error(run, option):
    ended = run('stats', option)
    assert (ended.code, ended.out) == (1, '')
    (line,) = ended.err.splitlines()
    assert option.partition('=')[2] in line
    assert 'No such file or directory' in line


@pytest.mark.parametrize('seconds', [2**40, 2**62])
def test_a_time_that_no_calendar_has_is_shown_all_the_same(run, manager, seconds):
    images = (ImageSnapshot(IMAGE, Counters(last_used_at=seconds)),)
    manager.snapshot.return_value = Snapshot(seconds, Counters(), images, POOL)
    (row,) = run('stats', '-f', 'json').json
    assert row['last_used_at']
    assert run('stats', '--host', '-f', 'json').json['gathered_at']
