# SPDX-License-Identifier: Apache-2.0
"""What goes although there is room: STALE caches, old ones, those of deleted images."""

import logging
import os
import time
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache import expiry
from nova_qcache.cache.eviction import LeastRecentlyUsed
from nova_qcache.cache.expiry import Ageing
from nova_qcache.cache.leases import Leases
from nova_qcache.cache.pins import Pins
from nova_qcache.cache.pool import Limits
from nova_qcache.cache.pool import Pool
from nova_qcache.cache.usage import Usage
from nova_qcache.model.key import CacheKey
from nova_qcache.stats.counters import Counters
from nova_qcache.system.glance import Glance
from tests.unit import builders
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE

HOUR = 3600.0
DAY = 24 * HOUR
OTHER = CacheKey(OTHER_IMAGE, GENERATION)


@pytest.fixture
def pins(paths):
    return Pins(paths, 60)


@pytest.fixture
def leases(paths):
    return Leases(paths.leases, 300)


@pytest.fixture
def pool(store, paths, pins, leases, tmp_path):
    return Pool(
        store,
        pins,
        Usage(paths, leases, tmp_path / 'instances', None),
        LeastRecentlyUsed(),
        mock.create_autospec(Limits, instance=True),  # nothing here depends on them
        Leases(paths.reservations, 60),
        1,
    )


@pytest.fixture
def glance():
    made = mock.create_autospec(Glance, instance=True)
    made.deleted.return_value = set()
    return made


@pytest.fixture
def ageing(store, pins, pool, glance):
    return Ageing(store, pins, pool, glance)


@pytest.fixture
def ready(store):
    """Make a READY cache that was sealed so long ago."""

    def make(key=KEY, seconds=0.0):
        with mock.patch('time.time', autospec=True, return_value=time.time() - seconds):
            return builders.ready(store, key=key)

    return make


def use(store, image_id, seconds):
    """Count a use of an image so long ago."""
    store.ledger.add(image_id, Counters(last_used_at=time.time() - seconds))


def evictions(store, image_id=IMAGE):
    return dict(store.ledger.of(image_id).evictions)


# -- age


def test_what_was_unused_for_long_goes(ageing, ready, store):
    ready(KEY, DAY + 60)
    ready(OTHER, DAY - 60)
    assert ageing.age(DAY) == [KEY]
    assert store.keys() == [OTHER]
    assert evictions(store) == {'age': 1}


def test_a_boot_is_a_use(ageing, ready, store):
    ready(KEY, 9 * DAY)
    use(store, IMAGE, DAY - 60)
    assert ageing.age(DAY) == []


def test_a_use_before_it_was_sealed_is_none(ageing, ready, store):
    ready(KEY, DAY - 60)
    use(store, IMAGE, 9 * DAY)
    assert ageing.age(DAY) == []


def test_a_use_of_another_process_after_the_first_run(ageing, ready, store):
    ready(KEY, 9 * DAY)
    use(store, IMAGE, HOUR)
    assert ageing.age(DAY) == []
    use(store, IMAGE, 0)
    assert ageing.age(HOUR / 2) == []


def test_nothing_goes_where_nova_keeps_its_bases(ageing, ready, store):
    store.retire(ready(KEY, 9 * DAY), 'changed')
    ready(OTHER, 9 * DAY)
    assert ageing.age(None) == []


@pytest.mark.parametrize('spelling', [IMAGE, IMAGE.upper()])
def test_an_image_of_an_instance_stays(ageing, ready, spelling):
    ready(KEY, 9 * DAY)
    ageing.note_used([spelling, 'no-image-id', ''])
    assert ageing.age(0) == []


def test_an_image_is_as_old_as_the_end_of_its_last_instance(ageing, ready):
    ready(KEY, 9 * DAY)
    ageing.note_used([IMAGE])
    ageing.note_used([])
    assert ageing.age(60) == []
    assert ageing.age(0) == [KEY]


def test_nothing_is_kept_of_images_that_are_gone(ageing, ready):
    ready(KEY, 9 * DAY)
    ageing.note_used([IMAGE, OTHER_IMAGE])
    assert set(ageing._used_at) == set(ageing._written_at) == {IMAGE, OTHER_IMAGE}
    ageing.note_used([])
    assert set(ageing._used_at) == set(ageing._written_at) == {IMAGE}, 'it has a cache'


def test_that_outlives_a_restart(ageing, ready, store, pins, pool):
    ready(KEY, 9 * DAY)
    ageing.note_used([IMAGE])
    assert Ageing(store, pins, pool, None).age(60) == []


def test_a_pinned_one_stays(ageing, ready, pins):
    ready(KEY, 9 * DAY)
    pins.pin(IMAGE)
    assert ageing.age(0) == []
    pins.unpin(IMAGE)
    assert ageing.age(0) == [KEY]


def test_one_in_use_stays(ageing, ready, leases):
    ready(KEY, 9 * DAY)
    leases.take('instance', KEY)
    assert ageing.age(0) == []


def test_a_recording_does_not_age(ageing, store):
    builders.warm(store)
    with mock.patch.object(Pool, 'discard', autospec=True) as discard:
        assert ageing.age(0) == []
    discard.assert_not_called()


@pytest.mark.parametrize('pinned', [True, False])
def test_stale_ones_go_whatever_their_age(ageing, ready, store, pins, pinned):
    stale = ready(KEY)
    if pinned:
        pins.pin(IMAGE)
    ageing.note_used([IMAGE])
    assert ageing.age(DAY) == []
    store.retire(stale, 'changed')  # after it was seen as READY
    assert ageing.age(DAY) == [KEY]
    assert evictions(store) == {'stale': 1}


def test_a_stale_one_in_use_stays(ageing, ready, store, leases):
    store.retire(ready(), 'changed')
    leases.take('instance', KEY)
    assert ageing.age(DAY) == []


def test_a_record_that_cannot_be_read_is_left_alone(ageing, ready, paths):
    ready(KEY, 9 * DAY)
    ready(OTHER, 9 * DAY)
    paths.record(KEY).write_text('{')
    assert ageing.age(DAY) == [OTHER]


def test_a_cache_that_was_recorded_anew_is_young(ageing, ready, store):
    ready(KEY, DAY)
    assert ageing.age(2 * DAY) == []
    store.discard(KEY)
    ready(KEY, 0)
    assert ageing.age(DAY) == []


def test_a_run_asks_only_for_counters_that_may_be_old(ageing, ready):
    for record in (ready(KEY), ready(OTHER, HOUR)):
        use(ageing._store, record.key.image_id, 60)
    ageing.age(DAY)
    with mock.patch.object(type(ageing._store.ledger), 'of', autospec=True) as of:
        assert ageing.age(DAY) == []
    of.assert_not_called()


def test_a_run_ends_in_time_and_the_next_goes_on(ageing, ready, monkeypatch):
    ready(KEY, 9 * DAY)
    with monkeypatch.context() as patch:
        patch.setattr(expiry, '_MOST_SECONDS', 0)
        assert ageing.age(DAY) == []
    assert ageing.age(DAY) == [KEY]


# -- what is written of it


def test_a_use_is_written_once_an_hour(ageing, store):
    now = time.time()
    for moment, written in [(0, 0), (HOUR - 1, 0), (HOUR, HOUR), (HOUR + 1, HOUR)]:
        ageing.note_used([IMAGE], now + moment)
        assert store.ledger.of(IMAGE).last_used_at == now + written


def test_a_clock_that_was_set_back(ageing, store):
    now = time.time()
    ageing.note_used([IMAGE], now + DAY)
    with mock.patch.object(store.ledger, 'add', autospec=True) as add:
        ageing.note_used([IMAGE], now)
    add.assert_called_once_with(IMAGE, Counters(last_used_at=now))


def test_a_run_writes_only_so_many_and_each_has_its_turn(ageing, store, monkeypatch):
    monkeypatch.setattr(expiry, '_MOST_WRITES', 1)
    now = time.time()
    images = [f'{IMAGE[:-1]}{number}' for number in range(5)]
    moments = [now + 2 * HOUR * number for number in range(5)]
    for moment in moments:
        ageing.note_used(images, moment)
    assert sorted(store.ledger.of(image).last_used_at for image in images) == moments


def test_a_folder_of_statistics_that_vanished(ageing, ready, paths):
    ready(KEY, 9 * DAY)
    os.rename(paths.statistics, paths.statistics.with_name('away'))
    ageing.note_used([IMAGE])
    assert ageing.age(0) == []


# -- deleted images


def test_the_caches_of_a_deleted_image_go(ageing, ready, store, glance):
    newer = KEY.next_revision()
    for key in (KEY, newer, OTHER):
        ready(key)
    glance.deleted.return_value = {IMAGE}
    assert sorted(ageing.purge_deleted()) == [KEY, newer]
    glance.deleted.assert_called_once_with({IMAGE, OTHER_IMAGE})
    assert store.keys() == [OTHER]
    assert evictions(store) == {'deleted': 2}


def test_of_an_image_of_an_instance_nobody_asks(ageing, ready, glance):
    ready(KEY)
    ageing.note_used([IMAGE])
    assert ageing.purge_deleted() == []
    glance.deleted.assert_called_once_with(set())


def test_one_in_use_outlives_its_image(ageing, ready, glance, leases):
    ready(KEY)
    leases.take('instance', KEY)
    glance.deleted.return_value = {IMAGE}
    assert ageing.purge_deleted() == []


def test_a_pinned_one_outlives_its_image_and_is_named_once(
    ageing, ready, glance, pins, caplog, store
):
    ready(KEY)
    ready(OTHER)
    pins.pin(IMAGE)
    glance.deleted.return_value = {IMAGE, OTHER_IMAGE}
    assert ageing.purge_deleted() == [OTHER]
    assert ageing.purge_deleted() == []
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(said) == 1
    assert f'`nova-qcache unpin {IMAGE}`' in said[0]
    pins.unpin(IMAGE)
    assert ageing.purge_deleted() == [KEY]


def test_nobody_knows_so_nothing_goes_and_one_warning_says_so(ageing, ready, glance, caplog):
    ready(KEY, 9 * DAY)
    glance.deleted.side_effect = exception.GlanceUnknown(
        section='asking', reason='it answers 503', remedy='See to it'
    )
    caplog.set_level(logging.INFO)
    for _ in range(2):
        assert ageing.purge_deleted() == []
    said = [each for each in caplog.records if 'it answers 503' in each.getMessage()]
    assert [each.levelno for each in said] == [logging.WARNING, logging.INFO]
    assert ageing.age(DAY) == [KEY], 'age counts all the same'


def test_without_credentials_nobody_asks(store, pins, pool, ready):
    ready(KEY)
    assert Ageing(store, pins, pool, None).purge_deleted() == []


def test_pins_that_cannot_be_read_keep_all(ageing, ready, glance, pins):
    ready(KEY, 9 * DAY)
    glance.deleted.return_value = {IMAGE}
    with mock.patch.object(Pins, 'all', autospec=True, side_effect=PermissionError(13, 'no')):
        for step in (lambda: ageing.age(0), ageing.purge_deleted):
            with pytest.raises(PermissionError):
                step()
    assert ageing._store.keys() == [KEY]
