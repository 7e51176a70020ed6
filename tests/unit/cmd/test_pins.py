# SPDX-License-Identifier: Apache-2.0
"""nova-qcache pin and unpin."""

import pathlib
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache.pins import Pin
from nova_qcache.cache.view import CacheView
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY

NOW = 1_700_000_000.5


@pytest.fixture(autouse=True)
def clock():
    with mock.patch('time.time', autospec=True, return_value=NOW) as made:
        yield made


@pytest.fixture(autouse=True)
def holding(manager):
    """The pin that holds is the one that was asked for, unless a test says otherwise."""
    manager.pins.pin.side_effect = lambda image_id, until: Pin(image_id, until)


def seen(state):
    return CacheView(KEY, pathlib.Path('/x'), state, 0, 0, '')


def test_a_pin_that_lasts_longer_is_the_one_that_is_shown(run, manager):
    manager.caches.return_value = []
    manager.pins.pin.side_effect = lambda image_id, until: Pin(image_id, None)
    assert run('pin', IMAGE, '--for', '1', '-f', 'json').json['until'] is None


def test_pin(run, manager):
    manager.caches.return_value = [seen('READY'), seen('RECORDING'), seen('COLD')]
    assert run('pin', IMAGE, '-f', 'json').json == {
        'image_id': IMAGE,
        'until': None,
        'caches': 2,
        'note': 'they stay',
    }
    manager.pins.pin.assert_called_once_with(IMAGE, None)
    manager.caches.assert_called_once_with(IMAGE)


def test_pin_for_a_while(run, manager):
    manager.caches.return_value = [seen('READY')]
    assert run('pin', IMAGE, '--for', '1.5', '-f', 'json').json['until'] == (
        '2023-11-14T23:43:21+00:00'
    )
    manager.pins.pin.assert_called_once_with(IMAGE, 1_700_005_401)


def test_pin_without_a_cache(run, manager):
    manager.caches.return_value = []
    shown = run('pin', IMAGE, '-f', 'json').json
    assert (shown['caches'], shown['note']) == (0, 'no cache yet; the next one stays')


@pytest.mark.parametrize('hours', ['0', '-1', 'nan', 'inf', 'soon', '1e9', ''])
def test_no_number_of_hours(run, manager, hours):
    ended = run('pin', IMAGE, f'--for={hours}')
    assert ended.code == 2
    assert 'is not a number of hours up to 1000000' in ended.err
    manager.pins.pin.assert_not_called()


def test_unpin(run, manager):
    ended = run('unpin', IMAGE)
    assert (ended.code, ended.out, ended.err) == (0, '', '')
    manager.pins.unpin.assert_called_once_with(IMAGE)


@pytest.mark.parametrize('verb', ['pin', 'unpin'])
def test_an_error_is_one_line(run, manager, verb):
    error = exception.InvalidImageId(image_id=IMAGE)
    getattr(manager.pins, verb).side_effect = error
    ended = run(verb, IMAGE)
    assert (ended.code, ended.out) == (1, '')
    assert ended.err.splitlines() == [str(error)]


def test_what_is_not_pinned(run, manager):
    manager.pins.unpin.return_value = False
    ended = run('unpin', IMAGE)
    assert (ended.code, ended.out) == (1, '')
    assert ended.err.splitlines() == [str(exception.NotPinned(image_id=IMAGE))]
