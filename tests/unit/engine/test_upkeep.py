# SPDX-License-Identifier: Apache-2.0
"""What is done now and then: all of it, whatever fails."""

import logging
import os
import time
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache.catalog import Store
from nova_qcache.cache.expiry import Ageing
from nova_qcache.cache.pool import Pool
from nova_qcache.cache.scrub import Scrubber
from nova_qcache.engine.upkeep import Upkeep
from nova_qcache.model.key import CacheKey
from nova_qcache.reports import metrics
from nova_qcache.reports.figures import Figures
from nova_qcache.reports.history import History
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
        ('ageing', Ageing),
        ('pool', Pool),
        ('scrubber', Scrubber),
        ('history', History),
    ):
        made.attach_mock(mock.create_autospec(kind, instance=True), name)
    made.figures.return_value = mock.create_autospec(Figures, instance=True)
    return made


@pytest.fixture
def written():
    with mock.patch.object(metrics, 'write', autospec=True) as made:
        yield made


@pytest.fixture
def make_upkeep(store, parts, written):
    def make(metrics_file):
        return Upkeep(
            store,
            parts.pool,
            parts.ageing,
            parts.scrubber,
            parts.history,
            parts.figures,
            scrub_bytes=4096,
            metrics_file=metrics_file,
        )

    return make


@pytest.fixture
def upkeep(make_upkeep, tmp_path):
    return make_upkeep(str(tmp_path / 'x.prom'))


def test_all_of_it_and_in_order(upkeep, parts, written, tmp_path):
    upkeep.run({IMAGE}, 777)
    figures = parts.figures.return_value
    assert parts.mock_calls == [
        mock.call.ageing.note_used({IMAGE}),
        mock.call.ageing.purge_deleted(),
        mock.call.ageing.age(777),
        mock.call.pool.trim(),
        mock.call.scrubber.scrub(4096),
        mock.call.figures(),
        mock.call.history.note(figures),
    ]
    written.assert_called_once_with(figures, tmp_path / 'x.prom')


STEPS = {
    'note_used': lambda parts: parts.ageing.note_used,
    'purge_deleted': lambda parts: parts.ageing.purge_deleted,
    'age': lambda parts: parts.ageing.age,
    'trim': lambda parts: parts.pool.trim,
    'scrub': lambda parts: parts.scrubber.scrub,
    'figures': lambda parts: parts.figures,
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
def test_a_step_that_fails_stops_no_other(upkeep, parts, caplog, step, fault):
    STEPS[step](parts).side_effect = fault
    upkeep.run(set(), None)
    assert all(find(parts).called for find in STEPS.values())
    assert [each.levelno >= logging.WARNING for each in caplog.records].count(True) == 1


def test_the_same_fault_is_said_once(upkeep, parts, caplog):
    parts.pool.trim.side_effect = OSError(5, 'Input/output error', '/x')
    for _ in range(3):
        upkeep.run(set(), None)
    assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) == 1


def test_without_a_metrics_file_none_is_written(make_upkeep, parts, written):
    make_upkeep('').run(set(), None)
    written.assert_not_called()
    parts.history.note.assert_called_once()


# -- foreign files


def test_what_is_not_ours_is_named_once_and_left_alone(upkeep, paths, caplog):
    foreign = paths.cache_path / 'notes.txt'
    foreign.write_text('mine')
    for _ in range(3):
        upkeep.run(set(), None)
    (warning,) = caplog.records
    assert 'notes.txt' in warning.getMessage()
    assert foreign.read_text() == 'mine'
    (paths.cache_path / 'more').mkdir()
    upkeep.run(set(), None)
    assert 'more' in caplog.records[-1].getMessage()
    assert 'notes.txt' not in caplog.records[-1].getMessage()


def test_nothing_is_kept_of_caches_that_are_gone(upkeep, store, paths):
    gone = CacheKey(OTHER_IMAGE, GENERATION)
    for key in (KEY, gone):
        builders.ready(store, key=key)
        os.utime(paths.record(key), (1, 1))
        store.load(key)
        store.ledger.add(key.image_id, Counters(boots=1))
        os.utime(paths.statistics / f'{key.image_id}.json', (1, 1))
        store.ledger.of(key.image_id)
        with locks.recorder(paths.locks, key):
            pass
    Store(paths, 60).discard(gone)  # by another process
    (paths.statistics / f'{OTHER_IMAGE}.json').unlink()
    upkeep.run(set(), None)
    assert sorted(path.name for path in paths.locks.iterdir()) == [
        f'image-{IMAGE}',
        f'recorder-{KEY.stem}',
        'statistics',
    ]
    assert list(store._records._known) == [paths.record(KEY)]
    assert list(store.ledger._files._known) == [paths.statistics / f'{IMAGE}.json']


def test_very_many_foreign_files_are_not_all_named(upkeep, paths, caplog):
    for number in range(100):
        (paths.cache_path / f'foreign-{number:03}').write_text('')
    upkeep.run(set(), None)
    (warning,) = caplog.records
    assert warning.getMessage().count('foreign-') == 20


# -- forgetting


@pytest.mark.parametrize(
    ('days', 'has_cache', 'kept'), [(91, False, False), (91, True, True), (89, False, True)]
)
def test_images_that_are_long_gone_count_with_the_host_alone(upkeep, store, days, has_cache, kept):
    ledger = store.ledger
    ledger.add(IMAGE, Counters(boots=2, last_used_at=time.time() - days * DAY))
    ledger.add(OTHER_IMAGE, Counters(boots=3, last_used_at=time.time()))
    if has_cache:
        builders.ready(store)
    upkeep.run(set(), None)
    assert (IMAGE in ledger.all()) is kept
    assert ledger.total(ledger.all().values()).boots == 5
