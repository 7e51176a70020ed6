# SPDX-License-Identifier: Apache-2.0
"""Recorders that are missed: when they are started again, with what, and how often."""

import itertools
import socket
from unittest import mock

import pytest

from nova_qcache import duty
from nova_qcache import processes
from nova_qcache.keeper.revival import Revival
from nova_qcache.recorder import launch
from tests.unit.builders import KEY

ARGUMENTS = ['--base=/b', KEY.image_id]


@pytest.fixture
def spawn():
    with mock.patch.object(launch, 'spawn', autospec=True) as made:
        yield made


@pytest.fixture
def clock():
    with mock.patch('nova_qcache.keeper.revival.time.monotonic', autospec=True) as made:
        made.return_value = 1000.0
        yield made


@pytest.fixture
def revival(paths, spawn, clock):
    return Revival(paths)


@pytest.fixture
def missed(paths):
    duty.note(paths, KEY, ARGUMENTS)


def test_no_duty(revival, spawn):
    assert revival.look() == 0
    spawn.assert_not_called()


def test_one_that_is_at_work(revival, paths, spawn, missed):
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(paths.control_socket(KEY)))
        door.listen()
        for _ in range(3):
            assert revival.look() == 1
    spawn.assert_not_called()


def test_one_that_is_missed_twice(revival, paths, spawn, missed):
    assert revival.look() == 1
    spawn.assert_not_called()
    assert revival.look() == 1
    ((output, arguments), _) = spawn.call_args
    assert output.name == str(paths.log(KEY))
    assert arguments == [
        '--serve-only',
        f'--generation={KEY.generation}',
        '--revision=1',
        *ARGUMENTS,
    ]


def test_the_recorder_of_an_audit(revival, paths, spawn):
    audit = KEY.next_revision()
    duty.note(paths, audit, ARGUMENTS)
    revival.look()
    revival.look()
    ((output, arguments), _) = spawn.call_args
    assert output.name == str(paths.log(audit))
    assert arguments[:3] == ['--serve-only', f'--generation={KEY.generation}', '--revision=2']


def test_it_gets_time_to_start(revival, spawn, clock, missed):
    for _ in range(5):
        revival.look()
    assert spawn.call_count == 1
    clock.return_value += 2
    revival.look()
    assert spawn.call_count == 2


def test_the_pauses_get_longer_and_end(revival, paths, spawn, clock, missed):
    revival.look()
    times: list[float] = []
    while duty.read(paths, KEY) is not None:
        revival.look()
        if spawn.call_count > len(times):
            times.append(clock.return_value)
        clock.return_value += 1
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[:4] == [2, 4, 8, 15]
    assert set(pauses[4:]) == {15}
    assert len(times) == 240


def test_one_that_came_back_starts_anew(revival, paths, spawn, missed):
    revival.look()
    revival.look()
    with mock.patch.object(processes, 'listener_pid', autospec=True, return_value=1):
        revival.look()
    revival.look()
    assert spawn.call_count == 1, 'it may just be ending'
    revival.look()
    assert spawn.call_count == 2


def test_a_duty_that_ends(revival, paths, spawn, missed):
    revival.look()
    duty.forget(paths, KEY)
    assert revival.look() == 0
    duty.note(paths, KEY, ARGUMENTS)
    revival.look()
    spawn.assert_not_called()


def test_a_recorder_that_cannot_be_asked_lives(revival, spawn, missed):
    with mock.patch.object(processes, 'listener_pid', autospec=True, side_effect=BlockingIOError):
        for _ in range(3):
            assert revival.look() == 1
    spawn.assert_not_called()
