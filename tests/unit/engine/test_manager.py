# SPDX-License-Identifier: Apache-2.0
"""What operators ask of a manager: caches, seal, invalidate, remove, verify."""

import time
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.bases.generation import Generations
from nova_qcache.cache import cleanup
from nova_qcache.cache import view
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.leases import Leases
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.model.states import Phase
from nova_qcache.model.states import State
from nova_qcache.stats.counters import Counters
from nova_qcache.system import files
from nova_qcache.system import locks
from nova_qcache.system import processes
from tests.unit import builders
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import NOT_IMAGE_IDS
from tests.unit.builders import OTHER_IMAGE

OTHER = CacheKey(OTHER_IMAGE, GENERATION)
# Epochs are random: this one sorts before the other and is newer.
NEWER = CacheKey(IMAGE, Generation('000000000000', 1))
UNREACHABLE = exception.RecorderUnreachable(path='/x', reason='nobody')


@pytest.fixture
def at_work(recorder):
    """A recorder that answers everything."""
    for verb in (recorder.status, recorder.drop, recorder.seal, recorder.leave, recorder.dismiss):
        verb.side_effect = None
        verb.return_value = builders.status()
    return recorder


@pytest.fixture
def served():
    """The caches that processes of ours work for."""
    with mock.patch.object(view, 'served', autospec=True, return_value=set()) as made:
        yield made


@pytest.fixture
def raised():
    with mock.patch.object(Generations, 'raise_before_write', autospec=True) as made:
        yield made


@pytest.fixture
def no_sleep():
    with mock.patch.object(time, 'sleep', autospec=True) as made:
        yield made


def stale(catalog):
    catalog.retire(builders.ready(catalog), 'damaged')


def says(*phases, guests=0):
    return [
        phase if isinstance(phase, Exception) else builders.status(phase, guests=guests)
        for phase in phases
    ]


class TestCaches:
    def test_none(self, manager):
        assert manager.caches() == []
        assert manager.caches(IMAGE) == []

    def test_the_newest_of_an_image_is_last(self, manager, catalog):
        builders.ready(catalog, key=KEY, created_at=1.0)
        builders.ready(catalog, key=NEWER, created_at=2.0)
        builders.ready(catalog, key=OTHER, created_at=3.0)
        assert [view.key for view in manager.caches()] == [OTHER, KEY, NEWER]
        assert [view.key for view in manager.caches(IMAGE.upper())] == [KEY, NEWER]

    def test_what_serves_guests_of_a_cache_that_is_gone(self, manager, catalog, served, at_work):
        builders.ready(catalog)
        served.return_value = {NEWER, OTHER}
        at_work.status.return_value = builders.status(Phase.SERVING, guests=1)
        assert [view.key for view in manager.caches()] == [OTHER, NEWER, KEY]
        assert [(view.key, view.state) for view in manager.caches(IMAGE)] == [
            (NEWER, 'COLD'),
            (KEY, 'READY'),
        ]

    @pytest.mark.parametrize('image_id', NOT_IMAGE_IDS.values(), ids=NOT_IMAGE_IDS)
    def test_no_image_id(self, manager, image_id):
        with pytest.raises(exception.InvalidImageId):
            manager.caches(image_id)


class TestSeal:
    def test_it_is_asked_for(self, manager, catalog, at_work):
        builders.warm(catalog)
        view = manager.seal(IMAGE)
        at_work.seal.assert_called_once_with()
        assert (view.key, view.state) == (KEY, 'RECORDING')

    def test_it_is_waited_for(self, manager, catalog, at_work, no_sleep):
        warm = builders.warm(catalog)
        answers = iter(says(Phase.RECORDING, Phase.RECORDING, Phase.SEALING, Phase.SERVING))

        def status():
            answer = next(answers, builders.status(Phase.SERVING))
            if answer.phase is Phase.SERVING and catalog.load(KEY).state is State.RECORDING:
                catalog.seal(warm, builders.sealed())
            return answer

        at_work.status.side_effect = status
        assert manager.seal(IMAGE, wait_seconds=60).state == 'READY'

    def test_a_recorder_that_leaves_after_it(self, manager, catalog, at_work, no_sleep):
        warm = builders.warm(catalog)
        at_work.seal.side_effect = lambda: catalog.seal(warm, builders.sealed())
        at_work.status.side_effect = [builders.status(), UNREACHABLE, UNREACHABLE]
        assert manager.seal(IMAGE, wait_seconds=60).state == 'READY'

    @pytest.mark.parametrize('ended', ['dead', 'dropped'])
    def test_a_recorder_that_ends_without_it(self, manager, catalog, at_work, no_sleep, ended):
        warm = builders.warm(catalog)
        dropped = builders.status(Phase.SERVING, note='sealing failed: leaks')
        answers = {
            'dead': [builders.status(), builders.status(), UNREACHABLE],
            'dropped': [builders.status(), builders.status(Phase.SEALING), dropped],
        }
        at_work.status.side_effect = answers[ended]
        if ended == 'dropped':
            at_work.seal.side_effect = lambda: catalog.discard_recording(warm.key)
        with pytest.raises(exception.NotSealed) as caught:
            manager.seal(IMAGE, wait_seconds=60)
        said = {'dead': 'No recorder answers', 'dropped': 'sealing failed: leaks'}[ended]
        assert f'The cache of image {IMAGE} was not sealed: {said}' in str(caught.value)

    def test_a_recorder_that_is_slow_to_answer(self, manager, catalog, at_work, no_sleep):
        warm = builders.warm(catalog)
        waits = [UNREACHABLE] * 2
        answers = iter(says(Phase.RECORDING, *waits, Phase.SERVING, Phase.SERVING))

        def status():
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            if answer.phase is Phase.SERVING and catalog.load(KEY).state is State.RECORDING:
                catalog.seal(warm, builders.sealed())
            return answer

        at_work.status.side_effect = status
        with mock.patch.object(processes, 'listener_pid', autospec=True, return_value=1):
            assert manager.seal(IMAGE, wait_seconds=60).state == 'READY'

    def test_it_takes_too_long(self, manager, catalog, at_work, no_sleep):
        builders.warm(catalog)
        at_work.status.return_value = builders.status(Phase.SEALING)
        with pytest.raises(exception.DeadlinePassed) as caught:
            manager.seal(IMAGE, wait_seconds=1e-9)
        assert f'Sealing the cache of image {IMAGE} took longer' in str(caught.value)
        assert 'see `nova-qcache list`' in str(caught.value)

    def test_nothing_to_seal(self, manager, at_work):
        with pytest.raises(exception.CacheNotFound) as caught:
            manager.seal(IMAGE)
        assert f'This host has no cache of image {IMAGE}' in str(caught.value)
        at_work.seal.assert_not_called()

    @pytest.mark.parametrize('seconds', [0, 60])
    def test_what_is_sealed_already(self, manager, catalog, at_work, seconds):
        builders.ready(catalog)
        view = manager.seal(IMAGE, wait_seconds=seconds)
        assert (view.key, view.state) == (KEY, 'READY')
        at_work.seal.assert_not_called()

    def test_a_cache_that_is_no_recording(self, manager, catalog, at_work):
        stale(catalog)
        with pytest.raises(exception.CacheNotReady) as caught:
            manager.seal(IMAGE)
        said = f'The cache of image {IMAGE} is STALE: nothing is being recorded. The next boot'
        assert str(caught.value).startswith(said)

    def test_a_recorder_that_only_serves(self, manager, served, at_work):
        served.return_value = {KEY}
        at_work.status.return_value = builders.status(Phase.SERVING, guests=1)
        with pytest.raises(exception.CacheNotReady) as caught:
            manager.seal(IMAGE)
        assert str(caught.value) == (
            f'The cache of image {IMAGE} is COLD (only processes are left, which serve its '
            'guests): nothing is being recorded. The next boot records it again.'
        )
        at_work.seal.assert_not_called()

    def test_a_recording_beside_a_cache(self, manager, catalog, at_work):
        builders.ready(catalog)
        builders.warm(catalog, key=NEWER, created_at=1.0)
        assert manager.seal(IMAGE).key == NEWER
        at_work.seal.assert_called_once_with()

    def test_nobody_to_ask(self, manager, catalog):
        builders.warm(catalog)
        with pytest.raises(exception.RecorderUnreachable):
            manager.seal(IMAGE)


class TestInvalidate:
    def test_a_ready_cache(self, manager, catalog, find_source, source, raised):
        builders.ready(catalog)
        assert manager.invalidate(IMAGE) == [KEY]
        assert catalog.load(KEY).stale_reason == 'invalidated by an operator'
        raised.assert_called_once_with(mock.ANY, source)
        find_source.assert_called_with('/base/image', 'raw', reconnect_seconds=300)

    def test_the_generation_rises_first(self, manager, catalog, raised):
        builders.ready(catalog)
        raised.side_effect = exception.FolderUnfit(path='x', reason='y', remedy='z')
        with pytest.raises(exception.FolderUnfit):
            manager.invalidate(IMAGE)
        assert catalog.load(KEY).state is State.READY

    def test_every_base_of_the_image(self, manager, catalog, find_source, raised):
        builders.ready(catalog, base='/one')
        builders.ready(catalog, key=NEWER, base='/two')
        manager.invalidate(IMAGE, '/three', 'qcow2')
        asked = [call.args for call in find_source.call_args_list]
        assert asked[0] == ('/three', 'qcow2'), 'it is looked for first'
        assert asked[1:] == [('/one', 'raw'), ('/three', 'qcow2'), ('/two', 'raw')]
        assert raised.call_count == 3

    def test_a_base_without_a_cache(self, manager, raised):
        assert manager.invalidate(IMAGE, '/base') == []
        raised.assert_called_once()

    def test_a_base_that_is_not_there(self, manager, catalog, raised):
        builders.ready(catalog)
        unfit = exception.InvalidBase(base='x', reason='No such file', remedy='Give one')
        with (
            mock.patch.object(builders.MemorySource, 'identity', autospec=True, side_effect=unfit),
            pytest.raises(exception.InvalidBase),
        ):
            manager.invalidate(IMAGE, '/nonexistent')
        raised.assert_not_called()
        assert catalog.load(KEY).state is State.READY

    def test_neither_cache_nor_base(self, manager, raised):
        with pytest.raises(exception.CacheNotFound):
            manager.invalidate(IMAGE)
        raised.assert_not_called()

    def test_a_recording_is_dropped(self, manager, catalog, at_work, raised):
        builders.warm(catalog)
        assert manager.invalidate(IMAGE) == [KEY]
        at_work.drop.assert_called_once_with()
        assert catalog.load(KEY).state is State.RECORDING, 'its recorder forgets it'

    def test_a_recorder_that_has_just_left(self, manager, catalog, recorder, raised):
        builders.ready(catalog)
        recorder.status.side_effect = None
        recorder.status.return_value = builders.status(Phase.SERVING)
        manager.invalidate(IMAGE)
        assert catalog.load(KEY).state is State.STALE

    def test_what_serves_guests_of_a_cache_that_is_gone(
        self, manager, catalog, served, at_work, raised
    ):
        served.return_value = {KEY}
        with pytest.raises(exception.CacheNotFound):
            manager.invalidate(IMAGE)
        raised.assert_not_called()

    def test_a_broken_record_is_no_hindrance(self, manager, catalog, raised):
        builders.ready(catalog)
        catalog.paths.record(NEWER).write_bytes(b'nonsense')
        assert set(manager.invalidate(IMAGE)) == {KEY, NEWER}
        assert catalog.load(KEY).state is State.STALE


class TestRemove:
    @pytest.mark.parametrize('there', [builders.warm, builders.ready])
    def test_all_of_an_image(self, manager, catalog, there):
        there(catalog)
        there(catalog, key=NEWER)
        other = there(catalog, key=OTHER)
        assert set(manager.remove(IMAGE)) == {KEY, NEWER}
        assert catalog.keys() == [OTHER]
        assert catalog.load(OTHER) == other

    def test_broken_files(self, manager, catalog):
        catalog.paths.record(KEY).write_bytes(b'nonsense')
        catalog.paths.recording(NEWER).write_bytes(b'lost')
        manager.remove(IMAGE)
        assert catalog.keys() == []

    def test_nothing(self, manager):
        with pytest.raises(exception.CacheNotFound):
            manager.remove(IMAGE)

    def test_the_recorder_of_a_cache_that_is_gone(self, manager, served, at_work, no_sleep):
        served.return_value = {KEY}
        at_work.status.side_effect = says(Phase.SERVING, Phase.LEAVING, UNREACHABLE)
        assert manager.remove(IMAGE) == [KEY]
        at_work.leave.assert_called_once_with()

    def test_the_daemon_of_a_recorder_that_has_died(self, manager, catalog, served):
        builders.warm(catalog)
        served.return_value = {NEWER}
        with mock.patch.object(cleanup, 'end_daemon', autospec=True) as end:
            assert set(manager.remove(IMAGE)) == {KEY, NEWER}
        assert {call.args[1] for call in end.call_args_list} == {KEY, NEWER}

    def test_guests_of_a_recorder_keep_everything(self, manager, catalog, at_work):
        builders.ready(catalog)
        builders.ready(catalog, key=NEWER)
        at_work.status.side_effect = says(Phase.SERVING, Phase.SERVING, guests=2)
        with pytest.raises(exception.CacheInUse, match='2 guests read through its recorder'):
            manager.remove(IMAGE)
        assert len(catalog.keys()) == 2
        at_work.leave.assert_not_called()

    def test_guests_of_the_file_keep_it(self, manager, catalog):
        builders.ready(catalog)
        with (
            mock.patch.object(files, 'used_by_qemu', autospec=True, return_value=True),
            pytest.raises(exception.CacheInUse, match='a process of qemu has it open'),
        ):
            manager.remove(IMAGE)
        assert catalog.keys() == [KEY]

    @pytest.mark.parametrize('guests', [0, 2])
    def test_force(self, manager, catalog, at_work, guests):
        builders.ready(catalog)
        at_work.status.side_effect = [*says(Phase.SERVING, guests=guests), UNREACHABLE]
        assert manager.remove(IMAGE, force=True) == [KEY]
        assert catalog.keys() == []
        at_work.dismiss.assert_called_once_with()

    def test_a_recorder_without_guests_is_sent_away(self, manager, catalog, at_work, no_sleep):
        builders.warm(catalog)
        at_work.status.side_effect = says(
            Phase.RECORDING, Phase.SEALING, Phase.SERVING, Phase.LEAVING, UNREACHABLE
        )
        manager.remove(IMAGE)
        at_work.drop.assert_called_once_with()
        at_work.leave.assert_called_once_with()
        at_work.dismiss.assert_not_called()
        assert at_work.status.call_count == 5
        assert catalog.keys() == []

    def test_its_daemon_ends_after_it(self, manager, catalog, paths, at_work, no_sleep):
        """Until then the file is open, whether or not its record can be read."""
        builders.warm(catalog)
        paths.record(KEY).write_bytes(b'')
        at_work.status.side_effect = [builders.status(), *[UNREACHABLE] * 3]
        with mock.patch.object(processes, 'listener_pid', autospec=True) as listener:
            listener.side_effect = [1235, 1235, None]
            manager.remove(IMAGE)
        listener.assert_called_with(paths.nbd_socket(KEY))
        assert catalog.keys() == []

    def test_a_boot_that_comes_meanwhile_keeps_its_recorder(
        self, manager, catalog, paths, at_work, no_sleep
    ):
        builders.warm(catalog)
        at_work.leave.side_effect = lambda: Leases(paths.leases, 300).take('boot', KEY)
        with pytest.raises(exception.CacheInUse, match='the boot of boot'):
            manager.remove(IMAGE)
        assert catalog.keys() == [KEY]

    def test_a_recorder_with_guests_serves_them_on(self, manager, catalog, at_work, no_sleep):
        builders.warm(catalog)
        at_work.status.side_effect = says(Phase.RECORDING, Phase.SEALING, Phase.SERVING, guests=1)
        manager.remove(IMAGE, force=True)
        assert catalog.keys() == []

    def test_a_recorder_that_leaves_by_itself_meanwhile(self, manager, catalog, at_work):
        builders.warm(catalog)
        at_work.drop.side_effect = UNREACHABLE
        at_work.status.side_effect = [builders.status(), UNREACHABLE]
        manager.remove(IMAGE)
        assert catalog.keys() == []


class TestSweep:
    def test_what_nobody_fills(self, manager, catalog, paths, leased_and_ended):
        builders.warm(catalog)
        before = builders.ready(catalog, key=OTHER)
        assert manager.clean_up() == []  # a boot that is on its way may need it
        Leases(paths.leases, 300).release('lasting')
        assert manager.clean_up() == [KEY]
        assert catalog.keys() == [OTHER]
        assert catalog.load(OTHER) == before
        assert leased_and_ended() == []
        assert manager.clean_up() == []

    def test_a_lock_that_somebody_holds(self, conf, manager, catalog, paths):
        builders.warm(catalog)
        manager._catalog = Catalog(paths, 0)
        with (
            locks.image(paths.locks, IMAGE, 0),
            pytest.raises(exception.LockTimeout, match=f'image-{IMAGE}'),
        ):
            manager.clean_up()
        assert catalog.load(KEY).state is State.RECORDING
        assert manager.clean_up() == [KEY]

    @pytest.fixture
    def leased_and_ended(self, paths):
        Leases(paths.leases, 300).take('lasting', KEY)
        Leases(paths.leases, -1).take('ended', KEY)
        return lambda: [path.name.partition('.')[0] for path in paths.leases.iterdir()]


class TestVerify:
    def test_every_ready_cache(self, manager, catalog, verifier, source):
        record = builders.ready(catalog)
        newer = builders.ready(catalog, key=NEWER, created_at=2e9)
        found = list(manager.verify(IMAGE))
        assert found == [verifier.verify.return_value] * 2
        asked = [call.args[:2] for call in verifier.verify.call_args_list]
        assert asked == [(record, source), (newer, source)]

    def test_others_are_passed_over(self, manager, catalog, verifier):
        catalog.retire(builders.ready(catalog), 'old')
        record = builders.ready(catalog, key=NEWER)
        list(manager.verify(IMAGE))
        assert verifier.verify.call_args.args[0] == record
        verifier.verify.assert_called_once()

    @pytest.mark.parametrize(
        ('there', 'state', 'remedy'),
        [(builders.warm, 'DIRTY', 'The next boot'), (stale, 'STALE', 'The next boot')],
    )
    def test_nothing_to_verify(self, manager, catalog, verifier, there, state, remedy):
        with pytest.raises(exception.CacheNotFound):
            list(manager.verify(IMAGE))
        there(catalog)
        with pytest.raises(exception.CacheNotReady) as caught:
            list(manager.verify(IMAGE))
        assert f'{IMAGE} is {state}: only a READY cache is compared' in str(caught.value)
        assert remedy in str(caught.value)
        verifier.verify.assert_not_called()

    def test_what_is_being_recorded(self, manager, catalog, at_work):
        builders.warm(catalog)
        with pytest.raises(
            exception.CacheNotReady, match=f'RECORDING.*`nova-qcache seal {IMAGE}`'
        ):
            list(manager.verify(IMAGE))


# -- snapshots


def test_what_is_forgotten_stays_in_the_sums_of_the_host(manager, catalog):
    catalog.counter_store.add(IMAGE, Counters(boots=3, saved_bytes=5))
    manager.forget(IMAGE.upper())
    seen = manager.snapshot()
    assert seen.images == ()
    assert (seen.host.boots, seen.host.saved_bytes) == (3, 5)
    with pytest.raises(exception.InvalidImageId):
        manager.forget('../past')


def test_what_caches_take_counts_on_their_own_device(manager, catalog, tmp_path):
    builders.ready(catalog, bytes(8192))
    allocated = manager.allocated_beside(manager.paths.cache_path)
    assert allocated == catalog.directory.allocated() > 0
    assert manager.allocated_beside('/proc') == 0
    with pytest.raises(OSError, match='missing'):
        manager.allocated_beside(str(tmp_path / 'missing'))
