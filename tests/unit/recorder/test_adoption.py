# SPDX-License-Identifier: Apache-2.0
"""A recorder that takes over the daemon of one that was killed."""

import asyncio
import signal

import pytest

from nova_qcache import exception
from nova_qcache.cache.leases import Leases
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import State
from nova_qcache.qemu import block_graph
from nova_qcache.recorder import quota
from nova_qcache.recorder import respawn
from nova_qcache.recorder.finish import Limits
from tests.unit import builders
from tests.unit.builders import KEY
from tests.unit.builders import MIB
from tests.unit.recorder.stage import adopt
from tests.unit.recorder.stage import FAITHFUL
from tests.unit.recorder.stage import HASTY
from tests.unit.recorder.stage import one_guest_until
from tests.unit.recorder.stage import PATIENT
from tests.unit.recorder.stage import RECORDING
from tests.unit.recorder.stage import run
from tests.unit.recorder.stage import say

SEALED = {block_graph.CACHE_FILE_NODE}
PLAIN = {'base', 'mute', 'either', block_graph.TOP}


def test_a_recording_goes_on(stage):
    builders.warm(stage.catalog, b'recorded before')
    found = adopt(stage, RECORDING)
    one_guest_until(stage, lambda: stage.state is State.READY)
    run(stage, HASTY)
    (daemon,) = found
    assert stage.catalog.load(KEY).sealed.reason is FinishReason.IDLE
    daemon.record.assert_not_called()
    daemon.seal.assert_awaited_once()
    daemon.stop.assert_awaited_once()
    stage.daemon_class.start.assert_not_called()
    stage.open_recording.assert_not_called()


def test_a_seal_that_was_interrupted_is_done_again(stage):
    builders.warm(stage.catalog)
    adopt(stage, SEALED)
    one_guest_until(stage, lambda: stage.state is State.READY)
    run(stage, PATIENT)
    assert stage.catalog.load(KEY).sealed.reason is FinishReason.QUOTA


@pytest.mark.parametrize(('missing', 'sealed'), [(0, True), (1, False)])
def test_a_threshold_that_nobody_heard_of(stage, missing, sealed):
    threshold = quota.threshold(MIB, 65536)
    builders.warm(stage.catalog, b'x' * (threshold - missing), quota=MIB, cluster_size=65536)
    adopt(stage, RECORDING)
    stage.script = lambda count: 1 if count < 5 else 0
    run(stage, PATIENT)
    record = stage.catalog.load(KEY)
    reason = record and record.sealed.reason
    assert (reason is FinishReason.QUOTA) == sealed


def test_a_daemon_that_plays(stage):
    before = builders.ready(stage.catalog)
    found = adopt(stage, SEALED)
    run(stage)
    (daemon,) = found
    assert stage.catalog.load(KEY) == before
    daemon.seal.assert_not_called()
    daemon.stop.assert_awaited_once()


def test_a_daemon_that_serves_the_base_alone_fills_no_cache(stage):
    builders.warm(stage.catalog)
    found = adopt(stage, PLAIN)
    run(stage)
    assert stage.catalog.keys() == []
    found[0].seal.assert_not_called()


def test_a_recording_without_a_record_is_ended(stage):
    stage.catalog.paths.recording(KEY).write_bytes(b'lost')
    found = adopt(stage, RECORDING)
    run(stage)
    assert stage.catalog.keys() == []
    found[0].seal.assert_awaited_once()


def test_a_record_that_cannot_be_read_ends_the_recorder_and_not_the_daemon(stage):
    stage.catalog.paths.record(KEY).write_bytes(b'nonsense')
    found = adopt(stage, RECORDING)
    with pytest.raises(exception.RecordBroken):
        run(stage)
    found[0].stop.assert_not_called()


# -- the guests of a dead daemon


@pytest.mark.parametrize('there', ['nothing', 'warm', 'ready', 'stale', 'broken'])
def test_guests_of_a_dead_daemon_are_served_again(stage, there):
    if there == 'warm':
        builders.warm(stage.catalog)
    elif there != 'nothing':
        record = builders.ready(stage.catalog)
        if there == 'stale':
            stage.catalog.retire(record, 'x')
        if there == 'broken':
            stage.catalog.paths.record(KEY).write_bytes(b'x')
    before, found = builders.files(stage.catalog), []
    stage.on_serve = lambda: found.append(builders.files(stage.catalog))
    run(stage, serve_only=True, arguments=('--base=/b',))
    (daemon,) = stage.daemons
    daemon.record.assert_not_called()
    path = str(stage.catalog.paths.sealed(KEY))
    assert daemon.plays == ([path] if there == 'ready' else [])
    assert found == [before], 'they wait for no disk'
    daemon.stop.assert_awaited_once()
    if there in ('nothing', 'warm'):
        assert stage.state is State.COLD, 'what was being recorded is dirty'
    assert respawn.read(stage.catalog.paths, KEY) is None


def test_a_dead_daemon_whose_base_is_away_is_tried_again_later(stage):
    respawn.note(stage.catalog.paths, KEY, ['x'])

    failed = exception.ToolFailed(command='x', code=1, reason='y')
    stage.daemon_class.serve.side_effect = failed
    with pytest.raises(exception.ToolFailed):
        run(stage, serve_only=True, arguments=('--base=/b',))
    assert respawn.read(stage.catalog.paths, KEY) == ['--base=/b']


def test_somebody_who_will_come_back_is_waited_for(stage):
    happened: list = []

    def prepare(recorder):
        def ask(command):
            happened.append(command)
            say(recorder, command)

        def guests(count):
            if count == 1:
                ask('hold')
                asyncio.get_running_loop().call_later(0.3, ask, 'leave')
            return 0

        stage.script = guests

    run(stage, Limits(0.02, 0.01, 1000, 0, 0.1), prepare, serve_only=True)
    assert happened == ['hold', 'leave'], 'it did not leave by itself'


# -- its respawn spec


def test_a_recorder_at_work_has_a_respawn_spec(stage):
    seen = []
    stage.on_record = lambda: seen.append(respawn.read(stage.catalog.paths, KEY))
    run(stage, arguments=('--base=/b', 'x'))
    assert seen == [['--base=/b', 'x']]
    assert respawn.read(stage.catalog.paths, KEY) is None


def test_a_daemon_that_is_left_to_its_guests_keeps_its_respawn_spec(stage):
    stage.script = lambda count: 1
    stage.on_record = lambda: asyncio.get_running_loop().call_later(
        5, signal.raise_signal, signal.SIGTERM
    )
    run(stage, FAITHFUL, arguments=('--base=/b',))
    stage.daemons[0].leave.assert_awaited_once()
    assert respawn.read(stage.catalog.paths, KEY) == ['--base=/b']


@pytest.mark.parametrize('there', ['ready', 'no room'])
def test_guests_that_wait_are_not_forgotten_by_a_start_that_fails(stage, there):
    """The keeper serves them: they need no recording."""
    respawn.note(stage.catalog.paths, KEY, ['of one that was killed'])
    if there == 'ready':
        builders.ready(stage.catalog)
    else:
        stage.open_recording.side_effect = exception.NoReservation(path='x', reason='y', remedy='')
    with pytest.raises(exception.QcacheError):
        run(stage, arguments=('--base=/b',))
    assert respawn.read(stage.catalog.paths, KEY) == ['--base=/b']


def test_a_start_that_fails_leaves_no_respawn_spec(stage):
    stage.open_recording.side_effect = exception.NoReservation(path='x', reason='y', remedy='z')
    with pytest.raises(exception.NoReservation):
        run(stage)
    assert respawn.read(stage.catalog.paths, KEY) is None


# -- a boot that is on its way


@pytest.mark.parametrize(
    ('command', 'leased', 'left'),
    [
        ('leave', False, True),
        ('leave', True, False),
        ('dismiss', True, True),
    ],
)
def test_who_was_told_to_come(stage, command, leased, left):
    happened: list = []
    if leased:
        Leases(stage.catalog.paths.leases, 300).take('boot', KEY)

    def prepare(recorder):
        def ask(command):
            happened.append(command)
            say(recorder, command)

        def guests(count):
            if count == 1:
                ask(command)
                asyncio.get_running_loop().call_later(0.3, ask, 'dismiss')
            return 0

        stage.script = guests

    run(stage, Limits(1000, 0.01, 1000, 0, 1000), prepare)
    assert happened == [command] if left else [command, 'dismiss']
