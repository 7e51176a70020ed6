# SPDX-License-Identifier: Apache-2.0
"""The store: states change in order, and no crash leaves anything that is READY and untrue."""

import dataclasses
import errno
import json
import logging
import os
import pathlib
import stat
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache import sealed_file
from nova_qcache.cache.catalog import Store
from nova_qcache.model.key import CacheKey
from nova_qcache.model.source import BaseIdentity
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from nova_qcache.system import files
from nova_qcache.system import locks
from nova_qcache.system import native
from tests.unit import builders
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY

FULL = OSError(errno.ENOSPC, 'No space left on device')


def facts_of(path):
    return sealed_file.describe(path, sealed_file.digest(path), FinishReason.QUOTA)


def test_cold_is_the_absence_of_a_record(store):
    assert store.load(KEY) is None
    assert store.keys() == []


def test_begin(store):
    record = builders.record()
    store.begin(record)
    assert store.load(KEY) == record
    assert record.state is State.WARMING
    assert stat.S_IMODE(store.paths.record(KEY).stat().st_mode) == 0o640


@pytest.mark.parametrize('there', [builders.warm, builders.ready])
def test_begin_where_there_is_a_cache(store, there):
    before = there(store)
    with pytest.raises(exception.WrongState) as caught:
        store.begin(builders.record())
    assert f'{IMAGE} is {before.state.value} and cannot become WARMING' in str(caught.value)
    assert store.load(KEY) == before


def test_seal(store):
    record = builders.warm(store, b'cached')
    facts = facts_of(store.paths.recording(KEY))
    ready = store.seal(record, facts)
    assert (ready.state, ready.sealed) == (State.READY, facts)
    assert store.load(KEY) == ready
    assert store.paths.sealed(KEY).read_bytes() == b'cached'
    assert not store.paths.recording(KEY).exists()
    assert store.require_unchanged(ready) == store.paths.sealed(KEY)


def test_a_cache_is_ready_after_its_file_is_in_place_and_synced(store):
    record = builders.warm(store)
    facts = facts_of(store.paths.recording(KEY))
    steps: list[tuple] = []

    def write(path, content, mode, *, sync):
        steps.append((json.loads(content)['state'], store.paths.sealed(KEY).exists(), sync))

    def sync(path):
        steps.append(('sync', path))

    with (
        mock.patch.object(files, 'replace_atomically', autospec=True, side_effect=write),
        mock.patch.object(files, 'sync_folder', autospec=True, side_effect=sync),
    ):
        store.seal(record, facts)
    assert steps == [('sync', store.paths.cache_path), ('READY', True, True)]


@pytest.mark.parametrize('content', [b'', bytes(300)])
def test_a_record_that_a_crash_of_the_host_left_without_content_is_none(store, content):
    """Nobody waits for that of a recording, which is dirty then."""
    store.paths.record(KEY).write_bytes(content)
    store.paths.recording(KEY).write_bytes(b'dirty')
    assert store.load(KEY) is None
    store.discard_recording(KEY)
    assert store.keys() == []


def test_a_recording_begins_and_is_thrown_away_without_a_wait_for_a_disk(store):
    """A boot would wait with it, and guests whose daemon has died."""
    with mock.patch.object(os, 'fsync', autospec=True) as fsync:
        builders.warm(store)
        store.discard_recording(KEY)
    fsync.assert_not_called()
    builders.ready(store)
    with mock.patch.object(os, 'fsync', autospec=True) as fsync:
        store.discard(KEY)
    assert fsync.call_count == 1, 'what was READY goes in order'


@pytest.mark.parametrize(
    ('module', 'name'),
    [(os, 'rename'), (files, 'sync_folder'), (files, 'replace_atomically')],
)
def test_a_seal_that_breaks_off_is_not_ready_and_may_be_done_again(store, module, name):
    record = builders.warm(store, b'cached')
    facts = facts_of(store.paths.recording(KEY))
    with (
        mock.patch.object(module, name, autospec=True, side_effect=FULL),
        pytest.raises((exception.FolderUnfit, OSError)),
    ):
        store.seal(record, facts)
    assert store.load(KEY) == record
    ready = store.seal(record, facts)
    assert store.load(KEY) == ready
    assert store.require_unchanged(ready).read_bytes() == b'cached'


def test_a_recording_that_was_dropped_cannot_be_sealed(store):
    record = builders.warm(store)
    facts = facts_of(store.paths.recording(KEY))
    store.discard(KEY)
    store.paths.recording(KEY).write_bytes(b'left behind')
    with pytest.raises(exception.WrongState, match=f'{IMAGE} is COLD and cannot become READY'):
        store.seal(record, facts)
    assert store.load(KEY) is None
    assert not store.paths.sealed(KEY).exists()


def test_retire(store):
    record = builders.ready(store)
    store.retire(record, 'the base differs')
    after = store.load(KEY)
    assert (after.state, after.stale_reason) == (State.STALE, 'the base differs')
    assert after.sealed == record.sealed
    assert store.paths.sealed(KEY).exists(), 'guests go on reading it'


@pytest.mark.parametrize('state', [State.COLD, State.WARMING, State.STALE])
def test_what_is_not_ready_any_more_is_not_retired(store, state):
    """Others retire and remove caches, too."""
    if state is State.STALE:
        store.retire(builders.ready(store), 'once')
    elif state is State.WARMING:
        builders.warm(store)
    before = store.load(KEY)
    store.retire(builders.record(State.READY), 'again')
    assert store.load(KEY) == before


@pytest.mark.parametrize('staleness', Staleness)
def test_what_is_retired_is_counted_and_said(store, staleness, caplog):
    caplog.set_level(logging.INFO)
    store.retire(builders.ready(store), 'why', staleness)
    assert store.ledger.of(IMAGE).invalidations == {staleness.value: 1}
    (line,) = (line for line in caplog.records if 'not used any more: why' in line.getMessage())
    is_trouble = staleness is not Staleness.REVISION
    assert line.levelno == (logging.WARNING if is_trouble else logging.INFO)
    store.retire(builders.record(State.READY), 'why')
    assert store.ledger.of(IMAGE).invalidations == {staleness.value: 1}, 'once'


def test_a_base_that_changed_is_what_retires_unless_it_is_said(store):
    store.retire(builders.ready(store), 'why')
    assert store.ledger.of(IMAGE).invalidations == {'changed': 1}


def test_refresh_notes_what_was_proved(store):
    record = builders.ready(store)
    now = builders.sealed(mtime_ns=5)
    identity = BaseIdentity(1, 2, 3)
    store.refresh(dataclasses.replace(record, sealed=now, base_identity=identity))
    after = store.load(KEY)
    assert (after.sealed, after.base_identity, after.state) == (now, identity, State.READY)


def test_refresh_brings_nothing_back(store):
    record = builders.ready(store)
    store.retire(record, 'meanwhile')
    before = store.load(KEY)
    store.refresh(record)
    assert store.load(KEY) == before
    store.discard(KEY)
    store.refresh(record)
    assert store.load(KEY) is None


@pytest.mark.parametrize('there', [lambda store: None, builders.warm, builders.ready])
def test_discard(store, there):
    there(store)
    store.discard(KEY)
    assert store.load(KEY) is None
    assert store.keys() == []
    store.discard(KEY)


def test_discard_of_what_cannot_be_read(store):
    builders.ready(store)
    store.paths.record(KEY).write_bytes(b'nonsense')
    store.discard(KEY)
    assert store.keys() == []


@pytest.mark.parametrize('there', [builders.warm, builders.ready])
def test_a_requirement_that_is_not_met_keeps_everything(store, there):
    before = there(store)
    files = sorted(store.paths.cache_path.iterdir())
    error = exception.CacheInUse(path='x', reason='y', remedy='z')
    with pytest.raises(exception.CacheInUse):
        store.discard(KEY, mock.Mock(side_effect=error))
    assert store.load(KEY) == before
    assert sorted(store.paths.cache_path.iterdir()) == files
    store.discard(KEY, lambda: None)
    assert store.keys() == []


def test_a_requirement_is_asked_for_once_under_the_lock(store):
    builders.ready(store)
    require = mock.Mock(side_effect=lambda: require_locked(store))
    store.discard(KEY, require)
    require.assert_called_once_with()


def require_locked(store):
    assert store.load(KEY) is not None
    with (
        pytest.raises(exception.LockTimeout),
        locks.lease(store.paths.locks, IMAGE, 0),
    ):
        pass


def test_lease(store):
    builders.ready(store)
    take = mock.Mock(side_effect=lambda: require_locked(store))
    assert store.lease(KEY, take)
    take.assert_called_once_with()


def test_a_lease_does_not_wait_for_a_state_that_changes(store):
    builders.ready(store)
    with locks.image(store.paths.locks, IMAGE, 0):
        assert store.lease(KEY, mock.Mock())


@pytest.mark.parametrize(
    'change',
    [
        lambda store, record: store.discard(KEY, mock.Mock()),
        lambda store, record: store.retire(record, 'x'),
        lambda store, record: store.refresh(record),
        lambda store, record: store.carry_over(record, KEY.generation.next()),
    ],
    ids=['discard', 'retire', 'refresh', 'carry over'],
)
def test_a_lease_waits_for_no_disk(store, change):
    record = builders.ready(store)
    boot, syncs = Store(store.paths, 0), []

    def sync(*_):
        syncs.append(boot.lease(KEY, mock.Mock()))  # and not a word of a lock

    with mock.patch.object(native, 'run', autospec=True, side_effect=sync):
        change(store, record)
    assert syncs


@pytest.mark.parametrize('staleness', Staleness)
def test_what_no_lookup_finds_is_retired_without_a_wait(store, staleness):
    """A boot that records waits for it; after a crash of the host it is READY again, of a
    generation or a base that has gone."""
    record = builders.ready(store)
    with mock.patch.object(native, 'run', autospec=True) as sync:
        store.retire(record, 'x', staleness)
    assert sync.called == (staleness is not Staleness.WRITTEN)
    assert store.load(KEY).state is State.STALE


@pytest.mark.parametrize('state', [State.COLD, State.WARMING, State.STALE])
def test_only_a_ready_cache_is_leased(store, state):
    if state is State.STALE:
        store.retire(builders.ready(store), 'x')
    elif state is State.WARMING:
        builders.warm(store)
    take = mock.Mock()
    assert not store.lease(KEY, take)
    take.assert_not_called()


def test_a_lease_of_what_cannot_be_read(store):
    builders.ready(store)
    store.paths.record(KEY).write_bytes(b'nonsense')
    with pytest.raises(exception.RecordBroken):
        store.lease(KEY, mock.Mock(side_effect=AssertionError))


def test_a_lease_that_cannot_be_taken(store):
    before = builders.ready(store)
    with pytest.raises(OSError, match='No space left'):
        store.lease(KEY, mock.Mock(side_effect=FULL))
    assert store.load(KEY) == before
    store.discard(KEY)  # the lock is free again


def test_a_record_goes_before_its_files(store):
    builders.ready(store)
    gone = []
    unlink = pathlib.Path.unlink

    def note(path, missing_ok=False):
        if path.exists():
            gone.append(path)
        unlink(path, missing_ok)

    def sync(path):
        gone.append('sync')

    with (
        mock.patch.object(pathlib.Path, 'unlink', autospec=True, side_effect=note),
        mock.patch.object(files, 'sync_folder', autospec=True, side_effect=sync),
    ):
        store.discard(KEY)
    assert gone == [store.paths.record(KEY), 'sync', store.paths.sealed(KEY)]


CHANGES = {
    'begin': lambda store: store.begin(builders.record()),
    'seal': lambda store: store.seal(builders.record(), builders.sealed()),
    'retire': lambda store: store.retire(builders.record(State.READY), ''),
    'refresh': lambda store: store.refresh(builders.record(State.READY)),
    'discard': lambda store: store.discard(KEY),
}


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_states_change_under_the_lock_of_the_image(paths, change):
    store = Store(paths, 0)
    with locks.image(paths.locks, IMAGE, 0), pytest.raises(exception.LockTimeout, match=IMAGE):
        change(store)
    assert store.load(KEY) is None


# -- carrying over

NEW = CacheKey(KEY.image_id, KEY.generation.next())


def test_a_cache_is_carried_over(store):
    record = builders.ready(store)
    carried = store.carry_over(record, NEW.generation)
    assert carried == dataclasses.replace(record, key=NEW) == store.load(NEW)
    assert store.load(KEY).state is State.STALE
    assert str(NEW.generation) in store.load(KEY).stale_reason
    old, new = store.require_unchanged(record), store.require_unchanged(carried)
    assert old.samefile(new), 'guests that read it by the old name go on'
    store.discard(KEY)
    assert store.require_unchanged(carried).read_bytes() == b'cached'


def test_a_second_name_is_on_disk_before_its_record(store):
    record = builders.ready(store)
    with (
        mock.patch.object(files, 'sync_folder', autospec=True, side_effect=FULL) as sync,
        pytest.raises(exception.CacheBroken, match='No space left'),
    ):
        store.carry_over(record, NEW.generation)
    sync.assert_called_once_with(store.paths.cache_path)
    assert store.load(NEW) is None


@pytest.mark.parametrize('there', [builders.warm, builders.ready])
def test_a_cache_of_the_new_generation_is_kept(store, there):
    record = builders.ready(store)
    before = there(store, b'new', key=NEW)
    with pytest.raises(exception.WrongState, match=IMAGE):
        store.carry_over(record, NEW.generation)
    assert store.load(NEW) == before
    assert store.load(KEY) == record


def test_what_was_retired_meanwhile_is_not_carried_over(store):
    record = builders.ready(store)
    store.retire(record, 'x')
    with pytest.raises(exception.WrongState, match=IMAGE):
        store.carry_over(record, NEW.generation)
    assert store.load(NEW) is None


def test_what_a_former_attempt_left_is_in_nobodys_way(store):
    record = builders.ready(store)
    store.paths.sealed(NEW).write_bytes(b'left')
    store.require_unchanged(store.carry_over(record, NEW.generation))


def test_a_crash_between_the_two_records_is_made_up_for(store):
    record = builders.ready(store)
    with (
        mock.patch.object(store, '_set_state', autospec=True, side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        store.carry_over(record, NEW.generation)
    assert (store.load(KEY).state, store.load(NEW).state) == (State.READY, State.READY)
    store.carry_over(record, NEW.generation)
    assert (store.load(KEY).state, store.load(NEW).state) == (State.STALE, State.READY)
    store.require_unchanged(store.load(NEW))


def test_a_file_system_that_gives_no_reason_is_quoted(store):
    record = builders.ready(store)
    odd = mock.Mock(side_effect=OSError('odd'))
    with mock.patch.object(os, 'link', odd), pytest.raises(exception.CacheBroken, match=': odd'):
        store.carry_over(record, NEW.generation)
    with (
        mock.patch.object(pathlib.Path, 'lstat', odd),
        pytest.raises(exception.CacheBroken, match=': odd'),
    ):
        store.require_unchanged(record)


def test_a_file_that_is_gone_is_not_carried_over(store):
    record = builders.ready(store)
    store.paths.sealed(KEY).unlink()
    with pytest.raises(exception.CacheBroken, match='No such file'):
        store.carry_over(record, NEW.generation)
    assert store.load(NEW) is None
    assert store.load(KEY) == record


def test_a_judgement_of_a_cache_of_before_retires_no_other(store):
    judged = builders.ready(store)
    store.discard(KEY)
    now = builders.ready(store, b'again', created_at=2e9)
    store.retire(judged, 'x')
    store.refresh(dataclasses.replace(judged, base_identity=BaseIdentity(1, 2, 3)))
    assert store.load(KEY) == now
