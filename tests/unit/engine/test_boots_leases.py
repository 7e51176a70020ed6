# SPDX-License-Identifier: Apache-2.0
"""What a plan promises to a consumer, and what is said when it can promise nothing."""

import errno
import logging
import os
import shutil
import time
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.leases import Leases
from nova_qcache.model.plan import Boot
from nova_qcache.model.plan import Cause
from nova_qcache.model.plan import Plan
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.states import Phase
from nova_qcache.model.states import State
from nova_qcache.system import locks
from tests.unit import builders
from tests.unit.builders import BOOT
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY

INSTANCE = '11111111-1111-1111-1111-111111111111'
OTHER_INSTANCE = '22222222-2222-2222-2222-222222222222'
OBSTACLE = 'AppArmor keeps guests from the socket'


@pytest.fixture(autouse=True)
def all_levels(caplog):
    caplog.set_level(logging.INFO, logger='nova_qcache.engine.boots')


@pytest.fixture
def ready(boots, catalog):
    return builders.ready(catalog, base='memory://base')


@pytest.fixture
def leased(paths, conf):
    """Return who has leases, and of which caches."""

    def look():
        found = Leases(paths.leases, conf.qcache.plan_lease_seconds).active()
        return {lease.consumer: lease.key for lease in found}

    return look


def said(caplog):
    return [
        (entry.levelno, entry.getMessage())
        for entry in caplog.records
        if entry.name == 'nova_qcache.engine.boots'
    ]


# -- leases


def test_a_play_is_leased(boots, ready, leased):
    assert boots.plan(Boot(*BOOT, consumer=INSTANCE)).kind is PlanKind.PLAY
    assert leased() == {INSTANCE: KEY}
    boots.plan(Boot(*BOOT, consumer=OTHER_INSTANCE))
    assert leased() == {INSTANCE: KEY, OTHER_INSTANCE: KEY}
    boots.release(INSTANCE)
    assert leased() == {OTHER_INSTANCE: KEY}


def test_a_play_of_nobody_is_not_leased(boots, ready, leased):
    assert boots.plan(Boot(*BOOT)).kind is PlanKind.PLAY
    assert leased() == {}
    boots.release('')


def test_a_recording_is_leased_before_it_starts(boots, leased, launch_start):
    seen = []

    def start(*_):
        seen.append(leased())
        return builders.status()

    launch_start.side_effect = start
    assert boots.plan(Boot(*BOOT, consumer=INSTANCE)).kind is PlanKind.RECORD
    assert seen == [{INSTANCE: KEY}]
    assert leased() == {INSTANCE: KEY}


def test_a_preview_leases_nothing(boots, ready, leased):
    boots.preview(*BOOT)
    assert leased() == {}


def test_a_lease_lasts_as_long_as_the_option_says(boots, ready, paths, conf):
    before = time.monotonic()
    boots.plan(Boot(*BOOT, consumer=INSTANCE))
    (lease,) = Leases(paths.leases, 1).active()
    assert before + 300 <= lease.until <= time.monotonic() + conf.qcache.plan_lease_seconds


PLAIN = {
    'no image': lambda boots: boots.plan(Boot('x', *BOOT[1:], consumer=INSTANCE)),
    'another format, and an obstacle': lambda boots: boots.plan(
        Boot(*BOOT[:2], 'qcow2', consumer=INSTANCE, no_recording=OBSTACLE)
    ),
}


@pytest.mark.parametrize('ask', PLAIN.values(), ids=PLAIN)
def test_a_plan_that_is_plain_ends_the_lease_of_before(boots, ready, leased, ask):
    boots.plan(Boot(*BOOT, consumer=INSTANCE))
    boots.plan(Boot(*BOOT, consumer=OTHER_INSTANCE))
    assert ask(boots).kind is PlanKind.PLAIN
    assert leased() == {OTHER_INSTANCE: KEY}


def test_the_lease_of_a_stale_cache_becomes_one_of_the_next_recording(
    boots, ready, catalog, leased
):
    boots.plan(Boot(*BOOT, consumer=INSTANCE))
    catalog.retire(ready, 'x')
    assert boots.plan(Boot(*BOOT, consumer=INSTANCE)).kind is PlanKind.RECORD
    assert leased() == {INSTANCE: KEY.next_revision()}


@pytest.mark.parametrize(
    'error', [exception.RecorderFailed(image_id=IMAGE, reason='x'), OSError(5, 'x'), ValueError()]
)
def test_a_recorder_that_does_not_start_ends_the_lease(boots, leased, launch_start, error):
    launch_start.side_effect = error
    assert boots.plan(Boot(*BOOT, consumer=INSTANCE)).kind is PlanKind.PLAIN
    assert leased() == {}


def test_a_recorder_that_does_not_record_ends_the_lease(boots, leased, launch_start):
    launch_start.return_value = builders.status(Phase.SERVING)
    assert boots.plan(Boot(*BOOT, consumer=INSTANCE)).kind is PlanKind.PLAIN
    assert leased() == {}


@pytest.mark.parametrize('end', ['discard', 'retire', 'replace'])
def test_a_cache_that_goes_between_preview_and_lease(boots, ready, catalog, leased, end):
    lookup = boots._lookup.find

    def and_then_it_goes(*arguments):
        result = lookup(*arguments)
        if end == 'retire':
            catalog.retire(ready, 'x')
        else:
            catalog.discard(KEY)
        if end == 'replace':
            builders.warm(catalog)
        return result

    with mock.patch.object(boots._lookup, 'find', autospec=True, side_effect=and_then_it_goes):
        plan = boots.plan(Boot(*BOOT, consumer=INSTANCE))
    reason = 'its cache was removed meanwhile'
    assert plan == Plan(PlanKind.PLAIN, reason, *BOOT, generation=GENERATION, cause=Cause.STALE)
    assert leased() == {}


def test_a_cache_that_is_locked_for_long(boots, ready, paths, leased):
    boots._catalog = Catalog(paths, 0)
    with locks.lease(paths.locks, IMAGE, 0):
        plan = boots.plan(Boot(*BOOT, consumer=INSTANCE))
    assert plan.kind is PlanKind.PLAIN
    assert f'lease-{IMAGE}' in plan.reason
    assert leased() == {}


def test_a_boot_that_plays_waits_for_no_state_that_is_written(boots, ready, paths):
    """On a disk to which others write much, that takes seconds."""
    boots._catalog = Catalog(paths, 0)
    with locks.image(paths.locks, IMAGE, 0):
        plan = boots.plan(Boot(*BOOT, consumer=INSTANCE))
    assert plan.kind is PlanKind.PLAY


@pytest.mark.parametrize('kind', ['play', 'record'])
def test_a_lease_that_cannot_be_taken(boots, catalog, leased, launch_start, kind):
    if kind == 'play':
        builders.ready(catalog, base='memory://base')
    full = OSError(errno.ENOSPC, 'No space left on device')
    with mock.patch.object(Leases, 'take', autospec=True, side_effect=full):
        plan = boots.plan(Boot(*BOOT, consumer=INSTANCE))
    assert plan == Plan(PlanKind.PLAIN, str(full), *BOOT, cause=Cause.FAILED)
    launch_start.assert_not_called()


@pytest.mark.parametrize('consumer', ['x\0y', '\ud800', 'x' * 300, 'no/such'])
def test_a_consumer_that_makes_no_sense_stops_no_boot(boots, ready, consumer):
    assert boots.plan(Boot(*BOOT, consumer=consumer)).kind is PlanKind.PLAIN
    boots.release(consumer)


# -- a reason not to record


def warm(catalog):
    builders.warm(catalog, base='memory://base')


@pytest.mark.parametrize('there', [lambda catalog: None, warm], ids=['cold', 'warm'])
def test_a_reason_keeps_from_recording(
    boots, catalog, leased, launch_start, recorder, caplog, there
):
    there(catalog)
    before = catalog.load(KEY)
    plan = boots.plan(Boot(*BOOT, consumer=INSTANCE, no_recording=OBSTACLE))
    assert plan == Plan(
        PlanKind.PLAIN, OBSTACLE, *BOOT, generation=GENERATION, cause=Cause.CONFINED
    )
    launch_start.assert_not_called()
    recorder.expect_guest.assert_not_called()
    assert leased() == {}
    assert catalog.load(KEY) == before
    assert not caplog.records, 'whoever knows of the obstacle has said so once'


def test_a_reason_keeps_nobody_from_playing(boots, ready, leased):
    plan = boots.plan(Boot(*BOOT, consumer=INSTANCE, no_recording=OBSTACLE))
    assert (plan.kind, plan.reason) == (PlanKind.PLAY, 'the cache is ready')
    assert leased() == {INSTANCE: KEY}


def test_a_reason_does_not_hide_what_else_is_wrong(boots, ready, catalog):
    catalog.paths.sealed(KEY).unlink()
    assert 'cannot be used' in boots.plan(Boot(*BOOT, no_recording=OBSTACLE)).reason


@pytest.mark.parametrize('no_recording', [None, ''])
def test_no_problem(boots, no_recording):
    assert boots.plan(Boot(*BOOT, no_recording=no_recording)).kind is PlanKind.RECORD


# -- folders that vanish


@pytest.mark.parametrize(
    'name', ['cache_path', 'run_path', 'leases', 'guests', 'control', 'locks']
)
def test_a_folder_that_vanished(boots, ready, paths, launch_start, caplog, name):
    folder = getattr(paths, name)
    folder.rename(f'{folder}.away')
    plans = [boots.plan(Boot(*BOOT, consumer=INSTANCE)) for _ in range(3)]
    for plan in plans:
        assert plan == Plan(PlanKind.PLAIN, plans[0].reason, *BOOT, cause=Cause.FAILED)
    assert 'it has vanished' in plan.reason
    assert 'Bring it back' in plan.reason
    assert not folder.exists(), 'an empty mount point is no place for caches'
    levels, messages = zip(*said(caplog), strict=True)
    assert levels == (logging.WARNING, logging.INFO, logging.INFO)
    assert set(messages) == {f'Image {IMAGE} boots without a cache: {plan.reason}'}
    launch_start.assert_not_called()


def test_a_folder_that_comes_back(boots, ready, paths, leased):
    paths.leases.rename(f'{paths.leases}.away')
    assert boots.plan(Boot(*BOOT, consumer=INSTANCE)).kind is PlanKind.PLAIN
    os.rename(f'{paths.leases}.away', paths.leases)
    assert boots.plan(Boot(*BOOT, consumer=INSTANCE)).kind is PlanKind.PLAY
    assert leased() == {INSTANCE: KEY}


def test_two_folders_that_vanished_are_two_warnings(boots, paths, caplog):
    shutil.rmtree(paths.leases)
    boots.plan(Boot(*BOOT))
    shutil.rmtree(paths.control)
    boots.plan(Boot(*BOOT))
    assert [level for level, _ in said(caplog)] == [logging.WARNING, logging.WARNING]


def test_a_warning_concerns_every_image(boots, paths, caplog):
    shutil.rmtree(paths.leases)
    boots.plan(Boot(*BOOT))
    boots.plan(Boot(builders.OTHER_IMAGE, *BOOT[1:]))
    assert [level for level, _ in said(caplog)] == [logging.WARNING, logging.INFO]


def test_a_ready_cache_whose_folder_vanished_is_not_given_up(boots, ready, paths, catalog):
    paths.cache_path.rename(f'{paths.cache_path}.away')
    boots.plan(Boot(*BOOT))
    os.rename(f'{paths.cache_path}.away', paths.cache_path)
    assert catalog.load(KEY).state is State.READY
