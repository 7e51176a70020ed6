# SPDX-License-Identifier: Apache-2.0
"""nova-qcache list and show."""

import dataclasses
import pathlib
import re

import pytest

from nova_qcache.cache.pins import Pin
from nova_qcache.cache.view import CacheView
from nova_qcache.cmd import inspect
from nova_qcache.model.states import Phase
from nova_qcache.model.states import State
from tests.unit import builders
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import MIB

PATH = pathlib.Path('/cache/file.qcow2')
READY = CacheView(KEY, PATH, 'READY', 3 * MIB, MIB * 5 // 2, 'idle', builders.record(State.READY))
RECORDING = CacheView(
    KEY,
    PATH,
    'RECORDING',
    16 * MIB,
    MIB,
    'a note',
    builders.record(),
    builders.status(Phase.RECORDING, guests=2),
    guests=2,
)
BROKEN = CacheView(KEY, PATH, 'BROKEN', 0, 0, 'it has no record')


UNKNOWN = dict.fromkeys(inspect.FIELDS)
OF_READY = {
    'image_id': IMAGE,
    'generation': str(GENERATION),
    'revision': 1,
    'state': 'READY',
    'note': 'idle',
    'is_pinned': False,
    'path': str(PATH),
    'cache_bytes': MIB * 5 // 2,
    'allocated_bytes': 3 * MIB,
    'quota_bytes': 16 * MIB,
    'cluster_size': 4096,
    'extended_l2': False,
    'virtual_size': 64 * MIB,
    'base': '/base/image',
    'base_format': 'raw',
    'created_at': '2023-11-14T22:13:20+00:00',
    'sealed_at': '2023-11-14T22:13:21+00:00',
    'digest': 'sha256:' + 'ab' * 32,
    'phase': None,
    'guests': 0,
    'recorder_pid': None,
    'daemon_pid': None,
}
OF_RECORDING = OF_READY | {
    'state': 'RECORDING',
    'note': 'a note',
    'cache_bytes': MIB,
    'allocated_bytes': 16 * MIB,
    'sealed_at': None,
    'digest': None,
    'phase': 'recording',
    'guests': 2,
    'recorder_pid': 1234,
    'daemon_pid': 1235,
}
OF_BROKEN = UNKNOWN | {
    'image_id': IMAGE,
    'generation': str(GENERATION),
    'revision': 1,
    'state': 'BROKEN',
    'note': 'it has no record',
    'is_pinned': False,
    'path': str(PATH),
    'cache_bytes': 0,
    'allocated_bytes': 0,
    'guests': 0,
}


@pytest.mark.parametrize(
    ('view', 'known'),
    [(READY, OF_READY), (RECORDING, OF_RECORDING), (BROKEN, OF_BROKEN)],
    ids=['ready', 'warming', 'broken'],
)
@pytest.mark.parametrize('command', [('list',), ('show', IMAGE)], ids=['list', 'show'])
def test_programs_see_the_same_names_in_each_state_and_command(run, manager, view, known, command):
    manager.caches.return_value = [view]
    seen = run(*command, '-f', 'json').json
    assert seen == (known if command[0] == 'show' else [known])
    manager.caches.assert_called_once_with(*command[1:])


def test_an_empty_list(run, manager):
    manager.caches.return_value = []
    assert run('list', '-f', 'json').json == []


def test_a_list_for_people_is_as_wide_as_a_terminal(run, manager, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    large = dataclasses.replace(RECORDING, allocated=2**20 * MIB)
    manager.caches.return_value = [READY, large, BROKEN]
    manager.pins.all.return_value = {IMAGE: Pin(IMAGE, None)}
    ended = run('list')
    assert (ended.code, ended.err) == (0, '')
    lines = ended.out.splitlines()
    assert len(lines) == 3 + 3 + 1, 'no cell goes on in a second line'
    assert {len(line) for line in lines} <= set(range(81))
    assert re.search(rf'\| {IMAGE} \| READY +\| yes +\| +3\.0 \| +0 \|', ended.out)
    assert re.search(r'\| RECORDING +\| yes +\| 1048576 \|', ended.out)


def test_all_columns(run, manager):
    manager.caches.return_value = [READY]
    for options in (['--long', '--max-width=0'], ['-f', 'csv'], ['-c', 'Base', '-f', 'value']):
        assert '/base/image' in run('list', *options).out
    assert '/base/image' not in run('list').out


def test_people_see_what_is_known(run, manager):
    manager.caches.return_value = [BROKEN]
    assert 'it has no record' in run('show', IMAGE).out
    assert 'digest' not in run('show', IMAGE).out
    assert run('show', IMAGE, '-c', 'digest').out.count('digest') == 1


def test_show_is_about_the_newest(run, manager):
    manager.caches.return_value = [BROKEN, READY]
    assert run('show', IMAGE, '-f', 'json').json == OF_READY


def test_show_is_about_a_cache_that_is_there(run, manager):
    """An audit that was dropped leaves its recorder, as long as that has guests."""
    served = CacheView(KEY.next_revision(), PATH, 'COLD', 0, 0, '', guests=1)
    manager.caches.return_value = [READY, served]
    assert run('show', IMAGE, '-f', 'json').json == OF_READY
    manager.caches.return_value = [served]
    assert run('show', IMAGE, '-f', 'json').json['state'] == 'COLD'


@pytest.mark.parametrize('pinned', [True, False])
def test_what_is_pinned_is_said(run, manager, pinned):
    manager.caches.return_value = [READY]
    manager.pins.all.return_value = {IMAGE: Pin(IMAGE, None)} if pinned else {}
    assert run('list', '-f', 'json').json[0]['is_pinned'] is pinned
    assert run('show', IMAGE, '-f', 'json').json['is_pinned'] is pinned
    assert ('yes' in run('list').out) is pinned


def test_show_of_nothing(run, manager):
    manager.caches.return_value = []
    ended = run('show', IMAGE)
    assert (ended.code, ended.out) == (1, '')
    assert ended.err == (
        f'This host has no cache of image {IMAGE}. `nova-qcache list` shows its caches.\n'
    )


@pytest.mark.parametrize('seconds', [0, 2**40, 2**62])
def test_a_time_that_no_calendar_has_is_shown_all_the_same(run, manager, seconds):
    record = builders.record(created_at=float(seconds))
    manager.caches.return_value = [CacheView(KEY, PATH, 'DIRTY', 0, 0, '', record)]
    shown = run('show', IMAGE, '-f', 'json').json
    assert shown['state'] == 'DIRTY'
    assert shown['created_at']
