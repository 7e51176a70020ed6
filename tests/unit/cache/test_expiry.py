# SPDX-License-Identifier: Apache-2.0
"""What goes although there is room: STALE caches, old ones, those of deleted images."""

import logging
import os
import time
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache import expiry as expiry_module
from nova_qcache.cache.eviction import LeastRecentlyUsed
from nova_qcache.cache.expiry import Expiry
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
def pool(catalog, paths, pins, leases, tmp_path):
    return Pool(
        catalog,
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
def expiry(catalog, pins, pool, glance):
    return Expiry(catalog, pins, pool, glance)


@pytest.fixture
def ready(catalog):
    """Make a READY cache that was sealed so long ago."""

    def make(key=KEY, seconds=0.0):
        with mock.patch('time.time', autospec=True, return_value=time.time() - seconds):
            return builders.ready(catalog, key=key)

    return make


def use(catalog, image_id, seconds):
    """Count a use of an image so long ago."""
    catalog.counter_store.add(image_id, Counters(last_used_at=time.time() - seconds))


def evictions(catalog, image_id=IMAGE):
    return dict(catalog.counter_store.of(image_id).evictions)


# -- age


def test_what_was_unused_for_long_goes(expiry, ready, catalog):
    ready(KEY, DAY + 60)
    ready(OTHER, DAY - 60)
    assert expiry.expire(DAY) == [KEY]
    assert catalog.keys() == [OTHER]
    assert evictions(catalog) == {'age': 1}


def test_a_use_before_it_was_sealed_is_none(expiry, ready, catalog):
    ready(KEY, DAY - 60)
    use(catalog, IMAGE, 9 * DAY)
    assert expiry.expire(DAY) == []


def test_a_use_of_another_process_after_the_first_run(expiry, ready, catalog):
    ready(KEY, 9 * DAY)
    use(catalog, IMAGE, HOUR)
    assert expiry.expire(DAY) == []
    use(catalog, IMAGE, 0)
    assert expiry.expire(HOUR / 2) == []


def test_nothing_goes_where_nova_keeps_its_bases(expiry, ready, catalog):
    catalog.retire(ready(KEY, 9 * DAY), 'changed')
    ready(OTHER, 9 * DAY)
    assert expiry.expire(None) == []


@pytest.mark.parametrize('spelling', [IMAGE, IMAGE.upper()])
def test_an_image_of_an_instance_stays(expiry, ready, spelling):
    ready(KEY, 9 * DAY)
    expiry.note_used([spelling, 'no-image-id', ''])
    assert expiry.expire(0) == []


def test_an_image_is_as_old_as_the_end_of_its_last_instance(expiry, ready):
    ready(KEY, 9 * DAY)
    expiry.note_used([IMAGE])
    expiry.note_used([])
    assert expiry.expire(60) == []
    assert expiry.expire(0) == [KEY]


def test_nothing_is_kept_of_images_that_are_gone(expiry, ready):
    ready(KEY, 9 * DAY)
    expiry.note_used([IMAGE, OTHER_IMAGE])
    assert set(expiry._used_at) == set(expiry._written_at) == {IMAGE, OTHER_IMAGE}
    expiry.note_used([])
    assert set(expiry._used_at) == set(expiry._written_at) == {IMAGE}, 'it has a cache'


def test_that_outlives_a_restart(expiry, ready, catalog, pins, pool):
    ready(KEY, 9 * DAY)
    expiry.note_used([IMAGE])
    assert Expiry(catalog, pins, pool, None).expire(60) == []


def test_a_pinned_one_stays(expiry, ready, pins):
    ready(KEY, 9 * DAY)
    pins.pin(IMAGE)
    assert expiry.expire(0) == []
    pins.unpin(IMAGE)
    assert expiry.expire(0) == [KEY]


def test_one_in_use_stays(expiry, ready, leases):
    ready(KEY, 9 * DAY)
    leases.take('instance', KEY)
    assert expiry.expire(0) == []


def test_a_recording_does_not_age(expiry, catalog):
    builders.warm(catalog)
    with mock.patch.object(Pool, 'discard', autospec=True) as discard:
        assert expiry.expire(0) == []
    discard.assert_not_called()


@pytest.mark.parametrize('pinned', [True, False])
def test_stale_ones_go_whatever_their_age(expiry, ready, catalog, pins, pinned):
    stale = ready(KEY)
    if pinned:
        pins.pin(IMAGE)
    expiry.note_used([IMAGE])
    assert expiry.expire(DAY) == []
    catalog.retire(stale, 'changed')  # after it was seen as READY
    assert expiry.expire(DAY) == [KEY]
    assert evictions(catalog) == {'stale': 1}


def test_a_stale_one_in_use_stays(expiry, ready, catalog, leases):
    catalog.retire(ready(), 'changed')
    leases.take('instance', KEY)
    assert expiry.expire(DAY) == []


def test_a_record_that_cannot_be_read_is_left_alone(expiry, ready, paths):
    ready(KEY, 9 * DAY)
    ready(OTHER, 9 * DAY)
    paths.record(KEY).write_text('{')
    assert expiry.expire(DAY) == [OTHER]


def test_a_cache_that_was_recorded_anew_is_young(expiry, ready, catalog):
    ready(KEY, DAY)
    assert expiry.expire(2 * DAY) == []
    catalog.discard(KEY)
    ready(KEY, 0)
    assert expiry.expire(DAY) == []


def test_a_run_asks_only_for_counters_that_may_be_old(expiry, ready):
    for record in (ready(KEY), ready(OTHER, HOUR)):
        use(expiry._catalog, record.key.image_id, 60)
    expiry.expire(DAY)
    with mock.patch.object(type(expiry._catalog.counter_store), 'of', autospec=True) as of:
        assert expiry.expire(DAY) == []
    of.assert_not_called()


def test_a_run_ends_in_time_and_the_next_goes_on(expiry, ready, monkeypatch):
    ready(KEY, 9 * DAY)
    with monkeypatch.context() as patch:
        patch.setattr(expiry_module, '_MOST_SECONDS', 0)
        assert expiry.expire(DAY) == []
    assert expiry.expire(DAY) == [KEY]


# -- what is written of it


def test_a_use_is_written_once_an_hour(expiry, catalog):
    now = time.time()
    for moment, written in [(0, 0), (HOUR - 1, 0), (HOUR, HOUR), (HOUR + 1, HOUR)]:
        expiry.note_used([IMAGE], now + moment)
        assert catalog.counter_store.of(IMAGE).last_used_at == now + written


def test_a_clock_that_was_set_back(expiry, catalog):
    now = time.time()
    expiry.note_used([IMAGE], now + DAY)
    with mock.patch.object(catalog.counter_store, 'add', autospec=True) as add:
        expiry.note_used([IMAGE], now)
    add.assert_called_once_with(IMAGE, Counters(last_used_at=now))


def test_a_run_writes_only_so_many_and_each_has_its_turn(expiry, catalog, monkeypatch):
    monkeypatch.setattr(expiry_module, '_MOST_WRITES', 1)
    now = time.time()
    images = [f'{IMAGE[:-1]}{number}' for number in range(5)]
    moments = [now + 2 * HOUR * number for number in range(5)]
    for moment in moments:
        expiry.note_used(images, moment)
    assert sorted(catalog.counter_store.of(image).last_used_at for image in images) == moments


def test_a_folder_of_statistics_that_vanished(expiry, ready, paths):
    ready(KEY, 9 * DAY)
    os.rename(paths.statistics, paths.statistics.with_name('away'))
    expiry.note_used([IMAGE])
    assert expiry.expire(0) == []


# -- deleted images


def test_the_caches_of_a_deleted_image_go(expiry, ready, catalog, glance):
    newer = KEY.next_revision()
    for key in (KEY, newer, OTHER):
        ready(key)
    glance.deleted.return_value = {IMAGE}
    assert sorted(expiry.purge_deleted()) == [KEY, newer]
    glance.deleted.assert_called_once_with({IMAGE, OTHER_IMAGE})
    assert catalog.keys() == [OTHER]
    assert evictions(catalog) == {'deleted': 2}


def test_of_an_image_of_an_instance_nobody_asks(expiry, ready, glance):
    ready(KEY)
    expiry.note_used([IMAGE])
    assert expiry.purge_deleted() == []
    glance.deleted.assert_called_once_with(set())


def test_one_in_use_outlives_its_image(expiry, ready, glance, leases):
    ready(KEY)
    leases.take('instance', KEY)
    glance.deleted.return_value = {IMAGE}
    assert expiry.purge_deleted() == []


def test_a_pinned_one_outlives_its_image_and_is_named_once(
    expiry, ready, glance, pins, caplog, catalog
):
    ready(KEY)
    ready(OTHER)
    pins.pin(IMAGE)
    glance.deleted.return_value = {IMAGE, OTHER_IMAGE}
    assert expiry.purge_deleted() == [OTHER]
    assert expiry.purge_deleted() == []
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(said) == 1
    assert f'`nova-qcache unpin {IMAGE}`' in said[0]
    pins.unpin(IMAGE)
    assert expiry.purge_deleted() == [KEY]


def test_nobody_knows_so_nothing_goes_and_one_warning_says_so(expiry, ready, glance, caplog):
    ready(KEY, 9 * DAY)
    glance.deleted.side_effect = exception.GlanceUnknown(
        section='asking', reason='it answers 503', remedy='See to it'
    )
    caplog.set_level(logging.INFO)
    for _ in range(2):
        assert expiry.purge_deleted() == []
    said = [each for each in caplog.records if 'it answers 503' in each.getMessage()]
    assert [each.levelno for each in said] == [logging.WARNING, logging.INFO]
    assert expiry.expire(DAY) == [KEY], 'age counts all the same'


def test_without_credentials_nobody_asks(catalog, pins, pool, ready):
    ready(KEY)
    assert Expiry(catalog, pins, pool, None).purge_deleted() == []


def test_pins_that_cannot_be_read_keep_all(expiry, ready, glance, pins):
    ready(KEY, 9 * DAY)
    glance.deleted.return_value = {IMAGE}
    with mock.patch.object(Pins, 'all', autospec=True, side_effect=PermissionError(13, 'no')):
        for step in (lambda: expiry.expire(0), expiry.purge_deleted):
            with pytest.raises(PermissionError):
                step()
    assert expiry._catalog.keys() == [KEY]
