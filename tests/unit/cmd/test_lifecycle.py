# SPDX-License-Identifier: Apache-2.0
"""nova-qcache plan, record, seal, invalidate and remove."""

import operator
import pathlib

import pytest

from nova_qcache import exception
from nova_qcache.cache.view import CacheView
from nova_qcache.cmd import shell
from nova_qcache.model.key import CacheKey
from nova_qcache.model.plan import Plan
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.states import State
from tests.unit import builders
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY

BASE = '/base/image'
PATH = pathlib.Path('/cache/file.recording')
VIEW = CacheView(KEY, PATH, 'RECORDING', 1, 2, 'a note', builders.record())
OLDER = CacheView(
    CacheKey(IMAGE, GENERATION.next()), PATH, 'STALE', 3, 4, '', builders.record(State.STALE)
)
RECORD = Plan(
    PlanKind.RECORD, 'a note', IMAGE, BASE, 'raw', generation=GENERATION, socket='/run/x.nbd'
)
PLAY = Plan(
    PlanKind.PLAY, 'the cache is ready', IMAGE, BASE, 'qcow2', GENERATION, cache='/cache/x.qcow2'
)


class TestPlan:
    def test_record(self, run, manager):
        manager.boots.preview.return_value = RECORD
        assert run('plan', IMAGE, '--base', BASE, '-f', 'json').json == {
            'image_id': IMAGE,
            'kind': 'RECORD',
            'reason': 'a note',
            'generation': str(GENERATION),
            'cache': None,
            'socket': '/run/x.nbd',
            'export': 'top',
            'base': BASE,
            'base_format': 'raw',
        }
        manager.boots.preview.assert_called_once_with(IMAGE, BASE, 'raw')
        manager.boots.plan.assert_not_called()
        manager.boots.record.assert_not_called()

    def test_play(self, run, manager):
        manager.boots.preview.return_value = PLAY
        command = ['plan', IMAGE, '--base', BASE, '--base-format', 'qcow2', '-f', 'json']
        shown = run(*command).json
        assert (shown['kind'], shown['cache']) == ('PLAY', '/cache/x.qcow2')
        assert (shown['socket'], shown['export']) == (None, None)
        manager.boots.preview.assert_called_once_with(IMAGE, BASE, 'qcow2')


class TestRecord:
    def test_plan_and_cache_in_one(self, run, manager):
        manager.boots.record.return_value = RECORD
        manager.caches.return_value = [OLDER, VIEW]
        shown = run('record', IMAGE, '--base', BASE, '-f', 'json').json
        assert (shown['kind'], shown['socket']) == ('RECORD', '/run/x.nbd')
        assert (shown['state'], shown['cache_bytes']) == ('RECORDING', 2)
        manager.boots.record.assert_called_once_with(
            IMAGE, BASE, 'raw', quota=None, progress=shell.progress
        )
        manager.caches.assert_called_once_with(IMAGE)

    @pytest.mark.parametrize('quota', ['0', '3', '512M', '0.5GiB', '1GB'])
    def test_its_own_quota(self, run, manager, quota):
        manager.boots.record.return_value = RECORD
        manager.caches.return_value = []
        ended = run('record', IMAGE, '--base', BASE, f'--quota={quota}')
        assert ended.code == 0
        assert manager.boots.record.call_args.kwargs['quota'] == quota

    @pytest.mark.parametrize('quota', ['', '-1', '1e3', '5X', '10Gb', '1 GiB'])
    def test_no_quota(self, run, manager, quota):
        ended = run('record', IMAGE, '--base', BASE, f'--quota={quota}')
        assert (ended.code, ended.out) == (2, '')
        assert f'argument --quota: {quota!r} is not an amount: give' in ended.err
        manager.boots.record.assert_not_called()


class TestSeal:
    @pytest.mark.parametrize(
        ('options', 'seconds'),
        [
            ([], 0),
            (['--timeout', '5'], 0),
            (['--wait'], 120),
            (['--wait', '--timeout', '0.5'], 0.5),
        ],
    )
    def test_seal(self, run, manager, options, seconds):
        manager.seal.return_value = VIEW
        assert run('seal', IMAGE, *options, '-f', 'json').json['state'] == 'RECORDING'
        manager.seal.assert_called_once_with(IMAGE, seconds, shell.progress)


ROWS = [{'image_id': IMAGE, 'generation': str(GENERATION)}]


class TestInvalidate:
    @pytest.mark.parametrize(
        ('options', 'arguments'),
        [
            ([], (IMAGE, None, 'raw')),
            (['--base', BASE], (IMAGE, BASE, 'raw')),
            (['--base', BASE, '--base-format', 'qcow2'], (IMAGE, BASE, 'qcow2')),
        ],
    )
    def test_invalidate(self, run, manager, options, arguments):
        manager.invalidate.return_value = [KEY]
        assert run('invalidate', IMAGE, *options, '-f', 'json').json == ROWS
        manager.invalidate.assert_called_once_with(*arguments)


class TestRemove:
    @pytest.mark.parametrize('force', [False, True])
    def test_remove(self, run, manager, force):
        manager.remove.return_value = [KEY]
        options = ['--force'] if force else []
        assert run('remove', IMAGE, *options, '-f', 'json').json == ROWS
        manager.remove.assert_called_once_with(IMAGE, force=force, progress=shell.progress)

    def test_a_row_of_stats_goes_too(self, run, manager):
        manager.remove.return_value = [KEY]
        assert run('remove', IMAGE, '--forget', '-f', 'json').json == ROWS
        manager.forget.assert_called_once_with(IMAGE)

    def test_a_row_of_an_image_without_a_cache(self, run, manager):
        manager.remove.side_effect = exception.CacheNotFound(image_id=IMAGE)
        assert run('remove', IMAGE, '--forget', '-f', 'json').json == []
        manager.forget.assert_called_once_with(IMAGE)

    def test_a_row_stays_with_a_cache_that_is_in_use(self, run, manager):
        manager.remove.side_effect = exception.CacheInUse(path='/x', reason='y', remedy='z')
        assert run('remove', IMAGE, '--forget').code == 1
        manager.forget.assert_not_called()


VERBS = {
    'plan': ('boots.preview', ['--base', BASE]),
    'record': ('boots.record', ['--base', BASE]),
    'seal': ('seal', []),
    'invalidate': ('invalidate', []),
    'remove': ('remove', []),
    'show': ('caches', []),
    'verify': ('verify', []),
}


@pytest.mark.parametrize(
    'error',
    [
        exception.CacheNotFound(image_id=IMAGE),
        exception.CacheNotReady(image_id=IMAGE, state='STALE', reason='x', remedy='y'),
        exception.InvalidBase(base='a\nb', reason='x', remedy='y'),
        PermissionError(13, 'Permission denied', '/x'),
        RuntimeError('a surprise'),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(('verb', 'method', 'options'), [(k, *v) for k, v in VERBS.items()])
def test_an_error_is_one_line_and_code_1(run, manager, verb, method, options, error):
    operator.attrgetter(method)(manager).side_effect = error
    ended = run(verb, IMAGE, *options, '-f', 'json')
    assert (ended.code, ended.out) == (1, '')
    said = str(error)
    if isinstance(error, OSError):
        said = "nova-qcache failed at '/x': Permission denied."
    assert ended.err == f'{said}\n'


@pytest.mark.parametrize('verb', ['plan', 'record'])
def test_the_base_is_needed(run, manager, verb):
    ended = run(verb, IMAGE)
    assert ended.code == 2
    assert '--base' in ended.err


@pytest.mark.parametrize('verb', ['plan', 'record', 'invalidate'])
def test_other_formats(run, manager, verb):
    ended = run(verb, IMAGE, '--base', BASE, '--base-format', 'vmdk')
    assert ended.code == 2
    assert 'vmdk' in ended.err
    assert manager.method_calls == []


@pytest.mark.parametrize('verb', VERBS)
def test_the_image_is_needed(run, manager, verb):
    assert run(verb, *VERBS[verb][1]).code == 2
    assert manager.method_calls == []
