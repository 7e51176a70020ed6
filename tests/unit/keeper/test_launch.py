# SPDX-License-Identifier: Apache-2.0
"""Starting the keeper: only if none is at work, and never in anybody's way."""

import subprocess
import sys
from unittest import mock

import pytest

from nova_qcache.keeper import launch
from nova_qcache.system import locks


@pytest.fixture(autouse=True)
def nobody_yet():
    with mock.patch.object(launch, '_started', []):
        yield


@pytest.fixture
def popen():
    with mock.patch.object(subprocess, 'Popen', autospec=True) as made:
        made.return_value.poll.return_value = None
        yield made


def test_it_is_started(paths, popen):
    launch.ensure(paths, ['--config-file=/x'])
    (command,), more = popen.call_args
    assert command == [sys.executable, '-m', 'nova_qcache.cmd.keeper', '--config-file=/x']
    assert more['start_new_session']
    assert more['stdout'].name == str(paths.keeper_log)


def test_one_at_work_is_enough(paths, popen):
    with locks.keeper(paths.locks, 0):
        launch.ensure(paths, [])
    popen.assert_not_called()


def test_one_that_was_just_started_is_enough(paths, popen):
    launch.ensure(paths, [])
    launch.ensure(paths, [])
    popen.assert_called_once()
    popen.return_value.poll.return_value = 0
    launch.ensure(paths, [])
    assert popen.call_count == 2


@pytest.mark.parametrize('error', [OSError(12, 'Cannot allocate memory')])
def test_what_goes_wrong_is_no_boots_business(paths, popen, caplog, error):
    popen.side_effect = error
    launch.ensure(paths, [])
    assert 'Failed to start the keeper' in caplog.text


def test_no_folder(paths, popen, caplog):
    paths.control.rmdir()
    launch.ensure(paths, [])
    popen.assert_not_called()
    assert 'Failed to start the keeper' in caplog.text
