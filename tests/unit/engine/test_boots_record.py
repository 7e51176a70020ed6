# SPDX-License-Identifier: Apache-2.0
"""Starting a recorder for a boot, or joining the one at work."""

import concurrent.futures
import pathlib
import threading
import time
from typing import Any
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.leases import Leases
from nova_qcache.cache.pool import Pool
from nova_qcache.model.plan import Boot
from nova_qcache.model.plan import Cause
from nova_qcache.model.plan import Plan
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.states import Phase
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from nova_qcache.system import control
from nova_qcache.system.progress import silent
from tests.unit import builders
from tests.unit.builders import BOOT
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import MIB


def recording(paths, reason='a note'):
    socket = str(paths.nbd_socket(KEY))
    return Plan(PlanKind.RECORD, reason, *BOOT, generation=GENERATION, socket=socket)


@pytest.mark.parametrize('phase', [Phase.RECORDING, Phase.SEALING])
def test_the_recorder_at_work_is_told_of_one_more_guest(
    boots, paths, launch_start, recorder, phase
):
    recorder.status.side_effect = recorder.expect_guest.side_effect = None
    recorder.status.return_value = recorder.expect_guest.return_value = builders.status(phase)
    assert boots.record(*BOOT) == boots.plan(Boot(*BOOT)) == recording(paths)
    assert recorder.expect_guest.call_count == 2
    launch_start.assert_not_called()


@pytest.mark.parametrize('phase', [Phase.STARTING, Phase.SERVING, Phase.LEAVING])
def test_a_recorder_that_does_not_record(boots, launch_start, recorder, phase):
    recorder.status.side_effect = recorder.expect_guest.side_effect = None
    recorder.status.return_value = recorder.expect_guest.return_value = builders.status(
        phase, note='dropped: x'
    )
    with pytest.raises(exception.RecorderFailed, match='dropped: x') as caught:
        boots.record(*BOOT)
    plan = boots.plan(Boot(*BOOT))
    assert plan == Plan(PlanKind.PLAIN, str(caught.value), *BOOT, cause=Cause.FAILED)
    launch_start.assert_not_called()


def test_what_a_recorder_has_dropped_and_left_keeps_one_boot_plain(boots, catalog, recorder):
    builders.warm(catalog, base='memory://base')
    recorder.status.side_effect = recorder.expect_guest.side_effect = None
    recorder.status.return_value = recorder.expect_guest.return_value = builders.status(
        Phase.SERVING, note='dropped: x'
    )
    assert boots.plan(Boot(*BOOT)).kind is PlanKind.PLAIN
    assert catalog.keys() == []
    with builders.listening(catalog.paths.nbd_socket(KEY)):
        assert boots.preview(*BOOT).key == KEY.next_revision()


def test_a_new_recorder(boots, paths, conf, launch_start):
    assert boots.record(*BOOT) == recording(paths)
    config_file = str(pathlib.Path(conf.config_file[0]).absolute())
    arguments = [
        f'--config-file={config_file}',
        '--base=memory://base',
        '--base-format=raw',
        f'--generation={KEY.generation}',
        '--revision=1',
        IMAGE,
    ]
    launch_start.assert_called_once_with(
        paths, KEY, arguments, conf.qcache.start_timeout_seconds, silent
    )


def test_a_new_recorder_with_a_quota_of_its_own(boots, launch_start):
    boots.record(*BOOT, quota='3')
    assert '--quota=3' in launch_start.call_args.args[2]


@pytest.mark.parametrize('quota', [None, '16', '16M', '3'])
def test_a_recording_is_joined_if_it_has_the_quota_that_is_asked_for(
    boots, catalog, recorder, quota
):
    builders.warm(catalog, base='memory://base', quota=16 * MIB)
    recorder.status.side_effect = recorder.expect_guest.side_effect = None
    recorder.status.return_value = recorder.expect_guest.return_value = builders.status()
    if quota != '3':
        assert boots.record(*BOOT, quota=quota).kind is PlanKind.RECORD
        return
    with pytest.raises(exception.WrongState) as caught:
        boots.record(*BOOT, quota=quota)
    assert f'with a quota of {16 * MIB} bytes and cannot become one of {3 * MIB}' in str(
        caught.value
    )
    recorder.expect_guest.assert_not_called()


def test_a_recording_that_died_gets_the_quota_that_is_asked_for(boots, catalog, launch_start):
    builders.warm(catalog, base='memory://base', quota=16 * MIB)
    boots.record(*BOOT, quota='3')
    assert '--quota=3' in launch_start.call_args.args[2]


def test_a_new_recorder_is_told_what_glance_says_of_the_image(boots, launch_start):
    boots.plan(Boot(*BOOT, image_hash='md5:1'))
    assert '--image-hash=md5:1' in launch_start.call_args.args[2]


def test_a_base_that_is_not_there_gets_no_generation(boots, current):
    unfit = exception.InvalidBase(base='x', reason='No such file', remedy='Give one')
    with (
        mock.patch.object(builders.MemorySource, 'identity', autospec=True, side_effect=unfit),
        pytest.raises(exception.InvalidBase),
    ):
        boots.record(*BOOT)
    current.assert_not_called()


def test_who_waits_is_told_how_a_start_comes_along(boots, launch_start):
    progress = mock.Mock()
    boots.record(*BOOT, progress=progress)
    assert launch_start.call_args.args[-1] is progress


def test_a_new_recorder_has_a_place_and_room(boots, launch_start):
    room = mock.MagicMock()
    launch_start.side_effect = lambda *_: room.__enter__.called and builders.status()
    boots._pool = mock.create_autospec(Pool, instance=True)
    boots._pool.room.return_value = room
    assert boots.record(*BOOT, quota='3').kind is PlanKind.RECORD
    boots._pool.room.assert_called_once_with(KEY, 3 * MIB)


def test_a_recorder_is_asked_at_the_socket_of_its_cache(boots, paths):
    boots.record(*BOOT)
    clients: Any = control.RecorderClient
    assert clients.call_args_list == [mock.call(paths.control_socket(KEY))]


def test_a_new_recorder_that_does_not_record(boots, launch_start):
    launch_start.return_value = builders.status(Phase.SERVING)
    with pytest.raises(exception.RecorderFailed):
        boots.record(*BOOT)


def test_a_base_that_cannot_be_read_in_places(boots, recorder, launch_start):
    """A guest that an older libvirt has paused for it gets another chain from its hard reboot."""
    recorder.status.side_effect = None
    recorder.status.return_value = builders.status(unreadable_blocks=1)
    plan = boots.plan(Boot(*BOOT))
    recorder.expect_guest.assert_not_called()  # it would stay for who never comes
    assert (plan.kind, plan.cause) == (PlanKind.PLAIN, Cause.FAILED)
    assert 'some blocks of its base cannot be read' in plan.reason
    launch_start.assert_not_called()


@pytest.mark.parametrize(('mib', 'quota'), [('0', 0), (str(2**43), 2**63)])
def test_no_quota(boots, launch_start, mib, quota):
    with pytest.raises(exception.InvalidQuota, match=f'A quota of {quota} bytes'):
        boots.record(*BOOT, quota=mib)
    launch_start.assert_not_called()


@pytest.mark.parametrize(
    'error',
    [
        exception.RecorderFailed(image_id=IMAGE, reason='no space'),
        exception.DeadlinePassed(what='Starting', seconds=1, remedy='See the log'),
    ],
)
def test_a_recorder_that_does_not_start(boots, launch_start, error):
    launch_start.side_effect = error
    with pytest.raises(type(error)):
        boots.record(*BOOT)
    assert boots.plan(Boot(*BOOT)) == Plan(PlanKind.PLAIN, str(error), *BOOT, cause=Cause.FAILED)


def test_caches_of_older_generations_are_retired(boots, catalog, current):
    builders.ready(catalog, base='memory://base')
    current.return_value = GENERATION.next()
    boots.record(*BOOT)
    after = catalog.load(KEY)
    assert after.state is State.STALE
    assert f'the base has generation {GENERATION.next()} now' in after.stale_reason
    assert catalog.counter_store.of(IMAGE).invalidations == {'written': 1}


def test_what_cannot_be_recorded_takes_the_place_of_nothing(boots, catalog, current, launch_start):
    before = builders.ready(catalog)
    current.return_value = GENERATION.next()
    launch_start.side_effect = exception.RecorderFailed(image_id=IMAGE, reason='no such export')
    with pytest.raises(exception.RecorderFailed):
        boots.record(IMAGE, 'memory://misspelt', 'raw')
    assert catalog.load(KEY) == before
    assert catalog.counter_store.of(IMAGE).invalidations == {}


@pytest.mark.parametrize('base', [('memory://other', 'raw'), ('memory://base', 'qcow2')])
def test_a_cache_of_another_base_makes_way_for_a_recording(boots, catalog, launch_start, base):
    builders.ready(catalog, base=base[0], base_format=base[1])
    plan = boots.plan(Boot(*BOOT))
    assert (plan.kind, plan.key) == (PlanKind.RECORD, KEY.next_revision())
    assert "the image has the base 'memory://base' (raw) now" in catalog.load(KEY).stale_reason


def test_a_stale_cache_that_has_guests_makes_way_for_a_recording(
    boots, catalog, launch_start, paths, recorder
):
    catalog.retire(builders.ready(catalog, base='memory://base'), 'damaged', Staleness.DAMAGED)
    second = KEY.next_revision()
    plan = boots.plan(Boot(*BOOT, consumer='instance'))
    assert (plan.kind, plan.key) == (PlanKind.RECORD, second)
    assert plan.socket == str(paths.nbd_socket(second))
    assert [lease.key for lease in Leases(paths.leases, 1).active()] == [second]
    ((_, key, arguments, *_), _) = launch_start.call_args
    assert key == second
    assert arguments[-3:] == [f'--generation={GENERATION}', '--revision=2', IMAGE]
    recorder.drop.assert_not_called()


def test_caches_of_other_images_are_left_alone(boots, catalog, current):
    other = type(KEY)(builders.OTHER_IMAGE, GENERATION)
    before = builders.ready(catalog, key=other)
    current.return_value = GENERATION.next()
    boots.record(*BOOT)
    assert catalog.load(other) == before


def test_a_file_of_an_older_generation_that_lost_its_record(boots, catalog, current):
    catalog.paths.sealed(KEY).touch()
    current.return_value = GENERATION.next()
    assert boots.record(*BOOT).kind is PlanKind.RECORD
    assert catalog.paths.sealed(KEY).exists()


def test_a_recording_of_an_older_generation_is_dropped(boots, catalog, current, recorder):
    builders.warm(catalog)
    recorder.status.side_effect = recorder.drop.side_effect = None
    recorder.status.return_value = recorder.drop.return_value = builders.status()
    current.return_value = GENERATION.next()
    assert boots.record(*BOOT).kind is PlanKind.RECORD
    recorder.drop.assert_called_once_with()


def test_a_recorder_of_an_older_generation_that_has_just_left(boots, catalog, current, recorder):
    builders.warm(catalog)
    recorder.status.side_effect = None
    recorder.status.return_value = builders.status()
    current.return_value = GENERATION.next()
    assert boots.record(*BOOT).kind is PlanKind.RECORD


def test_nothing_is_kept_of_a_start(boots):
    boots.record(*BOOT)
    assert len(boots._starts) == 0


def test_of_many_boots_at_once_the_first_one_starts_the_recorder(
    boots, launch_start, recorder, conf
):
    conf.set_override('start_timeout_seconds', 600, 'qcache')
    recorder.expect_guest.side_effect = exception.RecorderUnreachable(path='/x', reason='no')

    def start(*arguments):
        time.sleep(0.05)  # the others come meanwhile
        recorder.status.side_effect = recorder.expect_guest.side_effect = None
        return builders.status()

    launch_start.side_effect = start
    recorder.status.return_value = recorder.expect_guest.return_value = builders.status()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        plans = list(pool.map(lambda _: boots.plan(Boot(*BOOT)), range(8)))
    assert {plan.kind for plan in plans} == {PlanKind.RECORD}
    launch_start.assert_called_once()


def test_a_start_that_hangs_stops_no_other_boot(boots, launch_start, recorder, conf):
    conf.set_override('start_timeout_seconds', 1, 'qcache')
    recorder.expect_guest.side_effect = exception.RecorderUnreachable(path='/x', reason='no')
    begun, go_on = threading.Event(), threading.Event()

    def start(*arguments):
        begun.set()
        go_on.wait()
        return builders.status()

    launch_start.side_effect = start
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(boots.plan, Boot(*BOOT))
        begun.wait()
        second = boots.plan(Boot(*BOOT))
        go_on.set()
    assert second.kind is PlanKind.PLAIN
    assert 'Another start' in second.reason
    assert first.result().kind is PlanKind.RECORD


def test_a_start_that_hangs_stops_no_boot_of_another_image(boots, launch_start, conf):
    conf.set_override('start_timeout_seconds', 1, 'qcache')
    go_on = threading.Event()

    def start(paths, key, *_):
        assert key != KEY or go_on.wait(120)
        return builders.status()

    launch_start.side_effect = start
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(boots.plan, Boot(*BOOT))
        while not launch_start.called:
            time.sleep(0.001)
        other = boots.plan(Boot(builders.OTHER_IMAGE, *BOOT[1:]))
        go_on.set()
    assert {other.kind, first.result().kind} == {PlanKind.RECORD}


# -- sealed between the judgement and the recorder's answer


@pytest.mark.parametrize('answer', ['serving', 'failed'])
@pytest.mark.parametrize('consumer', ['', 'instance'])
def test_what_was_sealed_meanwhile_is_played(
    boots, catalog, paths, launch_start, answer, consumer
):
    def sealed_meanwhile(*arguments):
        builders.ready(catalog, base='memory://base')
        if answer == 'failed':
            raise exception.RecorderFailed(image_id=IMAGE, reason='x')
        return builders.status(Phase.SERVING)

    launch_start.side_effect = sealed_meanwhile
    plan = boots.plan(Boot(*BOOT, consumer=consumer))
    assert (plan.kind, plan.cache) == (PlanKind.PLAY, str(paths.sealed(KEY)))
    leased = [lease.key for lease in Leases(paths.leases, 1).active()]
    assert leased == ([KEY] if consumer else [])


def test_what_was_sealed_meanwhile_of_another_content_is_not_played(boots, catalog, launch_start):
    def sealed_meanwhile(*arguments):
        builders.ready(catalog, base='memory://base', image_hashes=('md5:1',))
        return builders.status(Phase.SERVING)

    launch_start.side_effect = sealed_meanwhile
    assert boots.plan(Boot(*BOOT, image_hash='md5:2')).kind is PlanKind.PLAIN


def test_what_was_sealed_and_removed_meanwhile_is_not_played(boots, catalog, launch_start):
    def sealed_meanwhile(*arguments):
        builders.ready(catalog, base='memory://base')
        return builders.status(Phase.SERVING)

    launch_start.side_effect = sealed_meanwhile
    with mock.patch.object(Catalog, 'lease', autospec=True, return_value=False) as lease:
        plan = boots.plan(Boot(*BOOT, consumer='instance'))
    assert (plan.kind, plan.cause) == (PlanKind.PLAIN, Cause.STALE)
    assert lease.call_args.args[1] == KEY
