# SPDX-License-Identifier: Apache-2.0
"""Audits: what they measure, what becomes of their copy, and that the audited cache stays."""

import dataclasses
import os
import pathlib
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache.leases import Leases
from nova_qcache.cache.space import SpaceUsage
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from nova_qcache.qemu import block_graph
from nova_qcache.recorder import audit
from nova_qcache.recorder import quota
from nova_qcache.recorder.audit import Measurement
from nova_qcache.recorder.audit import ReadCounter
from nova_qcache.stats.counters import Counters
from nova_qcache.system import processes
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

AUDIT = KEY.next_revision()
GROWTH = len(b'recorded')


@pytest.mark.parametrize(
    ('read', 'missed', 'percent', 'above'),
    [
        (1000, 100, 10, False),
        (1000, 101, 10, True),
        (1000, 0, 0, False),
        (1000, 1, 0, True),
        (0, 0, 0, False),
        (0, 500, 0, False),
        (1000, 1000, 100, False),
        (1000, 1500, 100, False),
        (1000, 1500, 99, True),
    ],
)
def test_above(read, missed, percent, above):
    assert Measurement(read, missed, 1).is_above(percent) == above


def test_counters():
    assert Measurement(1000, 100, 3).counters() == Counters(
        audited_bytes=1000, missed_bytes=100, boot_bytes=300
    )
    assert Measurement(100, 150, 1).counters().boot_bytes == 0


@pytest.fixture
def bytes_read():
    with mock.patch.object(processes, 'bytes_read', autospec=True, return_value=5000) as mocked:
        yield mocked


@pytest.mark.parametrize(('driver', 'read'), [('file', 700), ('nbd', 900)])
def test_a_base_behind_a_socket_is_counted_by_what_it_gave(bytes_read, driver, read):
    source = builders.MemorySource()
    with mock.patch.object(builders.MemorySource, 'drivers', (driver,)):
        counter = ReadCounter(source)
    counter.begin(77)
    bytes_read.return_value = 5700
    assert counter.read() == 700
    assert counter.measure(200, 1) == Measurement(read, 200, 1)
    bytes_read.assert_called_with(77)


def test_nothing_is_measured_of_a_daemon_that_is_gone(bytes_read):
    counter = ReadCounter(builders.MemorySource())
    assert counter.measure(0, 1) is None, 'it has not begun'
    counter.begin(77)
    bytes_read.return_value = 5700
    assert counter.measure(0, 0) is None, 'nobody came'
    assert counter.read() == 700
    bytes_read.side_effect = FileNotFoundError
    assert counter.read() == 700
    assert counter.measure(0, 1) is None


# -- copies

CONTENT = b'what was sealed' * 1000


def open_copy(catalog, tool, audited, its_quota=MIB):
    return audit.open_copy(catalog, tool, builders.MemorySource(), AUDIT, audited, its_quota)


@pytest.mark.usefixtures('inspect', 'reserve')
def test_a_copy(catalog, tool, reserve):
    audited = builders.ready(catalog, CONTENT, image_hashes=('a',))
    record = open_copy(catalog, tool, audited, 2 * MIB)
    path = catalog.paths.recording(AUDIT)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    assert catalog.load(AUDIT) == record
    assert (record.state, record.sealed, record.quota) == (State.RECORDING, None, 2 * MIB)
    assert record.created_at > audited.created_at
    for name in ('base', 'base_format', 'base_identity', 'virtual_size', 'image_hashes'):
        assert getattr(record, name) == getattr(audited, name)
    reserve.assert_called_once_with(path, quota.file_limit(2 * MIB))
    assert catalog.load(KEY) == audited
    catalog.require_unchanged(audited)


@pytest.mark.usefixtures('inspect', 'reserve')
def test_space_is_reserved_before_it_is_copied_into(catalog, tool, reserve):
    sizes: list[int] = []
    reserve.side_effect = lambda path, size: sizes.append(path.stat().st_size)
    open_copy(catalog, tool, builders.ready(catalog, CONTENT))
    assert sizes == [0]


@pytest.mark.usefixtures('inspect', 'reserve')
def test_a_copy_on_a_base_of_another_size(catalog, tool, inspect):
    inspect.return_value += 512
    audited = builders.ready(catalog, CONTENT)
    with pytest.raises(exception.InvalidBase, match='its cache is of'):
        open_copy(catalog, tool, audited)
    assert catalog.keys() == [KEY]


@pytest.mark.usefixtures('inspect', 'reserve')
def test_a_cache_that_was_written_to_is_not_copied(catalog, tool):
    audited = builders.ready(catalog, CONTENT)
    catalog.paths.sealed(KEY).chmod(0o600)
    catalog.paths.sealed(KEY).write_bytes(CONTENT[:-1])
    with pytest.raises(exception.CacheBroken):
        open_copy(catalog, tool, audited)
    assert catalog.keys() == [KEY]


@pytest.mark.usefixtures('inspect', 'reserve')
def test_a_cache_that_is_damaged_is_not_copied(catalog, tool):
    """Its copy would get a digest of its own, and nobody would ever know."""
    audited = builders.ready(catalog, CONTENT)
    sealed = dataclasses.replace(audited.sealed, digest='sha256:' + '00' * 32)
    with pytest.raises(exception.CacheBroken, match='its digest differs'):
        open_copy(catalog, tool, dataclasses.replace(audited, sealed=sealed))


def test_the_audited_cache_is_the_newest_that_is_ready(catalog):
    revisions = [KEY]
    for _ in range(3):
        revisions.append(revisions[-1].next_revision())
    ready = [builders.ready(catalog, key=key) for key in revisions[:3]]
    assert audit.require_audited(catalog, revisions[3]) == ready[2]
    assert audit.require_audited(catalog, revisions[2]) == ready[1], 'not its own'
    catalog.retire(ready[2], 'x')
    assert audit.require_audited(catalog, revisions[3]) == ready[1]


def test_no_cache_is_ready_to_be_audited(catalog):
    builders.warm(catalog)
    builders.ready(catalog, key=dataclasses.replace(KEY, generation=KEY.generation.next()))
    with pytest.raises(exception.WrongState, match='no READY cache before revision 2'):
        audit.require_audited(catalog, AUDIT)


# -- with a recorder


@pytest.fixture
def audited(stage, bytes_read):
    """A READY cache; what the stage's recorder records is an audit of it."""

    def copy(catalog, tool, source, key, record, quota):
        stage.copied.append((record, quota))
        return builders.warm(catalog, b'copied', key=key, is_audit=True)

    stage.key, stage.is_audit, stage.copied = AUDIT, True, []
    with (
        mock.patch.object(audit, 'open_copy', autospec=True, side_effect=copy) as stage.open_copy,
        mock.patch.object(audit, 'PATIENCE_SECONDS', 0.1),
    ):
        yield builders.ready(stage.catalog)


def count(stage):
    return stage.catalog.counter_store.of(KEY.image_id)


def reads(bytes_read, number):
    """What the daemon has read from the next question on."""
    bytes_read.side_effect = [5000, *[5000 + number] * 1000]


def require_untouched(stage, audited):
    assert stage.catalog.load(KEY) == audited
    stage.catalog.require_unchanged(audited)
    assert stage.catalog.keys() == [KEY]


def test_a_cache_that_serves_all(stage, audited, bytes_read):
    reads(bytes_read, MIB)
    stage.script = lambda number: 1 if stage.state is State.RECORDING else 0
    run(stage, HASTY, rerecord_miss_percent=0)
    (daemon,) = stage.daemons
    require_untouched(stage, audited)
    daemon.replace.assert_awaited_once_with(stage.catalog.paths.sealed(KEY))
    daemon.seal.assert_not_called()
    stage.seal.assert_not_called()
    assert count(stage) == Counters(audited_bytes=MIB, boot_bytes=MIB)


@pytest.mark.parametrize(('percent', 'again'), [(50, False), (49, True)])
def test_a_cache_that_misses_much(stage, audited, bytes_read, percent, again):
    reads(bytes_read, GROWTH)  # from the copy; its source is behind a socket
    one_guest_until(stage, lambda: stage.state is not State.RECORDING)
    run(stage, HASTY, rerecord_miss_percent=percent)
    if not again:
        require_untouched(stage, audited)
        return
    assert stage.catalog.load(AUDIT).state is State.READY
    assert stage.catalog.load(AUDIT).sealed.reason is FinishReason.IDLE
    assert stage.catalog.load(KEY).state is State.STALE
    stage.daemons[0].replace.assert_not_called()
    assert count(stage) == Counters(
        recordings=1,
        audited_bytes=2 * GROWTH,
        missed_bytes=GROWTH,
        boot_bytes=GROWTH,
        invalidations={Staleness.REVISION.value: 1},
    )


def test_the_copy_has_the_larger_quota(stage, audited):
    run(stage)
    assert stage.copied == [(audited, 16 * MIB)]
    settings = stage.daemon_class.start.call_args.args[2]
    assert (settings.quota, settings.cluster_size) == (16 * MIB, audited.cluster_size)


def test_the_room_of_a_copy_that_is_dropped_is_free_at_once(stage, audited):
    reservations = Leases(stage.catalog.paths.reservations, 300)
    space = SpaceUsage(stage.catalog, reservations)
    of_another = AUDIT.next_revision()
    for key in (AUDIT, of_another):
        space.reserve(key, 16 * MIB)
    run(stage)
    assert [lease.key for lease in reservations.active()] == [of_another]


def test_nobody_comes(stage, audited):
    run(stage)
    require_untouched(stage, audited)
    assert count(stage) == Counters()


def test_a_claim(stage, audited):
    """Without a lease it waits, whatever the time; who has claimed it has one."""
    answers: list = []

    def prepare(recorder):
        def script(number):
            if number in (5, 15):  # the reply counts as well
                answers.append(say(recorder, 'claim')['claimed'])
            if number == 25:
                say(recorder, 'dismiss')
            return 0

        stage.script = script

    with mock.patch.object(audit, 'PATIENCE_SECONDS', 1000):
        run(stage, FAITHFUL, prepare)
    assert answers == [True, False]
    require_untouched(stage, audited)


def test_an_audit_whose_base_cannot_be_read_in_places_is_not_claimed(stage, audited):
    answers: list = []

    def prepare(recorder):
        def script(number):
            recorder._unreadable._blocks = {0: 4096}
            if number == 5:
                answers.append(say(recorder, 'claim')['claimed'])
                say(recorder, 'dismiss')
            return 0

        stage.script = script

    with mock.patch.object(audit, 'PATIENCE_SECONDS', 1000):
        run(stage, FAITHFUL, prepare)
    assert answers == [False]
    require_untouched(stage, audited)


def test_a_recording_cannot_be_claimed(stage):
    answers: list = []

    def prepare(recorder):
        stage.script = lambda number: 1 if number < 3 else 0
        stage.on_record = lambda: answers.append(say(recorder, 'claim')['claimed'])

    run(stage, PATIENT, prepare)
    assert answers == [False]


@pytest.mark.parametrize('broken', ['replaced', 'unchanged'])
def test_guests_keep_a_copy_that_cannot_be_replaced(stage, audited, bytes_read, broken):
    reads(bytes_read, MIB)

    def on_daemon(daemon):
        if broken == 'replaced':
            daemon.replace.side_effect = exception.ToolFailed(command='x', code='QMP', reason='y')

    stage.on_daemon = on_daemon
    if broken == 'unchanged':
        os.utime(stage.catalog.paths.sealed(KEY), ns=(1, 1))
    stage.script = lambda number: 1 if stage.state is State.RECORDING else 0
    run(stage, HASTY)
    stage.daemons[0].seal.assert_awaited_once()
    assert stage.catalog.load(KEY) == audited
    assert stage.catalog.keys() == [KEY]


def test_a_seal_that_fails_gives_the_guests_the_audited_cache(stage, audited, bytes_read):
    reads(bytes_read, GROWTH)
    stage.seal.side_effect = exception.CacheBroken(path='/x', reason='leaks', image_id='y')
    one_guest_until(stage, lambda: stage.state is not State.RECORDING)
    run(stage, HASTY, rerecord_miss_percent=0)
    stage.daemons[0].replace.assert_awaited_once()
    require_untouched(stage, audited)
    assert count(stage).recordings == 0


@pytest.mark.parametrize('when', ['before', 'while it is sealed'])
def test_a_cache_that_is_found_to_be_wrong_takes_its_copy_with_it(
    stage, audited, bytes_read, when
):
    reads(bytes_read, GROWTH)
    seal = stage.seal.side_effect

    def retire_and_seal(*arguments):
        stage.catalog.retire(audited, 'damaged', Staleness.DAMAGED)
        return seal(*arguments)

    if when == 'before':
        stage.on_record = lambda: stage.catalog.retire(audited, 'damaged', Staleness.DAMAGED)
    else:
        stage.seal.side_effect = retire_and_seal
    one_guest_until(stage, lambda: stage.state is not State.RECORDING)
    run(stage, HASTY, rerecord_miss_percent=0)
    assert stage.catalog.load(KEY).state is State.STALE
    assert stage.state in (State.COLD, State.STALE)
    assert (stage.state is State.COLD) == (when == 'before')


def test_a_daemon_that_ends_is_replaced_by_one_that_plays(stage, audited):
    def script(number):
        if number == 3:
            stage.daemons[0].ended.set()
        return 1 if number < 20 else 0

    stage.script = script
    run(stage, PATIENT)
    first, second = stage.daemons
    first.replace.assert_not_called()
    assert second.plays == [str(stage.catalog.paths.sealed(KEY))]
    require_untouched(stage, audited)
    assert count(stage) == Counters()


@pytest.mark.parametrize('nodes', [RECORDING, {block_graph.CACHE_FILE_NODE}, {'old'}])
def test_an_audit_whose_recorder_was_killed_measures_nothing(stage, audited, nodes):
    builders.warm(stage.catalog, b'copied and more', key=AUDIT)
    found = adopt(stage, nodes)
    run(stage, HASTY, serve_only=True)
    found[0].replace.assert_awaited_once_with(stage.catalog.paths.sealed(KEY))
    require_untouched(stage, audited)
    assert count(stage) == Counters()


def test_one_that_was_killed_when_nothing_is_left_to_audit(stage, audited):
    stage.catalog.discard(KEY)
    builders.warm(stage.catalog, b'copied and more', key=AUDIT)
    found = adopt(stage)
    run(stage, HASTY, serve_only=True)
    found[0].seal.assert_awaited_once()
    assert stage.catalog.keys() == []


@pytest.mark.parametrize('state', [State.READY, State.STALE])
def test_one_that_was_killed_right_after_the_seal(stage, audited, state):
    revision = builders.ready(stage.catalog, key=AUDIT)
    if state is State.STALE:
        stage.catalog.retire(revision, 'x')
    adopt(stage, {block_graph.CACHE_FILE_NODE})
    run(stage, HASTY, serve_only=True)
    assert stage.catalog.load(AUDIT).state is state
    before = stage.catalog.load(KEY).state
    assert before is (State.STALE if state is State.READY else State.READY)


def test_guests_of_an_audit_whose_daemon_is_dead(stage, audited):
    builders.warm(stage.catalog, b'copied and more', key=AUDIT)
    run(stage, HASTY, serve_only=True)
    assert stage.daemons[0].plays == []
    require_untouched(stage, audited)
    assert count(stage) == Counters()


@pytest.mark.parametrize('step', ['copy', 'count'])
def test_a_start_that_fails(stage, audited, bytes_read, step):
    if step == 'copy':
        stage.open_copy.side_effect = exception.NoReservation(path='x', reason='y', remedy='z')
    else:
        bytes_read.side_effect = PermissionError
    with pytest.raises((exception.NoReservation, PermissionError)):
        run(stage)
    stage.daemons[0].stop.assert_awaited_once()
    require_untouched(stage, audited)


def test_nothing_to_audit(stage, bytes_read):
    stage.key, stage.is_audit = AUDIT, True
    with pytest.raises(exception.WrongState):
        run(stage)
    assert stage.daemons == []
    assert not pathlib.Path(stage.catalog.paths.recording(AUDIT)).exists()
