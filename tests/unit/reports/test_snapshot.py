# SPDX-License-Identifier: Apache-2.0
"""What an operator sees, from a real catalog, counter store, pins and pool."""

import dataclasses
import os
import time
from unittest import mock

import pytest

from nova_qcache.cache.pins import Pins
from nova_qcache.cache.pool import Pool
from nova_qcache.model.key import CacheKey
from nova_qcache.model.states import Phase
from nova_qcache.model.states import State
from nova_qcache.reports import snapshot
from nova_qcache.stats.counters import Counters
from nova_qcache.system.control import Status
from tests.unit import builders
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import MIB
from tests.unit.builders import OTHER_IMAGE

NEXT = CacheKey(IMAGE, GENERATION.next())
OTHER = CacheKey(OTHER_IMAGE, GENERATION)


@pytest.fixture
def pins(paths):
    return Pins(paths, 60)


@pytest.fixture
def pool():
    return mock.create_autospec(Pool, instance=True)


@pytest.fixture
def gather(catalog, pool, pins, recorder):
    return lambda: snapshot.gather(catalog, pool, pins)


def test_nothing_there(gather, pool):
    seen = gather()
    assert seen.images == ()
    assert seen.host == Counters()
    assert seen.pool is pool.state.return_value
    assert (seen.states, seen.recorders, seen.guests) == ({}, {}, 0)


def test_a_cache_that_nobody_counted(gather, catalog):
    builders.ready(catalog)
    (image,) = gather().images
    assert (image.image_id, image.state, image.states) == (IMAGE, 'READY', ('READY',))
    assert (image.counters, image.quota) == (Counters(), 16 * MIB)
    facts = catalog.paths.sealed(KEY).stat()
    assert image.allocated == facts.st_blocks * 512 > 0


def test_an_image_that_was_counted_and_has_no_cache(gather, catalog):
    catalog.counter_store.add(IMAGE, Counters(boots=2))
    (image,) = gather().images
    assert (image.state, image.states, image.allocated, image.quota) == ('COLD', (), 0, None)
    assert image.counters.boots == 2


def test_an_image_that_is_only_pinned(gather, pins):
    pins.pin(IMAGE)
    (image,) = gather().images
    assert (image.image_id, image.is_pinned, image.state) == (IMAGE, True, 'COLD')


def test_the_image_with_the_most_boots_comes_first(gather, catalog):
    catalog.counter_store.add(OTHER_IMAGE, Counters(boots=1))
    catalog.counter_store.add(IMAGE, Counters(boots=2))
    builders.ready(catalog, key=CacheKey('f' * 8 + IMAGE[8:], GENERATION))
    assert [image.counters.boots for image in gather().images] == [2, 1, 0]


def test_the_host_has_all_images_and_those_that_were_forgotten(gather, catalog):
    catalog.counter_store.add(OTHER_IMAGE, Counters(boots=1, saved_bytes=5))
    catalog.counter_store.forget([OTHER_IMAGE])
    catalog.counter_store.add(IMAGE, Counters(boots=2, saved_bytes=7))
    seen = gather()
    assert [image.image_id for image in seen.images] == [IMAGE]
    assert (seen.host.boots, seen.host.saved_bytes) == (3, 12)


def test_ready_tells_more_of_an_image_than_what_else_it_has(gather, catalog):
    stale = builders.ready(catalog, quota=8 * MIB)
    catalog.retire(stale, 'gone')
    builders.warm(catalog, key=NEXT, quota=4 * MIB)
    (image,) = gather().images
    assert (image.states, image.quota) == (('DIRTY', 'STALE'), 4 * MIB)
    ready = KEY.next_revision()
    builders.ready(catalog, key=ready, quota=2 * MIB)
    (image,) = gather().images
    assert (image.states, image.quota) == (('READY', 'DIRTY', 'STALE'), 2 * MIB)
    assert gather().states == {'READY': 1, 'DIRTY': 1, 'STALE': 1}


def test_a_file_with_two_names_takes_its_space_once(gather, catalog):
    record = builders.ready(catalog, b'x' * 65536)
    catalog.retag(record, NEXT.generation)
    (image,) = gather().images
    assert image.states == ('READY', 'STALE')
    assert image.allocated == catalog.paths.sealed(NEXT).stat().st_blocks * 512


@pytest.mark.parametrize('text', [b'', b'{"version": 99}', None], ids=['no', 'too new', 'none'])
def test_a_record_that_cannot_be_read_is_a_broken_cache(gather, catalog, text):
    builders.ready(catalog)
    if text is None:
        catalog.paths.record(KEY).unlink()
    else:
        catalog.paths.record(KEY).write_bytes(text)
    (image,) = gather().images
    assert (image.states, image.quota) == (('BROKEN',), None)
    assert image.allocated > 0


def test_recorders(gather, catalog, recorder):
    builders.warm(catalog)
    builders.warm(catalog, key=OTHER)
    for key in (KEY, OTHER):
        catalog.paths.control_socket(key).touch()
    catalog.paths.log(KEY).touch()
    (catalog.paths.control / 'foreign.ctl').touch()
    recorder.status.side_effect = [
        builders.status(Phase.RECORDING, guests=2),
        builders.status(Phase.SERVING, guests=3),
    ]
    seen = gather()
    assert seen.recorders == {'recording': 1, 'serving': 1}
    assert seen.guests == 5
    assert seen.states == {'RECORDING': 2}


def test_recorders_that_are_silent_do_not_take_long(gather, catalog, recorder):
    for number in range(1, 6):
        key = CacheKey(IMAGE, GENERATION, number)
        catalog.paths.control_socket(key).touch()
    clock = iter([0, 0, 1, 2, 3, 4, 5])

    def answer() -> Status:
        return builders.status(Phase.RECORDING)

    recorder.status.side_effect = answer
    with mock.patch.object(time, 'monotonic', autospec=True, side_effect=clock):
        assert gather().recorders == {'recording': 2}


def test_an_unreadable_folder_is_an_error(gather, catalog):
    with (
        mock.patch.object(os, 'listdir', autospec=True, side_effect=PermissionError('no')),
        pytest.raises(OSError, match='no'),
    ):
        gather()


def test_each_figure_has_a_source():
    assert {field.name for field in dataclasses.fields(Counters)} <= set(snapshot.SOURCES)
    seen = {'hit_ratio', 'base_bytes', 'served_bytes', 'pool', 'recorders', 'guests'}
    assert seen <= set(snapshot.SOURCES)
    assert all(snapshot.SOURCES.values())


def test_a_cache_in_each_state_has_a_place():
    for state in State:
        if state is not State.COLD:
            assert state.value in snapshot._ORDER
