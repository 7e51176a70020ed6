# SPDX-License-Identifier: Apache-2.0
"""When a boot is audited: what starts an audit, what a boot pays for it, and that none fails."""

import contextlib
import dataclasses
import threading
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache import sealed_file
from nova_qcache.cache.pool import Pool
from nova_qcache.engine import audits as audits_module
from nova_qcache.engine.audits import Audits
from nova_qcache.model.plan import Plan
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import Staleness
from nova_qcache.recorder import launch
from nova_qcache.stats.counters import Counters
from nova_qcache.system import control
from tests.unit import builders
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import MIB

AUDIT = KEY.next_revision()
EVERY = 5
QUOTA = 16 * MIB
PLAY = Plan(
    PlanKind.PLAY, 'ready', IMAGE, '/base', 'raw', KEY.generation, cache='/cache/sealed.qcow2'
)


@pytest.fixture
def pool():
    return mock.create_autospec(Pool, instance=True)


@pytest.fixture
def spawn():
    with mock.patch.object(launch, 'spawn', autospec=True) as made:
        yield made


@pytest.fixture
def client():
    """The client of the audit's recorder; nobody answers, unless a test says otherwise."""
    with mock.patch.object(control, 'RecorderClient', autospec=True) as made:
        made.return_value.claim.side_effect = exception.RecorderUnreachable(path='/x', reason='n')
        yield made


@pytest.fixture(autouse=True)
def clock():
    with mock.patch('nova_qcache.engine.audits.time.monotonic', autospec=True) as made:
        made.return_value = 1000.0
        yield made


@pytest.fixture
def audits(catalog, pool, spawn, client):
    return Audits(catalog, pool, ['--config-file=/x'], EVERY)


@pytest.fixture
def ready(catalog):
    return builders.ready(catalog)


@pytest.fixture
def due(catalog, ready):
    count(catalog, plays=EVERY - 1)


def count(catalog, **counted):
    catalog.counter_store.add(IMAGE, Counters(**counted))


def warm(catalog, key=AUDIT):
    """An audit makes its copy, or waits with it."""
    return builders.warm(catalog, key=key, is_audit=True)


def test_an_audit_that_is_due_starts_and_the_boot_plays(audits, catalog, pool, spawn, client, due):
    assert audits.plan(PLAY, QUOTA) is None
    pool.reserve.assert_called_once_with(AUDIT, QUOTA, evict=False)
    ((output, arguments), _) = spawn.call_args
    assert output.name == str(catalog.paths.log(AUDIT))
    assert arguments == [
        *('--config-file=/x', '--base=/base', '--base-format=raw'),
        *(f'--generation={KEY.generation}', '--revision=2', '--audit', IMAGE),
    ]
    client.assert_not_called()


@pytest.mark.parametrize(
    ('counted', 'starts'),
    [
        ({'plays': EVERY - 2}, False),
        ({'plays': EVERY - 1}, True),
        ({'plays': EVERY, 'audits': 1}, False),
        ({'plays': 2 * EVERY - 2, 'audits': 1}, False),
        ({'plays': 2 * EVERY - 1, 'audits': 1}, True),
        ({'plays': 10 * EVERY, 'audits': 1}, True),
    ],
)
def test_due(audits, catalog, spawn, ready, counted, starts):
    count(catalog, **counted)
    audits.plan(PLAY, QUOTA)
    assert spawn.called == starts


def test_never(catalog, pool, spawn, client, due):
    warm(catalog)
    assert Audits(catalog, pool, [], 0).plan(PLAY, QUOTA) is None
    spawn.assert_not_called()
    client.assert_not_called()


def test_only_what_plays(audits, spawn, due):
    audits.plan(dataclasses.replace(PLAY, kind=PlanKind.PLAIN), QUOTA)
    audits.plan(dataclasses.replace(PLAY, generation=None), QUOTA)
    spawn.assert_not_called()


def test_the_next_boot_is_audited(audits, catalog, pool, spawn, client, due):
    warm(catalog)
    client.return_value.claim.side_effect = [True]
    assert audits.plan(PLAY, QUOTA) == dataclasses.replace(
        PLAY,
        kind=PlanKind.RECORD,
        reason='an audit of its cache',
        revision=2,
        cache=None,
        socket=str(catalog.paths.nbd_socket(AUDIT)),
        is_audit=True,
    )
    client.assert_called_once_with(catalog.paths.control_socket(AUDIT), mock.ANY)
    assert client.call_args.args[1] < 1
    pool.reserve.assert_not_called()
    spawn.assert_not_called()


@pytest.mark.parametrize('answer', [False, exception.RecorderUnreachable(path='/x', reason='y')])
def test_one_that_does_not_wait(audits, catalog, spawn, client, due, answer):
    warm(catalog)
    client.return_value.claim.side_effect = [answer]
    assert audits.plan(PLAY, QUOTA) is None
    assert client.return_value.claim.call_count == 1
    spawn.assert_not_called()


@pytest.mark.parametrize('other', ['image', 'generation'])
def test_one_at_a_time_on_this_host(audits, catalog, spawn, client, due, other):
    key = dataclasses.replace(AUDIT, image_id=builders.OTHER_IMAGE)
    if other == 'generation':
        key = dataclasses.replace(AUDIT, generation=KEY.generation.next())
    warm(catalog, key)
    assert audits.plan(PLAY, QUOTA) is None
    spawn.assert_not_called()
    client.assert_not_called()


def test_a_recording_is_no_audit(audits, catalog, spawn, due):
    builders.warm(catalog, key=dataclasses.replace(KEY, image_id=builders.OTHER_IMAGE))
    again = dataclasses.replace(AUDIT, image_id=builders.OTHER_IMAGE)
    builders.warm(catalog, key=again)  # beside a damaged one that has guests
    unreadable = again.next_revision()
    catalog.paths.recording(unreadable).touch()
    catalog.paths.record(unreadable).write_bytes(b'x')
    audits.plan(PLAY, QUOTA)
    spawn.assert_called_once()


@pytest.mark.parametrize(('raised', 'starts'), [(0, False), (1, True)])
def test_a_cache_that_is_full(audits, catalog, spawn, raised, starts):
    """What it misses could not be seen, unless it may grow."""
    warming = builders.warm(catalog)
    path = catalog.paths.recording(KEY)
    facts = sealed_file.describe(path, sealed_file.digest(path), FinishReason.QUOTA)
    catalog.seal(warming, facts)
    count(catalog, plays=EVERY)
    audits.plan(PLAY, warming.quota + raised)
    assert spawn.called == starts


def test_a_cache_with_a_larger_quota(audits, catalog, pool, due):
    audits.plan(PLAY, QUOTA - 1)
    pool.reserve.assert_called_once_with(AUDIT, QUOTA, evict=False)


@pytest.mark.parametrize('there', ['a cache', 'guests'])
def test_a_revision_of_which_something_is_left(audits, catalog, pool, due, there):
    with contextlib.ExitStack() as stack:
        if there == 'a cache':
            catalog.retire(builders.ready(catalog, key=AUDIT), 'x', Staleness.DAMAGED)
        else:
            stack.enter_context(builders.listening(catalog.paths.nbd_socket(AUDIT)))
        audits.plan(PLAY, QUOTA)
    pool.reserve.assert_called_once_with(AUDIT.next_revision(), QUOTA, evict=False)


def test_a_cache_that_is_gone(audits, catalog, spawn, ready):
    count(catalog, plays=EVERY)
    catalog.retire(ready, 'x')
    audits.plan(PLAY, QUOTA)
    catalog.discard(KEY)
    audits.plan(PLAY, QUOTA)
    spawn.assert_not_called()


def test_no_start_at_each_boot(audits, spawn, pool, clock, due):
    """It may not have begun its copy yet, or fail each time."""
    for _ in range(3):
        audits.plan(PLAY, QUOTA)
    assert spawn.call_count == 1
    clock.return_value += audits_module._PAUSE_SECONDS
    audits.plan(PLAY, QUOTA)
    assert spawn.call_count == 2


def test_two_boots_at_once_start_one(audits, spawn, pool, due):
    """The second does not wait for the first."""
    begun, go_on = threading.Event(), threading.Event()

    def reserve(*_, **__):
        begun.set()
        go_on.wait()

    pool.reserve.side_effect = reserve
    first = threading.Thread(target=audits.plan, args=(PLAY, QUOTA))
    first.start()
    begun.wait()
    assert audits.plan(PLAY, QUOTA) is None
    go_on.set()
    first.join()
    assert pool.reserve.call_count == spawn.call_count == 1


def test_no_room(audits, pool, spawn, due):
    pool.reserve.side_effect = exception.NoReservation(path='x', reason='y', remedy='z')
    assert audits.plan(PLAY, QUOTA) is None
    spawn.assert_not_called()


def test_a_start_that_fails_gives_its_room_back(audits, pool, spawn, due):
    spawn.side_effect = PermissionError
    assert audits.plan(PLAY, QUOTA) is None
    pool.release.assert_called_once_with(AUDIT)


@pytest.mark.parametrize('fault', [ZeroDivisionError, OSError, exception.QcacheError(reason='x')])
def test_no_boot_fails(audits, catalog, pool, due, fault):
    pool.reserve.side_effect = fault
    assert audits.plan(PLAY, QUOTA) is None
    with mock.patch.object(catalog.directory, 'recordings', side_effect=fault, autospec=True):
        assert audits.plan(PLAY, QUOTA) is None
