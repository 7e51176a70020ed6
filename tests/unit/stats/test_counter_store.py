# SPDX-License-Identifier: Apache-2.0
"""Counting, kept across restarts; nothing that is wrong with it fails what is counted."""

import concurrent.futures
import logging
import os
from unittest import mock

import pytest

from nova_qcache.model.plan import Cause
from nova_qcache.model.plan import Plan
from nova_qcache.model.plan import PlanKind
from nova_qcache.stats import counters
from nova_qcache.stats.counter_store import CounterStore
from nova_qcache.stats.counters import Counters
from nova_qcache.system import locks
from tests.unit.builders import BOOT
from tests.unit.builders import IMAGE
from tests.unit.builders import OTHER_IMAGE


@pytest.fixture
def counter_store(paths):
    return CounterStore(paths, 1)


def warnings(caplog):
    return [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_it_is_kept_across_restarts(paths, counter_store):
    counter_store.add(IMAGE, Counters(boots=1, plain={'stale': 1}))
    counter_store.add(IMAGE, Counters(boots=1))
    later = CounterStore(paths, 1)
    assert later.of(IMAGE) == Counters(boots=2, plain={'stale': 1})
    assert later.of(OTHER_IMAGE) == Counters()
    assert later.all() == {IMAGE: Counters(boots=2, plain={'stale': 1})}


@pytest.mark.parametrize(
    ('plan', 'counted'),
    [
        (Plan(PlanKind.PLAY, '', *BOOT), Counters(boots=1, plays=1, saved_bytes=70)),
        (Plan(PlanKind.RECORD, '', *BOOT), Counters(boots=1, records=1)),
        (Plan(PlanKind.RECORD, '', *BOOT, is_audit=True), Counters(boots=1, audits=1)),
        (
            Plan(PlanKind.PLAIN, '', *BOOT, cause=Cause.NO_ROOM),
            Counters(boots=1, plain={'no-room': 1}),
        ),
        (
            Plan(PlanKind.PLAIN, '', *BOOT, cause=Cause.FALLBACK),
            Counters(boots=1, plain={'fallback': 1}, fallbacks=1),
        ),
    ],
)
def test_a_boot_is_counted_by_what_it_has_started_with(counter_store, plan, counted):
    counter_store.add(IMAGE, Counters(boot_bytes=70))
    counter_store.boot(plan)
    found = counter_store.of(IMAGE)
    for name in ('boots', 'plays', 'records', 'audits', 'plain', 'fallbacks', 'saved_bytes'):
        assert getattr(found, name) == getattr(counted, name), name
    assert found.last_boot_at == found.last_used_at > 1_700_000_000
    assert found.boot_bytes == 70


def test_no_boot_waits_for_a_disk(counter_store):
    with mock.patch.object(os, 'fsync', autospec=True) as fsync:
        counter_store.boot(Plan(PlanKind.PLAY, '', *BOOT))
    fsync.assert_not_called()


def test_a_boot_of_what_is_no_image_is_not_counted(counter_store, paths):
    counter_store.boot(Plan(PlanKind.PLAIN, '', '../../x', '', ''))
    assert list(paths.statistics.iterdir()) == []


def test_the_sum_for_the_host_keeps_what_is_forgotten(counter_store):
    counter_store.add(IMAGE, Counters(boots=1, evictions={'room': 1}))
    counter_store.add(OTHER_IMAGE, Counters(boots=2))
    before = counter_store.total(counter_store.all().values())
    counter_store.forget([IMAGE])
    assert counter_store.all() == {OTHER_IMAGE: Counters(boots=2)}
    assert counter_store.total(counter_store.all().values()) == before
    counter_store.forget([IMAGE])  # of which nothing is known
    assert counter_store.total(counter_store.all().values()) == before


@pytest.mark.parametrize('text', [b'', b'{"version": 1, "boots": -1}', b'\0' * 100])
def test_a_file_that_is_none_counts_from_zero_and_says_so(counter_store, paths, caplog, text):
    path = paths.statistics / f'{IMAGE}.json'
    path.write_bytes(text)
    counter_store.add(IMAGE, Counters(boots=1))
    assert counter_store.of(IMAGE) == Counters(boots=1)
    (warning,) = warnings(caplog)
    assert str(path) in warning.getMessage()


def look_at_everything(counter_store):
    assert counter_store.of(IMAGE) == Counters()
    counter_store.all()
    counter_store.total([])


NO_COUNTERS = {
    'none': b'',
    'damaged': b'\0' * 100,
    'newer': b'{"version": 2, "boots": 1000}',
}


@pytest.mark.parametrize('text', NO_COUNTERS.values(), ids=list(NO_COUNTERS))
def test_who_looks_changes_nothing(counter_store, paths, caplog, text):
    files = [paths.statistics / f'{name}.json' for name in (IMAGE, 'past')]
    for file in files:
        file.write_bytes(text)
    before = [file.stat() for file in files]
    for _ in range(3):
        look_at_everything(counter_store)
    assert [file.stat().st_ino for file in files] == [facts.st_ino for facts in before]
    assert [file.read_bytes() for file in files] == [text, text]
    said = [warning.getMessage() for warning in warnings(caplog)]
    assert len(said) == len(files), 'each is named once'
    assert all(str(file) in text for file, text in zip(files, said, strict=True))


def test_what_a_newer_version_counted_is_not_counted_on(counter_store, paths, caplog):
    """A package is rolled back, and comes again."""
    texts = {}
    for name in (IMAGE, 'past'):
        texts[name] = f'{{"version": 2, "boots": "of {name}"}}'.encode()
        (paths.statistics / f'{name}.json').write_bytes(texts[name])
    counter_store.add(IMAGE, Counters(boots=1))
    counter_store.boot(Plan(PlanKind.PLAY, '', *BOOT))
    counter_store.add(OTHER_IMAGE, Counters(boots=1))
    counter_store.forget([IMAGE, OTHER_IMAGE])
    for name, text in texts.items():
        assert (paths.statistics / f'{name}.json').read_bytes() == text
    assert counter_store.of(OTHER_IMAGE) == Counters(boots=1), (
        'the sum that it would go to is not read'
    )
    assert 'have version 2, but this nova-qcache reads up to 1' in caplog.text


def use_everything(counter_store):
    counter_store.add(IMAGE, Counters(boots=1))
    counter_store.boot(Plan(PlanKind.PLAY, '', *BOOT))
    counter_store.forget([IMAGE])
    counter_store.clear_leftovers()
    assert counter_store.of(IMAGE) == Counters()
    assert counter_store.all() == {}


def test_a_folder_that_is_gone_fails_nothing(counter_store, paths, caplog):
    paths.statistics.rmdir()
    use_everything(counter_store)
    assert not warnings(caplog)  # whoever needs the folder says so


def test_a_folder_that_is_none_is_said_once_and_fails_nothing(counter_store, paths, caplog):
    paths.statistics.rmdir()
    paths.statistics.write_text('')
    for _ in range(3):
        use_everything(counter_store)
    assert len(warnings(caplog)) == len({each.getMessage() for each in warnings(caplog)}) > 0


def test_a_fault_of_ours_fails_no_boot(counter_store, caplog):
    def wrong(counters):
        raise RuntimeError('never thought of')

    counter_store.change(IMAGE, wrong)
    assert 'never thought of' in caplog.text
    counter_store.add(IMAGE, Counters(boots=1))
    assert counter_store.of(IMAGE).boots == 1


def test_a_lock_that_stays_taken_is_waited_for_in_vain_and_not_for_long(paths, caplog):
    counter_store = CounterStore(paths, 0.05)
    with locks.statistics(paths.locks, 1), concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(counter_store.add, IMAGE, Counters(boots=1)).result()
    assert counter_store.of(IMAGE) == Counters()
    assert 'Failed to update counters' in caplog.text


def test_counting_at_the_same_time_loses_nothing(paths):
    def count(_):
        one = CounterStore(paths, 600)
        for _ in range(20):
            one.add(IMAGE, Counters(boots=1))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert CounterStore(paths, 1).of(IMAGE).boots == 80
    assert [path.name for path in paths.statistics.iterdir()] == [f'{IMAGE}.json']


def test_what_has_not_changed_is_not_read_again(counter_store, paths):
    for image_id in (IMAGE, OTHER_IMAGE):
        counter_store.add(image_id, Counters(boots=1))
        os.utime(paths.statistics / f'{image_id}.json', (1_700_000_000, 1_700_000_000))
    before = counter_store.all()
    CounterStore(paths, 1).add(IMAGE, Counters(boots=1))  # another process
    with mock.patch.object(counters, 'loads', autospec=True, side_effect=counters.loads) as read:
        assert counter_store.all() == {**before, IMAGE: Counters(boots=2)}
    read.assert_called_once()


def test_what_was_written_just_now_is_read_again(counter_store, paths):
    path = paths.statistics / f'{IMAGE}.json'
    counter_store.add(IMAGE, Counters(boots=1))
    assert counter_store.of(IMAGE).boots == 1
    facts = path.stat()  # within one tick of its file system nothing of that may change
    path.write_bytes(counters.dumps(Counters(boots=2)))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert counter_store.of(IMAGE).boots == 2


def test_foreign_files_are_no_images(counter_store, paths):
    (paths.statistics / 'history.json').write_text('[]')
    (paths.statistics / 'x').write_text('')
    assert counter_store.all() == {}
    assert (paths.statistics / 'history.json').exists()


def test_what_a_crash_left_half_written_goes(counter_store, paths):
    (paths.statistics / f'.{IMAGE}.1').write_text('')
    counter_store.add(IMAGE, Counters(boots=1))
    counter_store.clear_leftovers()
    assert [path.name for path in paths.statistics.iterdir()] == [f'{IMAGE}.json']
