# SPDX-License-Identifier: Apache-2.0
"""The life of a recorder: what it does with its recording, its daemon and its guests."""

import asyncio
import itertools
import pathlib
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.bases.generation import Generations
from nova_qcache.cache.catalog import Catalog
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from nova_qcache.qemu import block_graph
from nova_qcache.qemu.io import QemuIo
from nova_qcache.recorder import service
from nova_qcache.recorder import unreadable
from nova_qcache.stats.counters import Counters
from nova_qcache.system import locks
from nova_qcache.system.paths import Paths
from tests.unit import builders
from tests.unit.builders import KEY
from tests.unit.recorder.stage import FAITHFUL
from tests.unit.recorder.stage import one_guest_until
from tests.unit.recorder.stage import PATIENT
from tests.unit.recorder.stage import run

BROKEN = exception.CacheBroken(path='/x', reason='leaks', image_id=KEY.image_id)


def test_nobody_comes(stage):
    run(stage)
    (daemon,) = stage.daemons
    daemon.record.assert_awaited_once()
    daemon.seal.assert_awaited_once()
    daemon.stop.assert_awaited_once()
    stage.seal.assert_not_called()
    assert stage.catalog.keys() == []


def test_a_guest_that_reads_all_it_needs(stage):
    one_guest_until(stage, lambda: stage.state is State.READY)
    run(stage)
    (daemon,) = stage.daemons
    assert stage.state is State.READY
    assert stage.catalog.load(KEY).sealed.reason is FinishReason.IDLE
    daemon.seal.assert_awaited_once()
    daemon.stop.assert_awaited_once()


def test_the_threshold_ends_the_recording(stage):
    stage.events = 1
    one_guest_until(stage, lambda: stage.state is State.READY)
    run(stage, PATIENT)
    assert stage.catalog.load(KEY).sealed.reason is FinishReason.QUOTA


def test_a_recording_is_counted(stage):
    one_guest_until(stage, lambda: stage.state is State.READY)
    run(stage)
    counted = stage.catalog.counter_store.of(KEY.image_id)
    seconds = counted.recording_seconds
    assert 0 < seconds < 600
    assert counted == Counters(
        recordings=1, recorded_bytes=8, boot_bytes=8, recording_seconds=seconds
    )


def test_a_recording_that_is_dropped_is_counted(stage):
    one_guest_until(stage, lambda: stage.state is State.COLD)
    run(stage, PATIENT, lambda recorder: stage.ask(recorder, 'drop'))
    stage.on_record, stage.script = lambda: None, lambda count: 0
    builders.warm(stage.catalog, b'of one that was killed')
    run(stage)
    counted = stage.catalog.counter_store.of(KEY.image_id)
    assert counted == Counters(dropped_recordings=3, recorded_bytes=counted.recorded_bytes)


@pytest.mark.parametrize(('command', 'state'), [('seal', State.READY), ('drop', State.COLD)])
def test_what_an_operator_asks_for(stage, command, state):
    one_guest_until(stage, lambda: stage.state is state)
    run(stage, PATIENT, lambda recorder: stage.ask(recorder, command))
    assert stage.state is state
    stage.daemons[0].seal.assert_awaited_once()


def test_leave_is_for_when_no_guest_is_connected(stage):
    one_guest_until(stage, lambda: stage.counted > 5)
    run(stage, FAITHFUL, lambda recorder: stage.ask(recorder, 'leave'))
    assert stage.counted > 5
    assert stage.catalog.keys() == []


@pytest.mark.parametrize('part', ['the generation', 'the file'])
def test_a_seal_that_fails_costs_the_recording_and_no_guest(stage, part):
    stage.seal.side_effect = BROKEN
    if part == 'the generation':
        stage.seal.side_effect = AssertionError
        error = exception.FolderUnfit(path='/x', reason='EIO', remedy='z')
        settled = mock.patch.object(Generations, 'settled', autospec=True, side_effect=error)
    else:
        settled = mock.patch.object(Generations, 'settled', autospec=True)
    one_guest_until(stage, lambda: stage.state is State.COLD and stage.counted > 3)
    with settled:
        run(stage)
    (daemon,) = stage.daemons
    assert stage.catalog.keys() == []
    daemon.stop.assert_awaited_once()


@pytest.mark.parametrize('command', ['seal', 'drop'])
def test_what_a_daemon_goes_on_to_write_keeps_its_name(stage, command):
    """The space that it takes would be nobody's, and without an end."""
    failed = exception.ToolFailed(command='blockdev-reopen', code='QMP', reason='no')
    stage.on_daemon = lambda daemon: setattr(daemon.seal, 'side_effect', failed)
    seen: list[tuple] = []

    def script(count):
        if count == 2:
            stage.grow()
        seen.append((stage.state, stage.catalog.paths.recording(KEY).exists()))
        return 1 if count < 20 else 0

    stage.script = script
    run(stage, PATIENT, lambda recorder: stage.ask(recorder, command))
    (daemon,) = stage.daemons
    assert set(seen) == {(State.RECORDING, True)}
    assert stage.catalog.keys() == [], 'it goes with its daemon'
    daemon.stop.assert_awaited_once()


def end_daemon(stage, at):
    """End the newest daemon each time when ``at(count)`` is true; one guest stays for a while."""

    def script(count):
        if count == 2:
            stage.grow()
        if at(count):
            stage.daemons[-1].ended.set()
        return 1 if count < 40 else 0

    stage.script = script


def test_a_daemon_that_ends_while_it_records_is_replaced_by_a_plain_one(stage):
    end_daemon(stage, lambda count: count == 3)
    seen: list[State] = []
    stage.on_serve = lambda: seen.append(stage.state)
    run(stage, PATIENT)
    first, second = stage.daemons
    assert seen == [State.RECORDING], 'its guests wait for no disk'
    assert stage.catalog.keys() == []
    first.seal.assert_not_called()
    first.stop.assert_awaited_once()
    assert second.plays == []
    second.record.assert_not_called()
    second.stop.assert_awaited_once()


@pytest.mark.parametrize('unchanged', [True, False])
def test_a_daemon_that_ends_after_the_seal_plays_what_was_sealed(stage, unchanged):
    stage.events = 1
    ended: list[int] = []

    def at(count):
        if stage.state is State.READY and not ended:
            ended.append(count)
            return True
        return False

    end_daemon(stage, at)
    with mock.patch.object(Catalog, 'require_unchanged', autospec=True) as require:
        require.return_value = 'path'
        require.side_effect = None if unchanged else BROKEN
        run(stage, PATIENT)
    _, second = stage.daemons
    assert second.plays == (['path'] if unchanged else [])
    assert stage.state is State.READY


def test_a_daemon_that_ends_again_and_again(stage):
    end_daemon(stage, lambda count: True)
    with pytest.raises(exception.RecorderFailed, match='ended 4 times'):
        run(stage, PATIENT)
    assert len(stage.daemons) == 4
    stage.daemons[-1].leave.assert_awaited_once()


def test_a_guest_that_is_paused_finds_its_recorder_when_it_goes_on(stage):
    """It has no connection from the death of its daemon on, and the grace is short."""
    came: list[int] = []

    def script(count):
        if count == 3:
            stage.daemons[-1].ended.set()
        if count in (200, 201):
            came.append(count)
        return 1 if count < 3 or count in (200, 201) else 0

    stage.script = script
    run(stage, PATIENT)
    assert came == [200, 201]


def failure(node, sector, count):
    return {'node-name': node, 'sector-num': sector, 'sectors-count': count}


@pytest.fixture
def readable():
    """What the base gives: nothing, unless a test says otherwise."""
    with mock.patch.object(QemuIo, 'readable', autospec=True, side_effect=gives()) as made:
        yield made


def gives(*offsets):
    return lambda tool, image, blocks, seconds: {at: at in offsets for at, _ in blocks}


def test_what_cannot_be_read_is_refused_and_nothing_else(stage, readable):
    stage.failures = [
        failure('mute', 0, 8),  # says so of each question for zeros
        failure(block_graph.SECOND_BASE, 15, 10),
        {'node-name': block_graph.SECOND_BASE, 'sector-num': 'x'},
    ]
    readable.side_effect = gives(16 * 512)
    said: list[int] = []

    def prepare(recorder):
        def script(count):
            said.append(recorder._unreadable.count)
            return 1 if count < 20 or not said[-1] else 0

        stage.script = script

    run(stage, PATIENT, prepare)
    (daemon,) = stage.daemons
    blocks = [(15 * 512, 512), (16 * 512, 4096), (24 * 512, 512)]
    assert readable.call_args_list[0].args[2] == blocks
    assert daemon.refuse.await_args.args[0] == {15, 24}
    assert said[-1] == 2


class Cached:
    """Cache files that daemons have open, and a base that gives nothing.

    :param extents: of each file
    :param bad: offsets that the disk below them has lost
    :param given: offsets that the base gives all the same
    """

    def __init__(self, stage, folder, *extents, bad=(), given=()):
        self._extents, self._bad, self._given = extents, bad, given
        self._path = folder / 'cache'
        self._path.touch()
        self.errors: dict[str, Exception] = {}
        """By what fails: a method of the daemon or of qemu-img."""
        stage.on_daemon = self.open

    def open(self, daemon):
        daemon.cache_files.side_effect = lambda: [self._path.open('rb') for _ in self._extents]
        self._fail(daemon, 'write_tables', 'cache_files')

    def _fail(self, double, *names):
        for name in {*names} & {*self.errors}:
            getattr(double, name).side_effect = self.errors[name]

    def prepare(self, recorder):
        tool = recorder._unreadable._qemu_img
        tool.cached_extents.side_effect = itertools.cycle(self._extents)
        self._fail(tool, 'cached_extents')

    def readable(self, tool, image, blocks, seconds):
        is_cache = image['driver'] == 'qcow2'
        assert not is_cache or pathlib.Path(image['file']['filename']).exists()
        if is_cache:
            return {at: at not in self._bad for at, _ in blocks}
        return {at: at in self._given for at, _ in blocks}


def refused(stage, readable, cached, looks=1):
    """Return what is refused after a failed read of the sectors from 8 to 31, and some looks."""
    stage.failures = [failure(block_graph.SECOND_BASE, 8, 24)]
    readable.side_effect = cached.readable
    one_guest_until(stage, lambda: stage.daemons[0].refuse.await_count > looks)
    run(stage, PATIENT, cached.prepare)
    return set(stage.daemons[0].refuse.await_args.args[0])


def test_what_is_cached_is_not_refused(stage, readable, tmp_path):
    """The second block is in two extents, and the third in one, but for its end."""
    cached = Cached(stage, tmp_path, [(0, 512), (4096, 6144), (10240, 5632), (16384, 4096)])
    assert refused(stage, readable, cached) == set(range(24, 32))
    stage.daemons[0].write_tables.assert_awaited_once_with()


def test_what_a_cache_does_not_give_either_is_refused(stage, readable, tmp_path):
    cached = Cached(stage, tmp_path, [(0, 1 << 20)], bad=[8192])
    assert refused(stage, readable, cached) == set(range(16, 24))


def test_a_read_that_fails_though_each_of_its_blocks_can_be_read(stage, readable, tmp_path):
    """Beside what is cached and lost there is a cluster that cannot be copied as a whole."""
    cached = Cached(stage, tmp_path, [(0, 12288)], given=[12288])
    assert refused(stage, readable, cached) == set(range(8, 24))


def test_what_the_base_gives_is_never_refused(stage, readable, tmp_path):
    cached = Cached(stage, tmp_path, [(8192, 4096)], given=[12288])
    assert refused(stage, readable, cached) == set(range(8, 16))


def test_where_two_caches_are_open_both_must_have_it(stage, readable, tmp_path):
    cached = Cached(stage, tmp_path, [(0, 1 << 20)], [(4096, 4096)])
    assert refused(stage, readable, cached) == set(range(16, 32))


@pytest.mark.parametrize('what', ['write_tables', 'cache_files', 'cached_extents'])
def test_where_nobody_can_tell_what_is_cached(stage, readable, tmp_path, what, caplog):
    cached = Cached(stage, tmp_path, [(0, 1 << 20)])
    error = exception.ToolFailed(command='x', code=1, reason='so it is')
    cached.errors[what] = OSError('so it is') if what == 'cache_files' else error
    assert refused(stage, readable, cached) == set(range(8, 32))
    assert 'so it is; guests get an I/O error also for cached blocks' in caplog.text


def test_what_is_refused_and_found_in_the_cache_later(stage, readable, tmp_path):
    """No guest waits for each of these looks."""
    cached = Cached(stage, tmp_path, [], [(4096, 4096)], [(4096, 8192)])
    stage.on_daemon = lambda daemon: setattr(
        daemon.cache_files, 'side_effect', lambda: [(tmp_path / 'cache').open('rb')]
    )
    with mock.patch.object(unreadable, '_AGAIN_SECONDS', (0.1, 0.1)):
        assert refused(stage, readable, cached, looks=3) == set(range(24, 32))
    stage.daemons[0].write_tables.assert_awaited_once_with()


def test_what_is_asked_for_until_the_daemon_is_told_is_looked_at_once(stage, readable, tmp_path):
    """A guest that is cut off asks a thousand times for a read that is cached in part."""
    cached = Cached(stage, tmp_path, [(4096, 4096)])
    readable.side_effect = cached.readable
    stage.failures = [failure(block_graph.SECOND_BASE, 8, 24)]

    def prepare(recorder):
        cached.prepare(recorder)
        again = [{4096: 4096}]

        def tell(sectors):
            if sectors and again:
                recorder._unreadable._queue(again.pop())

        def on_daemon(daemon):
            cached.open(daemon)
            daemon.refuse.side_effect = tell

        stage.on_daemon = on_daemon

    one_guest_until(stage, lambda: stage.daemons[0].refuse.await_count > 2)
    run(stage, PATIENT, prepare)
    stage.daemons[0].write_tables.assert_awaited_once_with()


def test_a_failure_holds_the_recorder_for_who_was_cut_off(stage, readable):
    stage.failures = [failure(block_graph.SECOND_BASE, 0, 8)]
    came: list[int] = []

    def script(count):
        if count == 200:
            came.append(count)
        return 1 if count < 3 or count == 200 else 0

    stage.script = script
    run(stage, PATIENT)
    assert came == [200]


def test_what_can_be_read_again_is_refused_no_more(stage, readable, caplog):
    stage.failures = [failure(block_graph.SECOND_BASE, 0, 8)]
    readable.side_effect = [{0: False}, {0: False}, {0: True}]
    counts: list[int] = []
    told: list[tuple[set[int], int]] = []

    def prepare(recorder):
        def script(count):
            counts.append(recorder._unreadable.count)
            return 0 if readable.call_count >= 3 and not counts[-1] else 1

        def tell(sectors):
            told.append((set(sectors), recorder._unreadable.count))

        stage.script = script
        stage.on_daemon = lambda daemon: setattr(daemon.refuse, 'side_effect', tell)

    with mock.patch.object(unreadable, '_AGAIN_SECONDS', (0.1, 60)):
        run(stage, PATIENT, prepare)
    assert 1 in counts
    assert told[-1] == (set(), 1), 'until its daemon knows, guests get errors'
    assert [
        record.message.split(':')[0] for record in caplog.records if 'read' in record.message
    ] == [
        f'The base of image {KEY.image_id} cannot be read at offset 0; guests get an I/O error'
        " there, as without a cache. See to the storage of 'memory",
        f'The base of image {KEY.image_id} can be read again',
    ]


@pytest.mark.parametrize('what', ['the base', 'the daemon'])
def test_a_base_of_which_nothing_can_be_told(stage, readable, what, caplog, monkeypatch):
    """Whoever asks for it again gets an error, and is not cut off without end."""
    stage.failures = [failure(block_graph.SECOND_BASE, 0, 8)]
    error = exception.InvalidBase(base='x', reason='Reading', remedy='x')
    if what == 'the base':
        monkeypatch.setattr(builders.MemorySource, 'learn', mock.Mock(side_effect=error))
    else:
        stage.on_daemon = lambda daemon: setattr(daemon.refuse, 'side_effect', error)
    one_guest_until(stage, lambda: stage.state is State.READY)
    run(stage)
    assert stage.state is State.READY
    assert 'Reading' in caplog.text
    assert stage.daemons[0].refuse.await_args.args[0] == set(range(8)), 'until it can be told'


def test_the_oldest_of_too_many_are_forgotten(stage, readable):
    stage.failures = [failure(block_graph.SECOND_BASE, 8 * at, 8) for at in range(3)]
    one_guest_until(stage, lambda: readable.call_count >= 2)
    with mock.patch.object(unreadable, '_MOST_BLOCKS', 2):
        run(stage, PATIENT)
    assert stage.daemons[0].refuse.await_args.args[0] == set(range(8, 24))


def test_a_daemon_is_told_of_no_more_than_it_takes_in_a_moment(stage, readable):
    """qemu takes 55 s for 16384 sectors, and serves nobody meanwhile."""
    stage.failures = [failure(block_graph.SECOND_BASE, 0, 8 * 1000)]
    one_guest_until(stage, lambda: readable.call_count >= 8)
    run(stage, PATIENT)
    told = [len(call.args[0]) for call in stage.daemons[0].refuse.await_args_list]
    assert max(told) == 1024


def test_reads_that_fail_together_are_looked_at_together(stage, readable):
    """Guests that were cut off ask again a thousand times in the time of one look."""
    stage.failures = [failure(block_graph.SECOND_BASE, 8 * (at % 3), 8) for at in range(1000)]
    one_guest_until(stage, lambda: readable.called)
    run(stage, PATIENT)
    assert [call.args[2] for call in readable.call_args_list] == [
        [(0, 4096), (4096, 4096), (8192, 4096)]
    ]


def test_what_was_not_looked_at_in_time_is_looked_at_next(stage, readable):
    """A block that hangs says nothing of those after it."""
    stage.failures = [failure(block_graph.SECOND_BASE, 0, 24)]
    readable.side_effect = [{0: True, 4096: False}, {8192: True}]
    one_guest_until(stage, lambda: readable.call_count >= 2)
    run(stage, PATIENT)
    assert readable.call_args_list[1].args[2] == [(8192, 4096)]
    assert stage.daemons[0].refuse.await_args.args[0] == set(range(8, 16))


def test_what_guests_wait_for_is_looked_at_first(stage, readable):
    stage.failures = [failure(block_graph.SECOND_BASE, 0, 8)]
    one_guest_until(stage, lambda: readable.called)

    def prepare(recorder):
        recorder._unreadable._blocks = {4096: 4096}
        recorder._unreadable._asked = {4096: 4096}

    run(stage, PATIENT, prepare)
    assert readable.call_args.args[2] == [(0, 4096), (4096, 4096)]


def test_nothing_is_refused_because_nobody_can_look(stage, readable, caplog):
    stage.failures = [failure(block_graph.SECOND_BASE, 0, 8)] * 3
    readable.side_effect = exception.ToolMissing(
        tool='qemu-io', reason='gone', package='x', option='qemu_io'
    )
    one_guest_until(stage, lambda: readable.called)
    run(stage, PATIENT)
    assert not any(call.args[0] for call in stage.daemons[0].refuse.await_args_list)
    assert 'a guest that reads an unreadable block is disconnected' in caplog.text


def test_a_base_is_looked_at_as_its_daemon_reads_it(stage, readable, monkeypatch):
    """A recorder that took over a daemon has learned nothing of the base yet."""
    learn = mock.Mock()
    monkeypatch.setattr(builders.MemorySource, 'learn', learn)
    stage.failures = [failure(block_graph.SECOND_BASE, 0, 8)]
    one_guest_until(stage, lambda: readable.called)
    run(stage, PATIENT)
    learn.assert_called_once_with()


def test_a_base_that_hangs_says_nothing_of_all_its_blocks(stage, readable, monkeypatch):
    learn = mock.Mock(side_effect=[TimeoutError(), None])
    monkeypatch.setattr(builders.MemorySource, 'learn', learn)
    stage.failures = [failure(block_graph.SECOND_BASE, 0, 16)]
    readable.side_effect = gives(4096)
    one_guest_until(stage, lambda: readable.called)
    run(stage, PATIENT)
    assert stage.daemons[0].refuse.await_args.args[0] == set(range(8))


def test_a_fault_in_a_look_is_not_the_last_one(stage, readable, caplog):
    stage.failures = [failure(block_graph.SECOND_BASE, 0, 8)]
    stage.on_daemon = lambda daemon: setattr(
        daemon.refuse, 'side_effect', [RuntimeError('a fault of ours'), *[None] * 100]
    )
    one_guest_until(stage, lambda: readable.called)
    with mock.patch.object(unreadable, '_AGAIN_SECONDS', (0.1, 0.1)):
        run(stage, PATIENT)
    assert 'Failed to look at unreadable blocks' in caplog.text
    assert stage.daemons[0].refuse.await_args.args[0] == set(range(8))


def test_a_new_daemon_refuses_the_same(stage, readable):
    stage.failures = [failure(block_graph.SECOND_BASE, 0, 8)]

    def script(count):
        if readable.called and len(stage.daemons) == 1 and count > 5:
            stage.failures = []
            stage.daemons[0].ended.set()
        return 1 if count < 20 else 0

    stage.script = script
    run(stage, PATIENT)
    assert stage.daemons[1].refuse.await_args.args[0] == set(range(8))


def test_daemons_that_serve_for_a_while_are_replaced_without_end(stage):
    end_daemon(stage, lambda count: count % 5 == 0 and count < 40)
    with mock.patch.object(service, '_STEADY_SECONDS', 0.005):
        run(stage, PATIENT)
    assert len(stage.daemons) > 5


def test_a_daemon_that_ends_while_its_cache_is_sealed(stage):
    """A check, a digest and a sync take long on a busy disk: its guests do not wait for them."""
    stage.events = 1
    sealed = stage.seal.side_effect
    served: list[list] = []

    async def seal(*arguments):
        stage.daemons[0].ended.set()
        while len(stage.daemons) == 1:
            await asyncio.sleep(0.001)
        served.append(stage.daemons[1].plays)
        return sealed(*arguments)

    stage.seal.side_effect = seal
    one_guest_until(stage, lambda: stage.state is State.READY)
    run(stage, PATIENT)
    assert served == [[]], 'the base, since nothing is READY yet'
    assert stage.state is State.READY
    stage.daemons[1].stop.assert_awaited_once()


@pytest.mark.parametrize('guests', [0, 1])
def test_told_to_end(stage, guests):
    stage.script = lambda count: guests
    run(stage, PATIENT, lambda recorder: recorder._told())
    (daemon,) = stage.daemons
    if guests:
        daemon.leave.assert_awaited_once()
        daemon.stop.assert_not_called()
        assert stage.state is State.RECORDING, 'the next recorder goes on'
    else:
        daemon.stop.assert_awaited_once()
        assert stage.catalog.keys() == []


@pytest.mark.parametrize('step', ['open', 'record'])
def test_a_start_that_fails_leaves_nothing(stage, step):
    failed = exception.NoReservation(path='/x', reason='full', remedy='y')
    if step == 'record':
        stage.on_daemon = lambda daemon: setattr(daemon.record, 'side_effect', failed)
    else:
        stage.open_recording.side_effect = failed
    with pytest.raises(exception.NoReservation):
        run(stage)
    stage.daemons[0].stop.assert_awaited_once()
    assert stage.catalog.keys() == []
    with locks.recorder(stage.catalog.paths.locks, KEY):
        pass


def test_a_dirty_recording_is_thrown_away(stage):
    builders.warm(stage.catalog, b'dirty')
    run(stage)
    stage.open_recording.assert_called_once()
    assert stage.catalog.keys() == []


def test_a_sealed_cache_is_not_recorded_over(stage):
    before = builders.ready(stage.catalog)
    with pytest.raises(exception.WrongState):
        run(stage)
    assert stage.catalog.load(KEY) == before
    assert stage.daemons == []


def test_one_recorder_at_a_time(stage):
    with locks.recorder(stage.catalog.paths.locks, KEY), pytest.raises(exception.RecorderBusy):
        run(stage)
    stage.daemon_class.adopt.assert_not_called()


def test_a_run_path_that_is_too_long(stage, tmp_path):
    long = Paths(stage.catalog.paths.cache_path, tmp_path / ('r' * 100))
    stage.catalog = Catalog(long, 1)
    with pytest.raises(exception.SocketPathTooLong):
        run(stage)
    stage.daemon_class.adopt.assert_not_called()


def test_a_recording_of_a_second_revision_is_no_audit(stage):
    """The first one is damaged, and has guests."""
    stage.catalog.retire(builders.ready(stage.catalog), 'damaged', Staleness.DAMAGED)
    stage.key = KEY.next_revision()
    one_guest_until(stage, lambda: stage.state is not State.RECORDING)
    run(stage)
    assert stage.catalog.load(stage.key).state is State.READY
    assert stage.catalog.counter_store.of(KEY.image_id).recordings == 1
