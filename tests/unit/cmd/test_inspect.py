# SPDX-License-Identifier: Apache-2.0
"""nova-qcache list and show."""

import pathlib

import pytest

from nova_qcache.inspection import CacheView
from nova_qcache.states import Phase
from nova_qcache.states import State
from tests.unit import builders
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import MIB

PATH = pathlib.Path('/cache/file.qcow2')
READY = CacheView(KEY, PATH, 'READY', 3 * MIB, MIB * 5 // 2, 'idle', builders.record(State.READY))
WARMING = CacheView(
    KEY,
    PATH,
    'WARMING',
    16 * MIB,
    MIB,
    'a note',
    builders.record(),
    builders.status(Phase.RECORDING, guests=2),
    guests=2,
)
BROKEN = CacheView(KEY, PATH, 'BROKEN', 0, 0, 'it has no record')


@pytest.mark.parametrize(
    ('view', 'row'),
    [
        (
            READY,
            {
                'Image': IMAGE,
                'State': 'READY',
                'Generation': str(GENERATION),
                'MiB': 2.5,
                'Quota MiB': 16,
                'Guests': 0,
                'Base': '/base/image',
                'Note': 'idle',
            },
        ),
        (
            WARMING,
            {
                'Image': IMAGE,
                'State': 'WARMING',
                'Generation': str(GENERATION),
                'MiB': 1.0,
                'Quota MiB': 16,
                'Guests': 2,
                'Base': '/base/image',
                'Note': 'a note',
            },
        ),
        (
            BROKEN,
            {
                'Image': IMAGE,
                'State': 'BROKEN',
                'Generation': str(GENERATION),
                'MiB': 0.0,
                'Quota MiB': None,
                'Guests': 0,
                'Base': None,
                'Note': 'it has no record',
            },
        ),
    ],
    ids=['ready', 'warming', 'broken'],
)
def test_list(run, manager, view, row):
    manager.caches.return_value = [view]
    assert run('list', '-f', 'json').json == [row]
    manager.caches.assert_called_once_with()


def test_an_empty_list(run, manager):
    manager.caches.return_value = []
    assert run('list', '-f', 'json').json == []


def test_a_list_for_people(run, manager):
    manager.caches.return_value = [READY]
    ended = run('list')
    assert (ended.code, ended.err) == (0, '')
    assert IMAGE in ended.out
    assert 'READY' in ended.out


def test_show(run, manager):
    manager.caches.return_value = [BROKEN, READY]
    assert run('show', IMAGE, '-f', 'json').json == {
        'image_id': IMAGE,
        'generation': str(GENERATION),
        'state': 'READY',
        'note': 'idle',
        'path': str(PATH),
        'cache_bytes': MIB * 5 // 2,
        'allocated_bytes': 3 * MIB,
        'quota_bytes': 16 * MIB,
        'cluster_size': 4096,
        'extended_l2': False,
        'virtual_size': 64 * MIB,
        'base': '/base/image',
        'base_format': 'raw',
        'revision': 1,
        'created_at': '2023-11-14T22:13:20+00:00',
        'sealed_at': '2023-11-14T22:13:21+00:00',
        'digest': 'sha256:' + 'ab' * 32,
    }
    manager.caches.assert_called_once_with(IMAGE)


def test_show_of_a_recording(run, manager):
    manager.caches.return_value = [WARMING]
    shown = run('show', IMAGE, '-f', 'json').json
    assert shown['phase'] == 'recording'
    assert shown['guests'] == 2
    assert shown['recorder_pid'] == 1234
    assert shown['daemon_pid'] == 1235
    assert 'sealed_at' not in shown


def test_show_of_what_is_broken(run, manager):
    manager.caches.return_value = [BROKEN]
    shown = run('show', IMAGE, '-f', 'json').json
    assert shown['state'] == 'BROKEN'
    assert 'quota_bytes' not in shown


def test_show_of_nothing(run, manager):
    manager.caches.return_value = []
    ended = run('show', IMAGE)
    assert (ended.code, ended.out) == (1, '')
    assert ended.err == (
        f'There is no cache of image {IMAGE} here. `nova-qcache list` shows those that are.\n'
    )


@pytest.mark.parametrize('seconds', [0, 2**40, 2**62])
def test_a_time_that_no_calendar_has_is_shown_all_the_same(run, manager, seconds):
    record = builders.record(created_at=float(seconds))
    manager.caches.return_value = [CacheView(KEY, PATH, 'DIRTY', 0, 0, '', record)]
    shown = run('show', IMAGE, '-f', 'json').json
    assert shown['state'] == 'DIRTY'
    assert shown['created_at']
