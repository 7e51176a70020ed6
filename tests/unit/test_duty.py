# SPDX-License-Identifier: Apache-2.0
"""How a recorder is started again: written down, read, forgotten."""

import json
from unittest import mock

import pytest

from nova_qcache import duty
from nova_qcache import host_boot
from nova_qcache.key import CacheKey
from tests.unit.builders import GENERATION
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE

ARGUMENTS = ['--base=/b', 'image']
OTHER = CacheKey(OTHER_IMAGE, GENERATION)


def test_note_and_read(paths):
    duty.note(paths, KEY, ARGUMENTS)
    assert duty.read(paths, KEY) == ARGUMENTS
    assert paths.duty(KEY).stat().st_mode & 0o777 == 0o600
    duty.note(paths, KEY, ['other'])
    assert duty.read(paths, KEY) == ['other']


def test_forget(paths):
    duty.note(paths, KEY, ARGUMENTS)
    duty.forget(paths, KEY)
    assert duty.read(paths, KEY) is None
    duty.forget(paths, KEY)


def test_keys(paths):
    assert list(duty.keys(paths)) == []
    for key in (OTHER, KEY):
        duty.note(paths, key, ARGUMENTS)
    (paths.control / 'x.duty').write_text('{}')
    paths.log(KEY).touch()
    assert list(duty.keys(paths)) == sorted([KEY, OTHER])


def test_a_duty_of_another_boot_of_the_host(paths):
    with mock.patch.object(duty, 'boot_id', autospec=True, return_value='before'):
        duty.note(paths, KEY, ARGUMENTS)
    assert duty.read(paths, KEY) is None
    assert list(duty.keys(paths)) == []


@pytest.mark.parametrize(
    'text', [b'', b'[]', b'{"boot_id": 1}', b'\xff', b'[' * 100_000, b'null', b'{"boot_id": "x"}']
)
def test_what_is_no_duty(paths, text):
    paths.duty(KEY).write_bytes(text)
    assert duty.read(paths, KEY) is None


@pytest.mark.parametrize('arguments', ['text', 5, None, {}])
def test_arguments_that_are_none(paths, arguments):
    text = json.dumps({'boot_id': host_boot.boot_id(), 'arguments': arguments})
    paths.duty(KEY).write_text(text)
    assert duty.read(paths, KEY) is None


def test_no_folder(paths):
    paths.control.rmdir()
    assert duty.read(paths, KEY) is None
    with pytest.raises(FileNotFoundError):
        duty.note(paths, KEY, ARGUMENTS)
    with pytest.raises(FileNotFoundError):
        list(duty.keys(paths))
