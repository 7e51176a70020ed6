# SPDX-License-Identifier: Apache-2.0
"""The way of a boot: every branch of a decision, and that nothing ever stops a boot."""

import dataclasses
import logging
import subprocess
from unittest import mock

from hypothesis import example
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.engine.boots import Boots
from nova_qcache.engine.host import Host
from nova_qcache.keeper import launch as keeper
from nova_qcache.keeper.revalidation import Request
from nova_qcache.keeper.revalidation import Requests
from nova_qcache.model.plan import Boot
from nova_qcache.model.plan import Cause
from nova_qcache.model.plan import Plan
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.source import BaseIdentity
from nova_qcache.model.states import State
from nova_qcache.recorder import launch
from tests.unit import builders
from tests.unit.builders import BOOT
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import NOT_IMAGE_IDS

SURPRISES = [
    exception.LockTimeout(name='x', path='y', seconds=1),
    exception.RecordBroken(path='x', reason='y', image_id='z'),
    PermissionError(13, 'Permission denied'),
    ValueError('embedded null byte'),
    KeyError('present'),
    RuntimeError('a plugin'),
    RecursionError('too deep'),
    OverflowError('too large'),
    subprocess.TimeoutExpired('qemu-io', 10),
]


@pytest.fixture
def ready(boots, catalog):
    return builders.ready(catalog, base='memory://base')


def test_no_cache_yet(boots, paths, launch_start, recorder):
    assert boots.preview(*BOOT) == Plan(
        PlanKind.RECORD,
        'no cache yet',
        *BOOT,
        generation=GENERATION,
        socket=str(paths.nbd_socket(KEY)),
    )
    launch_start.assert_not_called()
    recorder.expect_guest.assert_not_called()


def test_a_base_that_cannot_be_read_is_not_said_to_be_recorded(boots, source, inspect_base):
    inspect_base.side_effect = exception.InvalidBase(
        base='x', reason='Permission denied', remedy='Let this user read it'
    )
    with pytest.raises(exception.InvalidBase, match='Permission denied'):
        boots.preview(*BOOT)
    assert inspect_base.call_args.args[0] is source


def test_a_cache_that_is_being_recorded(boots, catalog, launch_start, recorder):
    builders.warm(catalog, base='memory://base')
    plan = boots.preview(*BOOT)
    assert (plan.kind, plan.reason) == (PlanKind.RECORD, 'the cache is being recorded')
    launch_start.assert_not_called()
    recorder.expect_guest.assert_not_called()


def test_a_ready_cache(boots, ready, catalog, verifier):
    expected = Plan(
        PlanKind.PLAY,
        'the cache is ready',
        *BOOT,
        generation=GENERATION,
        cache=str(catalog.paths.sealed(KEY)),
    )
    assert boots.preview(*BOOT) == boots.plan(Boot(*BOOT)) == expected


def test_an_image_id_in_capitals_is_the_same_image(boots, ready):
    plan = boots.plan(Boot(IMAGE.upper(), *BOOT[1:]))
    assert (plan.kind, plan.image_id) == (PlanKind.PLAY, IMAGE)


def test_a_stale_cache(boots, ready, catalog):
    catalog.retire(ready, 'the base differs')
    plan = boots.preview(*BOOT)
    assert (plan.kind, plan.key) == (PlanKind.RECORD, KEY.next_revision())


def test_a_base_that_is_another_file(boots, ready, source, verifier):
    source.now = BaseIdentity(1, 2, 3)
    plan = boots.preview(*BOOT)
    assert plan.kind is PlanKind.PLAIN
    assert f'revalidate it with `nova-qcache verify {IMAGE}`' in plan.reason


# -- times alone

HOURS = 3600


@pytest.fixture
def young(catalog):
    """A cache that was sealed just now."""
    return builders.ready(catalog, base='memory://base')


@pytest.fixture
def old(young, catalog):
    """A cache that was sealed long ago."""
    sealed = dataclasses.replace(young.sealed, sealed_at=1.0)
    catalog.refresh(dataclasses.replace(young, sealed=sealed))
    return catalog.load(KEY)


def change_times(source):
    source.now = dataclasses.replace(source.now, mtime_ns=source.now.mtime_ns + 1)


def asked(boots):
    return Requests(boots._paths.revalidations).pending()


def test_times_alone_stop_no_boot_and_are_looked_into_once(boots, old, source, caplog):
    for _ in range(3):
        change_times(source)
        assert boots.plan(Boot(*BOOT)).kind is PlanKind.PLAY
    assert asked(boots) == {KEY: Request(can_wait=True)}
    Requests(boots._paths.revalidations).done(KEY)
    change_times(source)
    assert boots.plan(Boot(*BOOT)).kind is PlanKind.PLAY
    assert asked(boots) == {}, 'it was compared within revalidate_hours'
    assert caplog.records == []


def test_nothing_on_the_way_of_a_boot_reads_the_base_or_the_cache(boots, old, source, verifier):
    change_times(source)
    with mock.patch.object(source, 'first_bytes', autospec=True, side_effect=AssertionError):
        assert boots.plan(Boot(*BOOT)).kind is PlanKind.PLAY
    assert verifier.mock_calls == []


def test_the_same_times_are_not_looked_into(boots, old):
    boots.plan(Boot(*BOOT))
    assert asked(boots) == {}


def test_a_preview_asks_for_nothing(boots, old, source):
    change_times(source)
    boots.preview(*BOOT)
    assert asked(boots) == {}


def test_what_was_sealed_just_now_is_proved(boots, young, source):
    change_times(source)
    assert boots.plan(Boot(*BOOT)).kind is PlanKind.PLAY
    assert asked(boots) == {}


@pytest.mark.parametrize(('hours', 'is_asked'), [(0, False), (1, True), (10**6, False)])
def test_how_often_is_an_option(
    short_folder, catalog, source, launch_start, recorder, verifier, current, old, hours, is_asked
):
    boots = Boots(Host(builders.config(short_folder, revalidate_hours=hours)))
    change_times(source)
    assert boots.plan(Boot(*BOOT)).kind is PlanKind.PLAY
    assert bool(asked(boots)) is is_asked


def test_a_request_that_cannot_be_written_stops_no_boot(boots, old, source):
    change_times(source)
    with mock.patch.object(
        Requests, 'add_now_and_then', autospec=True, side_effect=OSError(28, 'No space left')
    ):
        assert boots.plan(Boot(*BOOT)).kind is PlanKind.PLAY


@pytest.mark.parametrize('is_new', [True, False])
def test_the_keeper_is_started_for_it(boots, old, source, is_new):
    change_times(source)
    with (
        mock.patch.object(Requests, 'add_now_and_then', autospec=True, return_value=is_new),
        mock.patch.object(boots, 'keep', autospec=True) as keep,
    ):
        boots.plan(Boot(*BOOT))
    assert keep.called is is_new


def test_another_hash_of_glance_is_revalidated(boots, catalog):
    builders.ready(catalog, base='memory://base', image_hashes=('md5:1',))
    assert boots.plan(Boot(*BOOT, image_hash='md5:1')).kind is PlanKind.PLAY
    assert boots.plan(Boot(*BOOT, image_hash='md5:2')).cause is Cause.DOUBT
    assert Requests(boots._paths.revalidations).pending() == {KEY: Request('md5:2')}


def test_a_cache_file_that_is_not_what_was_sealed(boots, ready, catalog, verifier, source, caplog):
    catalog.paths.sealed(KEY).write_bytes(b'')
    source.now = BaseIdentity(source.now.size, source.now.inode, 3)
    with pytest.raises(exception.CacheBroken):
        boots.preview(*BOOT)
    plan = boots.plan(Boot(*BOOT))
    assert plan.kind is PlanKind.PLAIN
    assert f'`nova-qcache remove {IMAGE}` removes it' in plan.reason
    (line,) = caplog.messages
    assert line == f'Image {IMAGE} boots without a cache: {plan.reason}'
    assert Requests(boots._paths.revalidations).pending() == {KEY: Request()}


def test_a_base_that_was_written_waits_for_a_revalidation(boots, ready, current, catalog):
    current.return_value = GENERATION.next()
    plan = boots.plan(Boot(*BOOT, image_hash='md5:1'))
    assert (plan.kind, plan.generation) == (PlanKind.PLAIN, GENERATION.next())
    assert 'the base was written' in plan.reason
    assert Requests(boots._paths.revalidations).pending() == {KEY: Request('md5:1')}
    assert catalog.load(KEY) == ready


def test_a_preview_asks_for_no_revalidation(boots, ready, current):
    current.return_value = GENERATION.next()
    assert boots.preview(*BOOT).kind is PlanKind.PLAIN
    assert Requests(boots._paths.revalidations).pending() == {}


def test_a_revalidation_that_cannot_be_asked_for(boots, ready, current):
    current.return_value = GENERATION.next()
    boots._paths.revalidations.rmdir()
    assert boots.plan(Boot(*BOOT)).kind is PlanKind.PLAIN


@pytest.mark.parametrize('state', ['stale', 'warm', 'of another base'])
def test_what_goes_with_no_base_of_now_is_retired(boots, current, catalog, state):
    if state == 'warm':
        builders.warm(catalog, base='memory://base')
    else:
        base = 'memory://other' if state == 'of another base' else 'memory://base'
        record = builders.ready(catalog, base=base)
        if state == 'stale':
            catalog.retire(record, 'x')
    current.return_value = GENERATION.next()
    plan = boots.plan(Boot(*BOOT))
    assert (plan.kind, plan.generation) == (PlanKind.RECORD, GENERATION.next())
    assert catalog.load(KEY).state is (State.RECORDING if state == 'warm' else State.STALE)


@pytest.mark.parametrize('image_id', NOT_IMAGE_IDS.values(), ids=NOT_IMAGE_IDS)
def test_no_image_id(boots, image_id, launch_start):
    with pytest.raises(exception.InvalidImageId):
        boots.preview(image_id, *BOOT[1:])
    plan = boots.plan(Boot(image_id, *BOOT[1:]))
    assert (plan.kind, plan.image_id) == (PlanKind.PLAIN, image_id)
    assert 'is not an image ID' in plan.reason
    launch_start.assert_not_called()


def test_a_base_that_is_not_there(boots, launch_start):
    unfit = exception.InvalidBase(base='x', reason='No such file', remedy='Give one')
    with mock.patch.object(builders.MemorySource, 'identity', autospec=True, side_effect=unfit):
        assert boots.plan(Boot(*BOOT)) == Plan(
            PlanKind.PLAIN, str(unfit), *BOOT, cause=Cause.INELIGIBLE
        )
    launch_start.assert_not_called()


@pytest.mark.parametrize('error', SURPRISES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize('who', ['source', 'generation', 'record', 'list', 'recorder', 'launch'])
def test_plan_never_raises(
    boots, find_source, current, recorder, launch_start, caplog, who, error
):
    with (
        mock.patch.object(Catalog, 'records', autospec=True, return_value=[]) as records,
        mock.patch.object(Catalog, 'keys', autospec=True, return_value=[]) as keys,
    ):
        guilty = {
            'source': find_source,
            'generation': current,
            'record': records,
            'list': keys,
            'recorder': recorder.status,
            'launch': launch_start,
        }
        guilty[who].side_effect = error
        plan = boots.plan(Boot(*BOOT))
    assert plan == Plan(PlanKind.PLAIN, plan.reason, *BOOT, cause=plan.cause)
    assert plan.cause is not None
    assert str(error) in plan.reason
    warnings = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert IMAGE in warnings[0].getMessage()
    assert str(error) in warnings[0].getMessage()
    is_fault = not isinstance(error, exception.QcacheError | OSError)
    assert bool(warnings[0].exc_info) is is_fault, 'what happens to hosts needs no traceback'


FOLDER = {'path': '/cache', 'reason': 'x', 'remedy': 'y'}
CAUSES = [
    (exception.NoRoom(**FOLDER), Cause.NO_ROOM),
    (exception.NoReservation(**FOLDER), Cause.NO_ROOM),
    (exception.FolderUnfit(**FOLDER), Cause.FAILED),
    (exception.TooManyRecorders(count=2, most=2), Cause.RECORDERS),
    (exception.RecorderFailed(image_id=IMAGE, reason='x'), Cause.FAILED),
    (exception.RecordBroken(path='x', reason='y', image_id=IMAGE), Cause.BROKEN),
    (exception.CacheBroken(path='x', reason='y', image_id=IMAGE), Cause.BROKEN),
    (exception.InvalidBase(base='x', reason='y', remedy='z'), Cause.INELIGIBLE),
    (exception.InvalidImageId(image_id='x'), Cause.INELIGIBLE),
    (PermissionError(13, 'Permission denied'), Cause.FAILED),
    (RuntimeError('a plugin'), Cause.FAILED),
]


@pytest.mark.parametrize(
    ('error', 'cause'), CAUSES, ids=[type(error).__name__ for error, _ in CAUSES]
)
def test_the_kind_of_reason_is_said_and_counted(boots, current, catalog, error, cause):
    current.side_effect = error
    plan = boots.plan(Boot(*BOOT))
    assert plan.cause is cause
    boots.count(plan)
    assert catalog.counter_store.of(IMAGE).plain == {cause.value: 1}


@pytest.mark.parametrize('wanted', [True, False])
def test_a_keeper_is_started_where_it_is_wanted(boots, conf, current, ready, wanted):
    conf.set_override('start_keeper', wanted, 'qcache')
    current.return_value = GENERATION.next()
    with mock.patch.object(keeper, 'ensure', autospec=True) as ensure:
        boots.plan(Boot(*BOOT))  # it leaves something to revalidate
        boots.record(*BOOT)
    file = f'--config-file={conf.config_file[0]}'
    assert ensure.call_args_list == [mock.call(boots._paths, [file])] * (2 if wanted else 0)


def test_a_base_gets_as_long_as_the_option_says_to_come_back(boots, conf, find_source):
    boots.preview(*BOOT)
    find_source.assert_called_once_with(
        *BOOT[1:], reconnect_seconds=conf.qcache.base_reconnect_seconds
    )


def test_plan_can_be_interrupted(boots, current):
    current.side_effect = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        boots.plan(Boot(*BOOT))


text = st.text(max_size=80)
# Nothing that exists: a counter would be made beside it.
references = text.filter(lambda words: not words.startswith(('/', 'file:'))) | st.builds(
    '{}{}'.format,
    st.sampled_from(
        ['/no-such/', 'file:///no-such/', 'nbd://', 'nbd://h/', 'nbd+unix:///x?socket=/', 'x://']
    ),
    text,
)


@pytest.fixture
def popen():
    """Recorders that end as soon as they are started."""
    with (
        mock.patch.object(subprocess, 'Popen', autospec=True) as made,
        mock.patch.object(launch, '_started', []),
    ):
        made.return_value.poll.return_value = 1
        yield made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text | st.just(IMAGE), references, text | st.sampled_from(['raw', 'qcow2']))
@example(IMAGE, 'nbd://h/x\0', 'raw')
@example(IMAGE, 'nbd://h/\udcff', 'raw')
@example(IMAGE, 'nbd://h/\ud800', 'raw')
@example(IMAGE, '/no-such/\udcff', 'raw')
@example(IMAGE, '/no-such/\ud800', 'raw')
@example(IMAGE, '/no-such/' + 'x' * 5000, 'raw')
def test_any_words_make_a_plan(conf, recorder, popen, image_id, base, base_format):
    plan = Boots(Host(conf)).plan(Boot(image_id, base, base_format))
    assert plan.kind is PlanKind.PLAIN
    assert plan.reason
