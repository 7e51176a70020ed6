# SPDX-License-Identifier: Apache-2.0
"""Pins: what was asked for holds until it has ended, whatever happens to its file."""

import logging
import os
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache.pins import Pin
from nova_qcache.cache.pins import Pins
from nova_qcache.system import files
from nova_qcache.system import locks
from tests.unit.builders import IMAGE
from tests.unit.builders import NOT_IMAGE_IDS
from tests.unit.builders import OTHER_IMAGE

NOW = 1_700_000_000.0


@pytest.fixture(autouse=True)
def clock():
    with mock.patch('time.time', autospec=True, return_value=NOW) as made:
        yield made


def file_of(paths, image_id=IMAGE):
    return paths.pins / f'{image_id}.json'


def test_none(pins):
    assert pins.all() == {}
    assert not pins.is_pinned(IMAGE)
    assert not pins.unpin(IMAGE)


def test_one(pins, paths):
    pin = pins.pin(IMAGE, reason='gold')
    assert pin == Pin(IMAGE, None, 'gold')
    later = Pins(paths, 60)  # another process
    assert later.all() == {IMAGE: pin}
    assert later.is_pinned(IMAGE)
    assert not later.is_pinned(OTHER_IMAGE)
    assert later.unpin(IMAGE)
    assert pins.all() == {}
    assert not pins.unpin(IMAGE)
    assert os.listdir(paths.pins) == []


def test_the_end_of_a_pin_is_on_disk(pins, paths):
    pins.pin(IMAGE)
    with mock.patch.object(files, 'sync_folder', autospec=True) as sync:
        pins.unpin(IMAGE)
    sync.assert_called_once_with(paths.pins)


def test_spelling(pins):
    pins.pin(IMAGE.upper())
    assert pins.is_pinned(IMAGE)
    assert pins.unpin(IMAGE.upper())


@pytest.mark.parametrize('image_id', NOT_IMAGE_IDS.values(), ids=NOT_IMAGE_IDS)
def test_no_image(pins, paths, image_id):
    for verb in (pins.pin, pins.unpin):
        with pytest.raises(exception.InvalidImageId):
            verb(image_id)
    assert os.listdir(paths.pins) == []


def test_an_end(pins, clock):
    pins.pin(IMAGE, NOW + 60)
    pins.pin(OTHER_IMAGE, NOW + 61)
    clock.return_value = NOW + 60
    assert pins.all() == {OTHER_IMAGE: Pin(OTHER_IMAGE, NOW + 61)}
    assert not pins.is_pinned(IMAGE)
    assert not pins.unpin(IMAGE), 'it has ended'
    assert pins.pin(IMAGE, NOW + 70).until == NOW + 70


def test_a_pin_changes_under_the_lock_of_the_image(paths):
    """Two that pin take turns, and no cache is removed that was chosen before."""
    pins = Pins(paths, 0)
    pins.pin(IMAGE)
    with locks.image(paths.locks, IMAGE, 0):
        with pytest.raises(exception.LockTimeout, match=IMAGE):
            pins.pin(IMAGE)
        with pytest.raises(exception.LockTimeout, match=IMAGE):
            pins.unpin(IMAGE)
        assert pins.is_pinned(IMAGE)
        pins.pin(OTHER_IMAGE)


@pytest.mark.parametrize(
    ('first', 'second', 'holds'),
    [
        (None, NOW + 60, None),
        (NOW + 60, None, None),
        (NOW + 60, NOW + 90, NOW + 90),
        (NOW + 90, NOW + 60, NOW + 90),
    ],
)
def test_the_longer_one_holds(pins, first, second, holds):
    pins.pin(IMAGE, first, 'first')
    pin = pins.pin(IMAGE, second, 'second')
    assert pins.all() == {IMAGE: pin}
    assert (pin.until, pin.reason) == (holds, 'second' if holds == second else 'first')


@pytest.mark.parametrize(
    'text',
    [
        b'',
        b'{',
        b'[]',
        b'null',
        b'{}',
        b'{"until": "soon"}',
        b'{"until": NaN}',
        b'{"until": []}',
        b'\xff',
        b'[' * 100_000,
    ],
)
def test_what_cannot_be_read_is_a_pin(pins, paths, caplog, text):
    file_of(paths).write_bytes(text)
    assert pins.is_pinned(IMAGE)
    assert pins.all()[IMAGE].until is None
    warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1, 'said once'
    assert str(file_of(paths)) in caplog.text
    assert f'nova-qcache unpin {IMAGE}' in caplog.text
    assert pins.unpin(IMAGE)
    assert not pins.is_pinned(IMAGE)


def test_a_pin_that_nobody_may_read(pins, paths):
    file_of(paths).mkdir()  # also for root, whom no mode stops
    assert pins.is_pinned(IMAGE)


def test_other_files_are_no_pins(pins, paths):
    for name in (f'.{IMAGE}.json.x1y2', 'README.json', f'{IMAGE}.txt', f'{IMAGE.upper()}.json'):
        (paths.pins / name).write_text('{"until": null}')
    assert pins.all() == {}


def test_a_folder_that_is_gone(pins, paths):
    paths.pins.rmdir()
    assert pins.all() == {}
    with pytest.raises(exception.FolderUnfit, match='a pin cannot be written or removed there'):
        pins.pin(IMAGE)


def test_a_folder_that_cannot_be_listed(pins):
    with (
        mock.patch.object(os, 'listdir', autospec=True, side_effect=PermissionError(13, 'no')),
        pytest.raises(OSError, match='no'),
    ):
        pins.all()


def test_a_pin_that_cannot_be_written_is_said(pins):
    full = OSError(28, 'No space left on device')
    with (
        mock.patch.object(files, 'replace_atomically', autospec=True, side_effect=full),
        pytest.raises(exception.FolderUnfit, match='No space left'),
    ):
        pins.pin(IMAGE)
