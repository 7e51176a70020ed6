# SPDX-License-Identifier: Apache-2.0
"""The pool: room within the budget, what goes for it, and what never does."""

from concurrent import futures
import contextlib
import logging
import pathlib
import threading
import time
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache import pool as pool_module
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.eviction import LeastRecentlyUsed
from nova_qcache.cache.leases import Leases
from nova_qcache.cache.pool import Limits
from nova_qcache.cache.pool import Pool
from nova_qcache.cache.usage import Usage
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.stats.counters import Counters
from nova_qcache.system import files
from nova_qcache.system import locks
from tests.unit import builders
from tests.unit.builders import GENERATION
from tests.unit.builders import MIB

UNIT = 64 * 1024
"""What each cache takes."""
NEW = CacheKey('ffffffff-0000-0000-0000-000000000000', GENERATION)
"""What is to be recorded."""
GROUPS = 2**50


def key(number, **changes):
    return CacheKey(f'00000000-0000-0000-0000-{number:012d}', GENERATION, **changes)


class Domains:
    """Those of a host: what their XML names, and how often one asked."""

    def __init__(self):
        self.names = []
        self.asked = 0
        self.error = None

    def documents(self):
        self.asked += 1
        if self.error:
            raise self.error
        for name in self.names:
            yield name, f"<domain><devices><disk><source file='{name}'/></disk></devices></domain>"


@pytest.fixture
def domains():
    return Domains()


@pytest.fixture
def usage(paths, leases, tmp_path, domains):
    return Usage(paths, leases, tmp_path / 'instances', domains)


@pytest.fixture(autouse=True)
def free():
    """What is free on the file system."""
    with mock.patch.object(files, 'free_bytes', autospec=True, return_value=GROUPS) as made:
        yield made


@pytest.fixture
def open_files():
    """Paths that a process of qemu has open."""
    paths: set[pathlib.Path] = set()
    with mock.patch.object(files, 'used_by_qemu', autospec=True, side_effect=paths.__contains__):
        yield paths


@pytest.fixture
def make_pool(paths, catalog, pins, usage):
    def make(units, min_free=0, policy=None, catalog=catalog, lock_seconds=600, recorders=100):
        return Pool(
            catalog,
            pins,
            usage,
            policy or LeastRecentlyUsed(),
            Limits(units * UNIT, min_free, recorders),
            Leases(paths.reservations, 60),
            lock_seconds,
        )

    return make


@pytest.fixture
def ready(catalog):
    """Make a READY cache of one unit; the higher the number, the longer unused."""

    def make(number, units=1, **changes):
        sealed_at = time.time() - 3600 * number
        with mock.patch('time.time', autospec=True, return_value=sealed_at):
            return builders.ready(
                catalog, b'x' * (units * UNIT), **{'key': key(number), **changes}
            )

    return make


def warm(catalog, of, units):
    """Put a recording with its reservation into a catalog."""
    return builders.warm(catalog, b'x' * (units * UNIT), key=of, quota=units * UNIT)


def left(catalog):
    there = catalog.keys()
    return [int(each.image_id[-12:]) for each in there]


def no_room(pool, quota=UNIT, of=NEW):
    with pytest.raises(exception.NoRoom) as caught:
        pool.reserve(of, quota)
    return str(caught.value)


# -- room


def test_an_empty_pool(make_pool):
    pool = make_pool(1)
    with pool.room(NEW, UNIT):
        assert pool.state().reserved == UNIT
    assert pool.state().reserved == 0


def test_room_in_a_block_that_fails(make_pool):
    pool = make_pool(1)
    with contextlib.suppress(ZeroDivisionError), pool.room(NEW, UNIT):
        raise ZeroDivisionError
    assert pool.state().reserved == 0


def test_what_is_reserved_is_taken(make_pool, catalog):
    pool = make_pool(2)
    pool.reserve(key(1), UNIT)
    pool.reserve(key(2), UNIT)
    assert 'take 131072 bytes of a budget of 131072' in no_room(pool)
    pool.reserve(key(2), UNIT)  # again: it counts once
    pool.release(key(1))
    pool.reserve(NEW, UNIT)


def test_reservations_are_of_all_processes(make_pool, paths):
    other = make_pool(2, catalog=Catalog(paths, 60))
    with mock.patch('os.getpid', autospec=True, return_value=1):
        other.reserve(NEW, 2 * UNIT)
    pool = make_pool(2)
    no_room(pool, of=key(1))
    with pool.room(NEW, UNIT):  # the same recorder: one of the two starts it
        assert pool.state().reserved == 2 * UNIT
    assert pool.state().reserved == 2 * UNIT, "the other one's is its own"
    pool.release(NEW)
    assert pool.state().reserved == 0


def test_a_reservation_ends_by_time(make_pool):
    pool = make_pool(1)
    pool.reserve(key(1), UNIT)
    later = time.monotonic() + 61
    with mock.patch('time.monotonic', autospec=True, return_value=later):
        assert pool.state().reserved == 0


def test_a_recording_that_has_its_space_counts_once(make_pool, catalog):
    pool = make_pool(4)
    pool.reserve(key(1), 2 * UNIT)
    warm(catalog, key(1), 2)
    state = pool.state()
    assert (state.allocated, state.reserved) == (2 * UNIT, 0)
    no_room(pool, 3 * UNIT)
    pool.reserve(NEW, 2 * UNIT)


def test_a_recording_counts_with_its_quota(make_pool, catalog):
    """Its file may take less: the file system's own tables for it are left out."""
    pool = make_pool(4)
    builders.warm(catalog, b'x' * UNIT, key=key(1), quota=2 * UNIT)
    state = pool.state()
    assert (state.allocated, state.reserved) == (UNIT, UNIT)
    no_room(pool, 3 * UNIT)


def test_a_reservation_is_over_once_the_cache_is_sealed(make_pool, ready):
    pool = make_pool(2)
    pool.reserve(key(1), UNIT)
    ready(1)
    assert (pool.state().allocated, pool.state().reserved) == (UNIT, 0)


def test_a_dirty_recording_is_replaced_by_its_next_one(make_pool, catalog):
    warm(catalog, NEW, 2)
    make_pool(2).reserve(NEW, 2 * UNIT)


def test_room_costs_no_look_at_any_cache(make_pool, ready, catalog, domains):
    for number in range(3):
        ready(number)
    pool = make_pool(4)
    with (
        mock.patch.object(Catalog, 'load', autospec=True) as load,
        pool.room(NEW, UNIT),
    ):
        pass
    load.assert_not_called()
    assert domains.asked == 0


def test_min_free(make_pool, free):
    pool = make_pool(99, min_free=3 * UNIT)
    free.return_value = 5 * UNIT
    pool.reserve(key(1), UNIT)
    pool.reserve(key(2), UNIT)
    said = no_room(pool)
    assert f'{5 * UNIT} are free, of which {3 * UNIT} must stay free' in said
    free.return_value = 6 * UNIT
    pool.reserve(NEW, UNIT)


def test_a_recording_that_gets_its_space_while_one_looks(make_pool, catalog, free):
    """It is neither counted twice nor not at all."""
    pool = make_pool(2)
    pool.reserve(key(1), UNIT)
    looks: list[pathlib.Path] = []

    def look(path):
        if not looks:
            warm(catalog, key(1), 1)
        looks.append(path)
        return GROUPS

    free.side_effect = look
    state = pool.state()
    assert (state.allocated, state.reserved) == (UNIT, 0)
    assert len(looks) == 2


def test_many_at_once_stay_within_the_budget(make_pool, paths):
    taken = []

    def start(number):
        pool = make_pool(5, catalog=Catalog(paths, 600))
        with contextlib.suppress(exception.NoRoom):
            pool.reserve(key(number), UNIT)
            taken.append(number)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 5


def test_a_lock_that_is_not_free(make_pool, paths, catalog):
    pool = make_pool(5, lock_seconds=0.01)
    with (
        locks.pool(paths.locks, 1),
        futures.ThreadPoolExecutor(1) as another,
        pytest.raises(exception.LockTimeout),
    ):
        another.submit(pool.reserve, NEW, UNIT).result()
    assert pool.state().reserved == 0


# -- what goes


def test_the_least_valuable_goes(make_pool, ready, catalog):
    for number in (2, 3, 1):
        ready(number)
    make_pool(3).reserve(NEW, UNIT)
    assert left(catalog) == [1, 2]


def test_as_many_as_it_takes(make_pool, ready, catalog):
    for number in (1, 2, 3, 4):
        ready(number)
    make_pool(5).reserve(NEW, 3 * UNIT)
    assert left(catalog) == [1, 2]


def test_none_goes_if_all_were_not_enough(make_pool, ready, catalog):
    for number in (1, 2):
        ready(number)
    said = no_room(make_pool(3), 4 * UNIT)
    assert left(catalog) == [1, 2]
    assert f'a quota of {4 * UNIT} bytes' in said
    assert f'take {2 * UNIT} bytes of a budget of {3 * UNIT}' in said
    assert f'eviction could free {2 * UNIT} bytes' in said
    assert 'Raise [qcache] cache_budget' in said


def test_room_on_the_file_system(make_pool, ready, catalog, free):
    for number in (1, 2):
        ready(number)
    free.side_effect = lambda path: 2 * UNIT - len(catalog.keys()) * UNIT + UNIT
    make_pool(99, min_free=UNIT).reserve(NEW, UNIT)
    assert left(catalog) == [1]


def test_the_policy_decides(make_pool, ready, catalog):
    ready(1)
    ready(2)
    policy = mock.create_autospec(LeastRecentlyUsed, instance=True)
    policy.worth.side_effect = lambda candidate: candidate.idle_seconds
    make_pool(2, policy=policy).reserve(NEW, UNIT)
    assert left(catalog) == [2]


def test_what_a_policy_is_told(make_pool, ready, catalog):
    ready(1)
    ready(2, 2)
    used_at = time.time() - 60
    catalog.counter_store.add(key(2).image_id, Counters(saved_bytes=77, last_used_at=used_at))
    policy = mock.create_autospec(LeastRecentlyUsed, instance=True)
    policy.worth.return_value = 0.0
    make_pool(3, policy=policy).reserve(NEW, UNIT)
    told = {call.args[0].key: call.args[0] for call in policy.worth.call_args_list}
    assert (told[key(1)].allocated, told[key(1)].saved_bytes) == (UNIT, 0)
    assert told[key(1)].idle_seconds == pytest.approx(3600, abs=30)  # since it was sealed
    assert (told[key(2)].allocated, told[key(2)].saved_bytes) == (2 * UNIT, 77)
    assert told[key(2)].idle_seconds == pytest.approx(60, abs=30)


def test_a_clock_that_was_ahead(make_pool, ready, catalog):
    ready(1)
    catalog.counter_store.add(key(1).image_id, Counters(last_used_at=time.time() + 3600))
    policy = mock.create_autospec(LeastRecentlyUsed, instance=True)
    policy.worth.return_value = 0.0
    make_pool(1, policy=policy).reserve(NEW, UNIT)
    assert policy.worth.call_args.args[0].idle_seconds == 0


def test_stale_ones_first(make_pool, ready, catalog, caplog):
    caplog.set_level(logging.INFO)
    catalog.retire(ready(0), 'its base has changed')
    ready(5)
    make_pool(2).reserve(NEW, UNIT)
    assert left(catalog) == [5]
    counted = catalog.counter_store.of(key(0).image_id)
    assert (counted.evictions, counted.evicted_bytes) == ({'stale': 1}, UNIT)


def test_it_is_counted_and_said(make_pool, ready, catalog, caplog):
    caplog.set_level(logging.INFO)
    ready(1)
    make_pool(1).reserve(NEW, UNIT)
    counted = catalog.counter_store.of(key(1).image_id)
    assert (counted.evictions, counted.evicted_bytes) == ({'room': 1}, UNIT)
    assert f'Removed cache {key(1).stem} (room), freeing {UNIT} bytes' in caplog.text


def test_domains_are_asked_once_and_for_what_goes(make_pool, ready, domains):
    for number in range(6):
        ready(number)
    make_pool(6).reserve(NEW, 2 * UNIT)
    assert domains.asked == 1 + 2


# -- names of one file


@pytest.fixture
def retagged(catalog, ready):
    """A file with two names: a STALE one, and the READY one of the next generation."""
    old = ready(1)
    catalog.retag(old, GENERATION.next())
    return old.key, CacheKey(old.key.image_id, GENERATION.next())


def test_names_of_one_file_take_its_space_once(make_pool, retagged):
    assert make_pool(2).state().allocated == UNIT


def test_an_old_name_frees_nothing_and_stays(make_pool, retagged, ready, catalog):
    ready(9)
    make_pool(2).reserve(NEW, UNIT)
    assert catalog.keys() == sorted(retagged)


def test_both_names_go_together(make_pool, retagged, catalog):
    make_pool(1).reserve(NEW, UNIT)
    assert catalog.keys() == []
    counted = catalog.counter_store.of(key(1).image_id)
    assert (counted.evictions, counted.evicted_bytes) == ({'stale': 1, 'room': 1}, UNIT)


def test_a_name_in_use_by_now_keeps_the_other(make_pool, ready, catalog, domains, paths):
    """The STALE name would go first, wherever its key stands in their order."""
    old = ready(1)
    new = CacheKey(old.key.image_id, Generation('000000000000', 1))
    catalog.retag(old, new.generation)
    pool = make_pool(1)
    discard = Catalog.discard

    def define_first(self, of, require):
        domains.names = [str(paths.sealed(old.key))]
        discard(self, of, require)

    with mock.patch.object(Catalog, 'discard', autospec=True, side_effect=define_first):
        no_room(pool)
    assert catalog.keys() == [new, old.key]


@pytest.mark.parametrize('which', [0, 1])
def test_one_name_in_use_keeps_both(make_pool, retagged, catalog, domains, paths, which):
    domains.names = [str(paths.sealed(retagged[which]))]
    assert '1 in use' in no_room(make_pool(1))
    assert catalog.keys() == sorted(retagged)


# -- what never goes


def stays(pool, catalog, why):
    before = catalog.keys()
    assert why in no_room(pool)
    assert catalog.keys() == before
    assert not pool.discard(key(1), 'age')
    assert catalog.keys() == before
    assert catalog.counter_store.of(key(1).image_id).evictions == {}


def test_a_domain(make_pool, ready, catalog, domains, paths):
    ready(1)
    domains.names = [str(paths.sealed(key(1)))]
    stays(make_pool(1), catalog, '(1 in use)')


def test_a_boot_on_its_way(make_pool, ready, catalog, leases):
    ready(1)
    leases.take('instance', key(1))
    stays(make_pool(1), catalog, '(1 in use)')


def test_an_unrescue_xml(make_pool, ready, catalog, tmp_path, paths):
    ready(1)
    (tmp_path / 'instances' / 'one').mkdir(parents=True)
    text = f"<domain><disk><source file='{paths.sealed(key(1))}'/></disk></domain>"
    (tmp_path / 'instances' / 'one' / 'unrescue.xml').write_text(text)
    stays(make_pool(1), catalog, '(1 in use)')


def test_a_file_that_is_open(make_pool, ready, catalog, open_files, paths):
    ready(1)
    open_files.add(paths.sealed(key(1)))
    stays(make_pool(1), catalog, '(1 in use)')


def test_a_file_that_cannot_be_looked_at(make_pool, ready, catalog):
    ready(1)
    broken = OSError(5, 'Input/output error')
    with mock.patch.object(files, 'used_by_qemu', autospec=True, side_effect=broken):
        stays(make_pool(1), catalog, '(1 in use)')


@pytest.mark.parametrize('guests', [0, 3])
def test_a_recorder_that_serves(make_pool, ready, catalog, recorder, guests):
    ready(1)
    recorder.status.side_effect = None
    recorder.status.return_value = builders.status(guests=guests)
    stays(make_pool(1), catalog, '(1 in use)')


def test_a_recording(make_pool, catalog):
    warm(catalog, key(1), 1)
    stays(make_pool(1), catalog, '(1 being recorded)')


def test_a_pin(make_pool, ready, catalog, pins):
    ready(1)
    pins.pin(key(1).image_id)
    stays(make_pool(1), catalog, '(1 pinned)')
    pins.unpin(key(1).image_id)
    make_pool(1).reserve(NEW, UNIT)
    assert catalog.keys() == []


def test_a_pin_does_not_keep_what_is_stale(make_pool, ready, catalog, pins):
    catalog.retire(ready(1), 'its base has changed')
    pins.pin(key(1).image_id)
    make_pool(1).reserve(NEW, UNIT)
    assert catalog.keys() == []


@pytest.mark.parametrize('text', [b'', b'{}', None])
def test_a_record_that_cannot_be_read(make_pool, ready, catalog, paths, text):
    ready(1)
    if text is None:
        paths.record(key(1)).unlink()
    else:
        paths.record(key(1)).write_bytes(text)
    stays(make_pool(1), catalog, '(1 without a record that can be read)')


def test_a_cache_of_the_same_image_makes_room_for_a_recording(make_pool, ready, catalog):
    """It stands on another base, or no boot would record."""
    ready(1)
    make_pool(1).reserve(key(1).next_revision(), UNIT)
    assert catalog.keys() == []


def test_a_libvirt_that_does_not_tell(make_pool, ready, catalog, domains):
    ready(1)
    catalog.retire(ready(2), 'its base has changed')
    domains.error = exception.DomainsUnknown(uri='qemu:///x', reason='it is away')
    pool = make_pool(2)
    assert (
        'no cache is evicted: Cannot determine which files the domains at qemu:///x use'
        in no_room(pool)
    )
    assert pool.trim() == []
    assert not pool.discard(key(2), 'stale')
    assert left(catalog) == [1, 2]


def test_others_go_in_place_of_what_stays(make_pool, ready, catalog, domains, pins, paths):
    for number in (1, 2, 3, 4):
        ready(number)
    domains.names = [str(paths.sealed(key(4)))]
    pins.pin(key(3).image_id)
    make_pool(4).reserve(NEW, UNIT)
    assert left(catalog) == [1, 3, 4]


# -- races with a boot


def test_a_boot_that_begins_meanwhile(make_pool, ready, catalog, leases):
    """It has a lease by the time at which its cache would go: another one goes."""
    for number in (1, 2):
        ready(number)
    discard = Catalog.discard

    def boot_first(self, of, require):
        if of == key(2):
            assert catalog.lease(of, lambda: leases.take('instance', of))
        discard(self, of, require)

    with mock.patch.object(Catalog, 'discard', autospec=True, side_effect=boot_first):
        make_pool(2).reserve(NEW, UNIT)
    assert left(catalog) == [2]


@pytest.mark.parametrize('change', ['pinned', 'opened', 'removed', 'recorded'])
def test_what_changes_meanwhile(make_pool, ready, catalog, pins, open_files, paths, change):
    ready(1)
    discard = Catalog.discard

    def change_first(self, of, require):
        match change:
            case 'pinned':
                pins.pin(of.image_id)
            case 'opened':
                open_files.add(paths.sealed(of))
            case 'removed':
                discard(self, of)
            case 'recorded':
                discard(self, of)
                builders.ready(catalog, b'x' * UNIT, key=of, created_at=5.0)
        discard(self, of, require)

    with mock.patch.object(Catalog, 'discard', autospec=True, side_effect=change_first):
        assert not make_pool(1).discard(key(1), 'age')
    assert left(catalog) == ([] if change == 'removed' else [1])
    assert catalog.counter_store.of(key(1).image_id).evictions == {}


def test_an_image_that_changes_all_the_time(make_pool, ready, catalog, paths):
    ready(1)
    pool = make_pool(1, catalog=Catalog(paths, 0))
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with locks.image(paths.locks, key(1).image_id, 1):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    try:
        assert not pool.discard(key(1), 'age')
    finally:
        leave.set()
        thread.join()
    assert left(catalog) == [1]


# -- discard


def test_discard(make_pool, ready, catalog):
    ready(1)
    pool = make_pool(9)
    assert pool.discard(key(1), 'deleted')
    assert not pool.discard(key(1), 'deleted'), 'it is gone'
    counted = catalog.counter_store.of(key(1).image_id)
    assert (counted.evictions, counted.evicted_bytes) == ({'deleted': 1}, UNIT)


def test_what_cannot_be_removed_is_said(make_pool, ready, catalog, caplog):
    ready(1)
    read_only = OSError(30, 'Read-only file system')
    with mock.patch.object(Catalog, 'discard', autospec=True, side_effect=read_only):
        assert not make_pool(1).discard(key(1), 'age')
    assert 'Read-only file system' in caplog.text


# -- trim


def test_nothing_to_trim(make_pool, ready, catalog, domains):
    ready(1)
    pool = make_pool(1)
    with mock.patch.object(Catalog, 'load', autospec=True) as load:
        assert pool.trim() == []
    load.assert_not_called()
    assert domains.asked == 0


def test_over_budget_at_start(make_pool, ready, catalog):
    for number in (1, 2, 3, 4):
        ready(number)
    pool = make_pool(2)
    assert pool.trim() == [key(4), key(3)]
    assert left(catalog) == [1, 2]
    assert pool.trim() == []


def test_too_little_is_free(make_pool, ready, catalog, free):
    for number in (1, 2, 3):
        ready(number)
    free.side_effect = lambda path: (4 - len(catalog.keys())) * UNIT
    assert make_pool(99, min_free=2 * UNIT).trim() == [key(3)]


def test_what_cannot_be_brought_back_is_said_once(make_pool, ready, catalog, pins, caplog):
    for number in (1, 2, 3):
        ready(number)
    pins.pin(key(1).image_id)
    pins.pin(key(2).image_id)
    pool = make_pool(1)
    assert pool.trim() == [key(3)], 'as near as it gets'
    assert pool.trim() == []
    (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    said = warning.getMessage()
    assert f'exceed their limits by {UNIT} bytes' in said
    assert '2 pinned' in said
    assert 'Raise [qcache] cache_budget' in said


def test_trim_clears_reservations_that_have_ended(make_pool, paths):
    pool = make_pool(1)
    pool.reserve(key(1), UNIT)
    with mock.patch('time.monotonic', autospec=True, return_value=time.monotonic() + 61):
        pool.trim()
    assert list(paths.reservations.iterdir()) == []


# -- state and limits


def test_state(make_pool, ready, catalog, free):
    ready(1)
    catalog.retire(ready(2), 'its base has changed')
    warm(catalog, key(3), 2)
    pool = make_pool(9, min_free=7)
    pool.reserve(NEW, UNIT)
    assert pool.state() == pool_module.PoolState(
        budget=9 * UNIT,
        min_free=7,
        allocated=4 * UNIT,
        free=GROUPS,
        caches=2,
        recordings=1,
        reserved=UNIT,
    )


def test_foreign_leases_reserve_nothing(make_pool, paths):
    for name in ('somebody', 'a+b', 'a+'):
        Leases(paths.reservations, 60).take(name, key(1))
    assert make_pool(1).state().reserved == 0


@pytest.mark.parametrize(
    ('budget', 'min_free', 'expected'),
    [
        ('100%', '0', Limits(100 * MIB, 0, 8)),
        ('20%', '5%', Limits(20 * MIB, 5 * MIB, 8)),
        ('16MiB', '1MB', Limits(16 * MIB, 10**6, 8)),
    ],
)
def test_limits(short_folder, budget, min_free, expected):
    conf = builders.config(short_folder, cache_budget=budget, min_free=min_free)
    with mock.patch('shutil.disk_usage', autospec=True) as usage:
        usage.return_value.total = 100 * MIB
        assert pool_module.limits(conf, short_folder) == expected
    usage.assert_called_once_with(short_folder)


def test_a_share_that_has_no_room_for_one_quota(short_folder):
    conf = builders.config(short_folder, cache_budget='15%')
    with (
        mock.patch('shutil.disk_usage', autospec=True) as usage,
        pytest.raises(exception.InvalidOption) as caught,
    ):
        usage.return_value.total = 100 * MIB
        pool_module.limits(conf, short_folder)
    said = str(caught.value)
    assert (
        f'[qcache] cache_budget = 15%: it is {15 * MIB} bytes, and a quota is {16 * MIB}' in said
    )
    assert 'set [qcache] quota (MiB) to less' in said


def test_a_file_system_that_does_not_tell(conf, short_folder):
    with (
        mock.patch('shutil.disk_usage', autospec=True, side_effect=OSError(5, 'I/O error')),
        pytest.raises(
            exception.FolderUnfit, match='the size of its file system cannot be determined'
        ),
    ):
        pool_module.limits(conf, short_folder)


def test_the_file_system_of_a_folder_that_is_not_there_yet(conf, short_folder):
    there = pool_module.limits(conf, short_folder)
    assert pool_module.limits(conf, short_folder / 'no' / 'folder') == there


def test_a_file_system_that_is_smaller_than_a_quota_is_no_fault_of_the_budget(short_folder):
    """Boots are plain there, which says the same without an error at the start."""
    conf = builders.config(short_folder, quota=200)
    with mock.patch('shutil.disk_usage', autospec=True) as usage:
        usage.return_value.total = 100 * MIB
        assert pool_module.limits(conf, short_folder).budget == 100 * MIB


# -- how many at a time


def test_as_many_as_may_be_are_recorded(make_pool, catalog):
    pool = make_pool(100, recorders=2)
    warm(catalog, key(1), 1)
    with pool.room(key(2), UNIT):
        with pytest.raises(exception.TooManyRecorders) as caught, pool.room(key(3), UNIT):
            pass
        assert caught.value.attributes == {'count': 2, 'most': 2}
        with pool.room(key(1), UNIT):  # one that begins again is none more
            pass
    with pool.room(key(3), UNIT):
        pass


def test_what_is_refused_for_the_number_removes_nothing(make_pool, catalog, ready):
    ready(1)
    warm(catalog, key(2), 1)
    pool = make_pool(2, recorders=1)
    with pytest.raises(exception.TooManyRecorders), pool.room(NEW, UNIT):
        pass
    assert left(catalog) == [1, 2]


def test_room_that_nothing_is_to_go_for(make_pool, catalog, ready):
    ready(1)
    pool = make_pool(1)
    with pytest.raises(exception.NoRoom, match='no cache is evicted for it'):
        pool.reserve(NEW, UNIT, evict=False)
    assert left(catalog) == [1]
    pool.reserve(NEW, UNIT)
    assert left(catalog) == []
