# SPDX-License-Identifier: Apache-2.0
"""The keeper's loop: it ends when it may, and nothing that fails in it stops the rest."""

import threading
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.keeper import service
from nova_qcache.keeper.guests import Guests
from nova_qcache.keeper.respawner import Respawner
from nova_qcache.keeper.revalidation import Requests
from nova_qcache.keeper.revalidation import Revalidator
from nova_qcache.keeper.saved import SavedGuests
from nova_qcache.keeper.service import Keeper
from nova_qcache.system import locks


@pytest.fixture(autouse=True)
def hasty():
    with mock.patch.multiple(
        service,
        _TICK_SECONDS=0.001,
        _RESPAWN_SECONDS=0.001,
        _RETRY_SECONDS=0.002,
        _IDLE_SECONDS=0.02,
        _LOCK_SECONDS=0.02,
    ):
        yield


@pytest.fixture
def parts():
    respawner = mock.create_autospec(Respawner, instance=True)
    respawner.run_once.return_value = 0
    requests = mock.create_autospec(Requests, instance=True)
    requests.pending.return_value = {}
    revalidator = mock.create_autospec(Revalidator, instance=True)
    guests = mock.create_autospec(Guests, instance=True)
    return respawner, requests, revalidator, guests


@pytest.fixture
def keeper(paths, parts):
    return Keeper(paths, *parts)


def test_it_ends_when_there_is_nothing_to_keep(keeper, parts, paths):
    paths.keeper_log.touch()
    respawner, _, revalidator, guests = parts
    # Its threads may be slow to begin.
    respawner.run_once.side_effect = lambda: (
        0 if revalidator.run_once.called and guests.run_once.called else 1
    )
    keeper.run()
    assert respawner.run_once.called and revalidator.run_once.called and guests.run_once.called
    assert not paths.keeper_log.exists()
    with locks.keeper(paths.locks, 0):
        pass


def test_it_stays_as_long_as_it_is_needed(keeper, parts):
    respawner, requests, _, _ = parts
    respawner.run_once.side_effect = [1] * 40 + [0] * 1000
    requests.pending.side_effect = [{'x': ''}] * 40 + [{}] * 1000
    keeper.run()
    assert respawner.run_once.call_count > 80


def test_who_comes_while_it_is_about_to_end_is_not_lost(keeper, parts, paths):
    """A recorder that was told that there is a keeper, and is killed then."""
    respawner, _, _, _ = parts
    held: list[bool] = []

    def look():
        try:
            with locks.keeper(paths.locks, 0):
                held.append(False)
        except exception.LockTimeout:
            held.append(True)
        return int(held.count(False) == 1 and len(held) < 100)

    def ask():  # in a thread: a thread that waits for what it holds is a fault
        asked: list[int] = []
        thread = threading.Thread(target=lambda: asked.append(look()))
        thread.start()
        thread.join()
        return asked[0]

    respawner.run_once.side_effect = ask
    keeper.run()
    last = held.index(False)
    assert held[last + 1 :].count(True) > 1, 'it goes on'
    assert not held[-1]


def test_it_ends_when_told(keeper, parts):
    respawner, _, _, _ = parts
    respawner.run_once.return_value = 1
    timer = threading.Timer(0.05, keeper.stop)
    timer.start()
    keeper.run()
    timer.join()


def test_one_at_a_time(keeper, paths, parts):
    failures = []

    def run():  # in a thread: a thread that waits for what it holds is a fault
        try:
            keeper.run()
        except exception.LockTimeout as e:
            failures.append(str(e))

    other = threading.Thread(target=run)
    with locks.keeper(paths.locks, 0):
        other.start()
        other.join()
    assert 'keeper' in failures[0]
    parts[0].run_once.assert_not_called()


@pytest.mark.parametrize('error', [OSError(5, 'x'), ValueError('a fault')])
def test_a_task_that_fails_is_run_again(keeper, parts, caplog, error):
    respawner, _, _, guests = parts
    seen = threading.Event()

    def look():
        if guests.run_once.call_count == 1:
            raise error
        seen.set()

    guests.run_once.side_effect = look
    respawner.run_once.side_effect = lambda: 0 if seen.is_set() else 1
    keeper.run()
    assert seen.is_set()
    assert 'the keeper' in caplog.text


def test_folders_that_cannot_be_read_are_no_idleness(keeper, parts):
    respawner, _, _, _ = parts
    respawner.run_once.side_effect = [PermissionError(13, 'x')] * 30 + [0] * 1000
    keeper.run()
    assert respawner.run_once.call_count > 30


def test_it_ends_with_its_folders(keeper, parts):
    parts[0].run_once.side_effect = FileNotFoundError(2, 'x')
    keeper.run()


def test_it_stays_as_long_as_a_guest_may_be_saved(paths, parts):
    saved = mock.create_autospec(SavedGuests, instance=True)
    answers = iter([True] * 40)
    saved.is_needed.side_effect = lambda: next(answers, not saved.run_once.called)
    respawner, requests, revalidator, guests = parts
    Keeper(paths, respawner, requests, revalidator, guests, saved).run()
    assert saved.is_needed.call_count > 40
    assert saved.run_once.called


def test_no_libvirt(paths, parts):
    respawner, requests, revalidator, guests = parts
    Keeper(paths, respawner, requests, revalidator, None).run()
    guests.run_once.assert_not_called()
