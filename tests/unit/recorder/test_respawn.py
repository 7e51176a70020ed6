# SPDX-License-Identifier: Apache-2.0
"""How a recorder is started again: written down, read, forgotten."""

import json
from unittest import mock

import pytest

from nova_qcache.model.key import CacheKey
from nova_qcache.recorder import respawn
from nova_qcache.system import boot_id
from tests.unit.builders import GENERATION
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE

ARGUMENTS = ['--base=/b', 'image']
OTHER = CacheKey(OTHER_IMAGE, GENERATION)


def test_note_and_read(paths):
    respawn.note(paths, KEY, ARGUMENTS)
    assert respawn.read(paths, KEY) == ARGUMENTS
    assert paths.respawn_spec(KEY).stat().st_mode & 0o777 == 0o600
    respawn.note(paths, KEY, ['other'])
    assert respawn.read(paths, KEY) == ['other']


def test_forget(paths):
    respawn.note(paths, KEY, ARGUMENTS)
    respawn.forget(paths, KEY)
    assert respawn.read(paths, KEY) is None
    respawn.forget(paths, KEY)


def test_keys(paths):
    assert list(respawn.keys(paths)) == []
    for key in (OTHER, KEY):
        respawn.note(paths, key, ARGUMENTS)
    (paths.control / 'x.duty').write_text('{}')
    paths.log(KEY).touch()
    assert list(respawn.keys(paths)) == sorted([KEY, OTHER])


def test_a_respawn_spec_of_another_boot_of_the_host(paths):
    with mock.patch.object(respawn, 'boot_id', autospec=True, return_value='before'):
        respawn.note(paths, KEY, ARGUMENTS)
    assert respawn.read(paths, KEY) is None
    assert list(respawn.keys(paths)) == []


@pytest.mark.parametrize(
    'text', [b'', b'[]', b'{"boot_id": 1}', b'\xff', b'[' * 100_000, b'null', b'{"boot_id": "x"}']
)
def test_what_is_no_respawn_spec(paths, text):
    paths.respawn_spec(KEY).write_bytes(text)
    assert respawn.read(paths, KEY) is None


@pytest.mark.parametrize('arguments', ['text', 5, None, {}])
def test_arguments_that_are_none(paths, arguments):
    text = json.dumps({'boot_id': boot_id.boot_id(), 'arguments': arguments})
    paths.respawn_spec(KEY).write_text(text)
    assert respawn.read(paths, KEY) is None


def test_no_folder(paths):
    paths.control.rmdir()
    assert respawn.read(paths, KEY) is None
    with pytest.raises(FileNotFoundError):
        respawn.note(paths, KEY, ARGUMENTS)
    with pytest.raises(FileNotFoundError):
        list(respawn.keys(paths))
