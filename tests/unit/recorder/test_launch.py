# SPDX-License-Identifier: Apache-2.0
"""Starting a recorder: what is run, and what is made of what comes of it."""

import subprocess
import sys
import time
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.recorder import launch
from nova_qcache.system import control
from tests.unit import builders
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY

ARGUMENTS = ['--base=/base', IMAGE]
POPEN = subprocess.Popen
SILENCE = exception.RecorderUnreachable(path='/x', reason='nobody')
STATUS = builders.status()


@pytest.fixture
def popen():
    """Processes that run for ever, unless a test says otherwise."""
    with (
        mock.patch.object(subprocess, 'Popen', autospec=True) as mocked,
        mock.patch.object(time, 'sleep', autospec=True),
        mock.patch.object(launch, '_started', []),
    ):
        mocked.return_value.poll.return_value = None
        mocked.return_value.pid = STATUS.pid
        yield mocked


@pytest.fixture
def client(paths):
    with mock.patch.object(control, 'RecorderClient', autospec=True) as mocked:
        mocked.return_value.status.return_value = STATUS
        yield mocked.return_value
        assert {call.args for call in mocked.call_args_list} <= {(paths.control_socket(KEY),)}


def start(paths, seconds=60):
    return launch.start(paths, KEY, ARGUMENTS, seconds)


def says(paths, text):
    """A side effect of Popen: the process writes this to its standard error."""

    def write(*arguments, **options):
        options['stderr'].write(text)
        return mock.DEFAULT

    return write


def test_a_process_that_outlives_its_parent(paths, popen, client):
    assert start(paths) is STATUS
    popen.assert_called_once()
    assert popen.call_args.args[0] == [
        sys.executable,
        '-m',
        'nova_qcache.cmd.recorder',
        *ARGUMENTS,
    ]
    options = popen.call_args.kwargs
    assert options['start_new_session'] is True
    assert options['cwd'] == '/'
    assert options['stdin'] is subprocess.DEVNULL
    assert options['stdout'].name == options['stderr'].name == str(paths.log(KEY))
    assert options['stdout'].closed


def test_the_one_that_was_started_is_not_told_of_another_guest(paths, popen, client):
    start(paths)
    client.expect_guest.assert_not_called()


def test_it_takes_a_while(paths, popen, client):
    client.status.side_effect = [SILENCE, SILENCE, STATUS]
    assert start(paths) is STATUS
    assert client.status.call_count == 3
    popen.assert_called_once()


def test_another_one_is_at_work(paths, popen, client):
    popen.return_value.poll.return_value = launch.BUSY
    client.expect_guest.return_value = STATUS
    assert start(paths) is STATUS
    client.expect_guest.assert_called_once_with()
    client.status.assert_not_called()


def test_another_one_is_sooner_than_the_one_that_was_started(paths, popen, client):
    popen.return_value.pid = STATUS.pid + 1
    client.expect_guest.return_value = STATUS
    assert start(paths) is STATUS
    client.expect_guest.assert_called_once_with()


def test_another_one_was_just_leaving(paths, popen, client):
    first, second = (mock.create_autospec(POPEN, instance=True) for _ in range(2))
    first.poll.return_value, second.poll.return_value = launch.BUSY, None
    second.pid = STATUS.pid
    popen.side_effect = [first, second]
    client.expect_guest.side_effect = SILENCE
    assert start(paths) is STATUS
    assert popen.call_count == 2


@pytest.mark.parametrize('before', [b'', b'words of another day\n'])
@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        (b'Full.', 'Full.'),
        (b'first\nThe base is empty.\n\n', 'The base is empty.'),
        (b'', 'it printed no error'),
        (b'\xff\n', '\N{REPLACEMENT CHARACTER}'),
    ],
)
def test_it_fails_with_its_last_words(paths, popen, client, before, text, reason):
    if before:
        paths.log(KEY).write_bytes(before)
    popen.side_effect = says(paths, text)
    popen.return_value.poll.return_value = 1
    client.status.side_effect = SILENCE
    with pytest.raises(exception.RecorderFailed) as caught:
        start(paths)
    assert str(caught.value) == f'The recorder of image {IMAGE} did not start: {reason}'
    popen.assert_called_once()
    assert not paths.log(KEY).exists(), 'its words are in the error now'


def test_another_start_clears_its_log_away(paths, popen, client):
    def fails(*arguments, **options):
        options['stdout'].write(b'The disk is full.\n')
        options['stdout'].flush()
        paths.log(KEY).unlink()
        return mock.DEFAULT

    popen.side_effect = fails
    popen.return_value.poll.return_value = 1
    client.status.side_effect = SILENCE
    with pytest.raises(exception.RecorderFailed, match=r'The disk is full\.'):
        start(paths)


def test_it_fails_and_its_log_is_gone(paths, popen, client):
    popen.side_effect = lambda *arguments, **options: paths.log(KEY).unlink() or mock.DEFAULT
    popen.return_value.poll.return_value = 1
    client.status.side_effect = SILENCE
    with pytest.raises(exception.RecorderFailed, match='it printed no error'):
        start(paths)


@pytest.mark.parametrize('ended', [None, launch.BUSY])
def test_it_takes_too_long(paths, popen, client, ended):
    popen.return_value.poll.return_value = ended
    client.status.side_effect = client.expect_guest.side_effect = SILENCE
    with pytest.raises(exception.DeadlinePassed) as caught:
        start(paths, 0)
    said = str(caught.value)
    assert f'Starting the recorder of image {IMAGE} took longer than 0 s' in said
    assert f'See {str(paths.log(KEY))!r}' in said


def test_recorders_that_have_ended_are_forgotten(paths, popen, client):
    first, second = (mock.create_autospec(POPEN, instance=True) for _ in range(2))
    first.poll.return_value = second.poll.return_value = None
    first.pid = second.pid = STATUS.pid
    popen.side_effect = [first, second]
    start(paths)
    assert launch._started == [first]
    first.poll.return_value = 0
    start(paths)
    assert launch._started == [second]
