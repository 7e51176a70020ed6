# SPDX-License-Identifier: Apache-2.0
"""What is done now and then: all of it, whatever fails."""

import logging
import os
import time
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.expiry import Expiry
from nova_qcache.cache.pool import Pool
from nova_qcache.cache.scrub import Scrubber
from nova_qcache.engine.maintenance import Maintenance
from nova_qcache.model.key import CacheKey
from nova_qcache.reports import metrics
from nova_qcache.reports.snapshot import Snapshot
from nova_qcache.reports.time_series import TimeSeries
from nova_qcache.stats.counters import Counters
from nova_qcache.system import locks
from tests.unit import builders
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE

DAY = 24 * 3600


@pytest.fixture
def parts():
    """Doubles of what it works with, all below one, which knows the order."""
    made = mock.Mock()
    for name, kind in (
        ('expiry', Expiry),
        ('pool', Pool),
        ('scrubber', Scrubber),
        ('time_series', TimeSeries),
    ):
        made.attach_mock(mock.create_autospec(kind, instance=True), name)
    made.snapshot.return_value = mock.create_autospec(Snapshot, instance=True)
    return made


@pytest.fixture
def written():
    with mock.patch.object(metrics, 'write', autospec=True) as made:
        yield made


@pytest.fixture
def make_maintenance(catalog, parts, written):
    def make(metrics_file):
        return Maintenance(
            catalog,
            parts.pool,
            parts.expiry,
            parts.scrubber,
            parts.time_series,
            parts.snapshot,
            scrub_bytes=4096,
            metrics_file=metrics_file,
        )

    return make


@pytest.fixture
def maintenance(make_maintenance, tmp_path):
    return make_maintenance(str(tmp_path / 'x.prom'))


def test_all_of_it_and_in_order(maintenance, parts, written, tmp_path):
    maintenance.run({IMAGE}, 777)
    snapshot = parts.snapshot.return_value
    assert parts.mock_calls == [
        mock.call.expiry.note_used({IMAGE}),
        mock.call.expiry.purge_deleted(),
        mock.call.expiry.expire(777),
        mock.call.pool.trim(),
        mock.call.scrubber.scrub(4096),
        mock.call.snapshot(),
        mock.call.time_series.note(snapshot),
    ]
    written.assert_called_once_with(snapshot, tmp_path / 'x.prom')


STEPS = {
    'note_used': lambda parts: parts.expiry.note_used,
    'purge_deleted': lambda parts: parts.expiry.purge_deleted,
    'age': lambda parts: parts.expiry.expire,
    'trim': lambda parts: parts.pool.trim,
    'scrub': lambda parts: parts.scrubber.scrub,
    'figures': lambda parts: parts.snapshot,
}


@pytest.mark.parametrize('step', STEPS)
@pytest.mark.parametrize(
    'fault',
    [
        exception.LockTimeout(name='pool', path='/x', seconds=1),
        OSError(5, 'Input/output error', '/x'),
        RuntimeError('never thought of'),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_step_that_fails_stops_no_other(maintenance, parts, caplog, step, fault):
    STEPS[step](parts).side_effect = fault
    maintenance.run(set(), None)
    assert all(find(parts).called for find in STEPS.values())
    assert [each.levelno >= logging.WARNING for each in caplog.records].count(True) == 1


def test_the_same_fault_is_said_once(maintenance, parts, caplog):
    parts.pool.trim.side_effect = OSError(5, 'Input/output error', '/x')
    for _ in range(3):
        maintenance.run(set(), None)
    assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) == 1


def test_without_a_metrics_file_none_is_written(make_maintenance, parts, written):
    make_maintenance('').run(set(), None)
    written.assert_not_called()
    parts.time_series.note.assert_called_once()


# -- foreign files


def test_what_is_not_ours_is_named_once_and_left_alone(maintenance, paths, caplog):
    foreign = paths.cache_path / 'notes.txt'
    foreign.write_text('mine')
    for _ in range(3):
        maintenance.run(set(), None)
    (warning,) = caplog.records
    assert 'notes.txt' in warning.getMessage()
    assert foreign.read_text() == 'mine'
    (paths.cache_path / 'more').mkdir()
    maintenance.run(set(), None)
    assert 'more' in caplog.records[-1].getMessage()
    assert 'notes.txt' not in caplog.records[-1].getMessage()


def test_nothing_is_kept_of_caches_that_are_gone(maintenance, catalog, paths):
    gone = CacheKey(OTHER_IMAGE, GENERATION)
    for key in (KEY, gone):
        builders.ready(catalog, key=key)
        os.utime(paths.record(key), (1, 1))
        catalog.load(key)
        catalog.counter_store.add(key.image_id, Counters(boots=1))
        os.utime(paths.statistics / f'{key.image_id}.json', (1, 1))
        catalog.counter_store.of(key.image_id)
        with locks.recorder(paths.locks, key):
            pass
    Catalog(paths, 60).discard(gone)  # by another process
    (paths.statistics / f'{OTHER_IMAGE}.json').unlink()
    maintenance.run(set(), None)
    assert sorted(path.name for path in paths.locks.iterdir()) == [
        f'image-{IMAGE}',
        f'recorder-{KEY.stem}',
        'statistics',
    ]
    assert list(catalog._records._known) == [paths.record(KEY)]
    assert list(catalog.counter_store._files._known) == [paths.statistics / f'{IMAGE}.json']


def test_very_many_foreign_files_are_not_all_named(maintenance, paths, caplog):
    for number in range(100):
        (paths.cache_path / f'foreign-{number:03}').write_text('')
    maintenance.run(set(), None)
    (warning,) = caplog.records
    assert warning.getMessage().count('foreign-') == 20


# -- forgetting


@pytest.mark.parametrize(
    ('days', 'has_cache', 'kept'), [(91, False, False), (91, True, True), (89, False, True)]
)
def test_images_that_are_long_gone_count_with_the_host_alone(
    maintenance, catalog, days, has_cache, kept
):
    counter_store = catalog.counter_store
    counter_store.add(IMAGE, Counters(boots=2, last_used_at=time.time() - days * DAY))
    counter_store.add(OTHER_IMAGE, Counters(boots=3, last_used_at=time.time()))
    if has_cache:
        builders.ready(catalog)
    maintenance.run(set(), None)
    assert (IMAGE in counter_store.all()) is kept
    assert counter_store.total(counter_store.all().values()).boots == 5
