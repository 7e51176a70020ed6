# SPDX-License-Identifier: Apache-2.0
"""The catalog: states change in order, and no crash leaves anything that is READY and untrue."""

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
from nova_qcache.cache.catalog import Catalog
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


def test_cold_is_the_absence_of_a_record(catalog):
    assert catalog.load(KEY) is None
    assert catalog.keys() == []


def test_begin(catalog):
    record = builders.record()
    catalog.begin(record)
    assert catalog.load(KEY) == record
    assert record.state is State.RECORDING
    assert stat.S_IMODE(catalog.paths.record(KEY).stat().st_mode) == 0o640


@pytest.mark.parametrize('there', [builders.warm, builders.ready])
def test_begin_where_there_is_a_cache(catalog, there):
    before = there(catalog)
    with pytest.raises(exception.WrongState) as caught:
        catalog.begin(builders.record())
    assert f'{IMAGE} is {before.state.value} and cannot become RECORDING' in str(caught.value)
    assert catalog.load(KEY) == before


def test_seal(catalog):
    record = builders.warm(catalog, b'cached')
    facts = facts_of(catalog.paths.recording(KEY))
    ready = catalog.seal(record, facts)
    assert (ready.state, ready.sealed) == (State.READY, facts)
    assert catalog.load(KEY) == ready
    assert catalog.paths.sealed(KEY).read_bytes() == b'cached'
    assert not catalog.paths.recording(KEY).exists()
    assert catalog.require_unchanged(ready) == catalog.paths.sealed(KEY)


def test_a_cache_is_ready_after_its_file_is_in_place_and_synced(catalog):
    record = builders.warm(catalog)
    facts = facts_of(catalog.paths.recording(KEY))
    steps: list[tuple] = []

    def write(path, content, mode, *, sync):
        steps.append((json.loads(content)['state'], catalog.paths.sealed(KEY).exists(), sync))

    def sync(path):
        steps.append(('sync', path))

    with (
        mock.patch.object(files, 'replace_atomically', autospec=True, side_effect=write),
        mock.patch.object(files, 'sync_folder', autospec=True, side_effect=sync),
    ):
        catalog.seal(record, facts)
    assert steps == [('sync', catalog.paths.cache_path), ('READY', True, True)]


@pytest.mark.parametrize('content', [b'', bytes(300)])
def test_a_record_that_a_crash_of_the_host_left_without_content_is_none(catalog, content):
    """Nobody waits for that of a recording, which is dirty then."""
    catalog.paths.record(KEY).write_bytes(content)
    catalog.paths.recording(KEY).write_bytes(b'dirty')
    assert catalog.load(KEY) is None
    catalog.discard_recording(KEY)
    assert catalog.keys() == []


def test_a_recording_begins_and_is_thrown_away_without_a_wait_for_a_disk(catalog):
    """A boot would wait with it, and guests whose daemon has died."""
    with mock.patch.object(os, 'fsync', autospec=True) as fsync:
        builders.warm(catalog)
        catalog.discard_recording(KEY)
    fsync.assert_not_called()
    builders.ready(catalog)
    with mock.patch.object(os, 'fsync', autospec=True) as fsync:
        catalog.discard(KEY)
    assert fsync.call_count == 1, 'what was READY goes in order'


@pytest.mark.parametrize(
    ('module', 'name'),
    [(os, 'rename'), (files, 'sync_folder'), (files, 'replace_atomically')],
)
def test_a_seal_that_breaks_off_is_not_ready_and_may_be_done_again(catalog, module, name):
    record = builders.warm(catalog, b'cached')
    facts = facts_of(catalog.paths.recording(KEY))
    with (
        mock.patch.object(module, name, autospec=True, side_effect=FULL),
        pytest.raises((exception.FolderUnfit, OSError)),
    ):
        catalog.seal(record, facts)
    assert catalog.load(KEY) == record
    ready = catalog.seal(record, facts)
    assert catalog.load(KEY) == ready
    assert catalog.require_unchanged(ready).read_bytes() == b'cached'


def test_a_recording_that_was_dropped_cannot_be_sealed(catalog):
    record = builders.warm(catalog)
    facts = facts_of(catalog.paths.recording(KEY))
    catalog.discard(KEY)
    catalog.paths.recording(KEY).write_bytes(b'left behind')
    with pytest.raises(exception.WrongState, match=f'{IMAGE} is COLD and cannot become READY'):
        catalog.seal(record, facts)
    assert catalog.load(KEY) is None
    assert not catalog.paths.sealed(KEY).exists()


def test_retire(catalog):
    record = builders.ready(catalog)
    catalog.retire(record, 'the base differs')
    after = catalog.load(KEY)
    assert (after.state, after.stale_reason) == (State.STALE, 'the base differs')
    assert after.sealed == record.sealed
    assert catalog.paths.sealed(KEY).exists(), 'guests go on reading it'


@pytest.mark.parametrize('state', [State.COLD, State.RECORDING, State.STALE])
def test_what_is_not_ready_any_more_is_not_retired(catalog, state):
    """Others retire and remove caches, too."""
    if state is State.STALE:
        catalog.retire(builders.ready(catalog), 'once')
    elif state is State.RECORDING:
        builders.warm(catalog)
    before = catalog.load(KEY)
    catalog.retire(builders.record(State.READY), 'again')
    assert catalog.load(KEY) == before


@pytest.mark.parametrize('staleness', Staleness)
def test_what_is_retired_is_counted_and_said(catalog, staleness, caplog):
    caplog.set_level(logging.INFO)
    catalog.retire(builders.ready(catalog), 'why', staleness)
    assert catalog.counter_store.of(IMAGE).invalidations == {staleness.value: 1}
    (line,) = (
        line
        for line in caplog.records
        if 'is STALE now, no boot uses it again: why' in line.getMessage()
    )
    is_trouble = staleness is not Staleness.REVISION
    assert line.levelno == (logging.WARNING if is_trouble else logging.INFO)
    catalog.retire(builders.record(State.READY), 'why')
    assert catalog.counter_store.of(IMAGE).invalidations == {staleness.value: 1}, 'once'


def test_a_base_that_changed_is_what_retires_unless_it_is_said(catalog):
    catalog.retire(builders.ready(catalog), 'why')
    assert catalog.counter_store.of(IMAGE).invalidations == {'changed': 1}


def test_refresh_notes_what_was_proved(catalog):
    record = builders.ready(catalog)
    now = builders.sealed(mtime_ns=5)
    identity = BaseIdentity(1, 2, 3)
    catalog.refresh(dataclasses.replace(record, sealed=now, base_identity=identity))
    after = catalog.load(KEY)
    assert (after.sealed, after.base_identity, after.state) == (now, identity, State.READY)


def test_refresh_brings_nothing_back(catalog):
    record = builders.ready(catalog)
    catalog.retire(record, 'meanwhile')
    before = catalog.load(KEY)
    catalog.refresh(record)
    assert catalog.load(KEY) == before
    catalog.discard(KEY)
    catalog.refresh(record)
    assert catalog.load(KEY) is None


@pytest.mark.parametrize('there', [lambda catalog: None, builders.warm, builders.ready])
def test_discard(catalog, there):
    there(catalog)
    catalog.discard(KEY)
    assert catalog.load(KEY) is None
    assert catalog.keys() == []
    catalog.discard(KEY)


def test_discard_of_what_cannot_be_read(catalog):
    builders.ready(catalog)
    catalog.paths.record(KEY).write_bytes(b'nonsense')
    catalog.discard(KEY)
    assert catalog.keys() == []


@pytest.mark.parametrize('there', [builders.warm, builders.ready])
def test_a_requirement_that_is_not_met_keeps_everything(catalog, there):
    before = there(catalog)
    files = sorted(catalog.paths.cache_path.iterdir())
    error = exception.CacheInUse(path='x', reason='y', remedy='z')
    with pytest.raises(exception.CacheInUse):
        catalog.discard(KEY, mock.Mock(side_effect=error))
    assert catalog.load(KEY) == before
    assert sorted(catalog.paths.cache_path.iterdir()) == files
    catalog.discard(KEY, lambda: None)
    assert catalog.keys() == []


def test_a_requirement_is_asked_for_once_under_the_lock(catalog):
    builders.ready(catalog)
    require = mock.Mock(side_effect=lambda: require_locked(catalog))
    catalog.discard(KEY, require)
    require.assert_called_once_with()


def require_locked(catalog):
    assert catalog.load(KEY) is not None
    with (
        pytest.raises(exception.LockTimeout),
        locks.lease(catalog.paths.locks, IMAGE, 0),
    ):
        pass


def test_lease(catalog):
    builders.ready(catalog)
    take = mock.Mock(side_effect=lambda: require_locked(catalog))
    assert catalog.lease(KEY, take)
    take.assert_called_once_with()


def test_a_lease_does_not_wait_for_a_state_that_changes(catalog):
    builders.ready(catalog)
    with locks.image(catalog.paths.locks, IMAGE, 0):
        assert catalog.lease(KEY, mock.Mock())


@pytest.mark.parametrize(
    'change',
    [
        lambda catalog, record: catalog.discard(KEY, mock.Mock()),
        lambda catalog, record: catalog.retire(record, 'x'),
        lambda catalog, record: catalog.refresh(record),
        lambda catalog, record: catalog.retag(record, KEY.generation.next()),
    ],
    ids=['discard', 'retire', 'refresh', 'carry over'],
)
def test_a_lease_waits_for_no_disk(catalog, change):
    record = builders.ready(catalog)
    boot, syncs = Catalog(catalog.paths, 0), []

    def sync(*_):
        syncs.append(boot.lease(KEY, mock.Mock()))  # and not a word of a lock

    with mock.patch.object(native, 'run', autospec=True, side_effect=sync):
        change(catalog, record)
    assert syncs


@pytest.mark.parametrize('staleness', Staleness)
def test_what_no_lookup_finds_is_retired_without_a_wait(catalog, staleness):
    """A boot that records waits for it; after a crash of the host it is READY again, of a
    generation or a base that has gone."""
    record = builders.ready(catalog)
    with mock.patch.object(native, 'run', autospec=True) as sync:
        catalog.retire(record, 'x', staleness)
    assert sync.called == (staleness is not Staleness.WRITTEN)
    assert catalog.load(KEY).state is State.STALE


@pytest.mark.parametrize('state', [State.COLD, State.RECORDING, State.STALE])
def test_only_a_ready_cache_is_leased(catalog, state):
    if state is State.STALE:
        catalog.retire(builders.ready(catalog), 'x')
    elif state is State.RECORDING:
        builders.warm(catalog)
    take = mock.Mock()
    assert not catalog.lease(KEY, take)
    take.assert_not_called()


def test_a_lease_of_what_cannot_be_read(catalog):
    builders.ready(catalog)
    catalog.paths.record(KEY).write_bytes(b'nonsense')
    with pytest.raises(exception.RecordBroken):
        catalog.lease(KEY, mock.Mock(side_effect=AssertionError))


def test_a_lease_that_cannot_be_taken(catalog):
    before = builders.ready(catalog)
    with pytest.raises(OSError, match='No space left'):
        catalog.lease(KEY, mock.Mock(side_effect=FULL))
    assert catalog.load(KEY) == before
    catalog.discard(KEY)  # the lock is free again


def test_a_record_goes_before_its_files(catalog):
    builders.ready(catalog)
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
        catalog.discard(KEY)
    assert gone == [catalog.paths.record(KEY), 'sync', catalog.paths.sealed(KEY)]


CHANGES = {
    'begin': lambda catalog: catalog.begin(builders.record()),
    'seal': lambda catalog: catalog.seal(builders.record(), builders.sealed()),
    'retire': lambda catalog: catalog.retire(builders.record(State.READY), ''),
    'refresh': lambda catalog: catalog.refresh(builders.record(State.READY)),
    'discard': lambda catalog: catalog.discard(KEY),
}


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_states_change_under_the_lock_of_the_image(paths, change):
    catalog = Catalog(paths, 0)
    with locks.image(paths.locks, IMAGE, 0), pytest.raises(exception.LockTimeout, match=IMAGE):
        change(catalog)
    assert catalog.load(KEY) is None


# -- carrying over

NEW = CacheKey(KEY.image_id, KEY.generation.next())


def test_a_cache_is_retagged(catalog):
    record = builders.ready(catalog)
    retagged = catalog.retag(record, NEW.generation)
    assert retagged == dataclasses.replace(record, key=NEW) == catalog.load(NEW)
    assert catalog.load(KEY).state is State.STALE
    assert str(NEW.generation) in catalog.load(KEY).stale_reason
    old, new = catalog.require_unchanged(record), catalog.require_unchanged(retagged)
    assert old.samefile(new), 'guests that read it by the old name go on'
    catalog.discard(KEY)
    assert catalog.require_unchanged(retagged).read_bytes() == b'cached'


def test_a_second_name_is_on_disk_before_its_record(catalog):
    record = builders.ready(catalog)
    with (
        mock.patch.object(files, 'sync_folder', autospec=True, side_effect=FULL) as sync,
        pytest.raises(exception.CacheBroken, match='No space left'),
    ):
        catalog.retag(record, NEW.generation)
    sync.assert_called_once_with(catalog.paths.cache_path)
    assert catalog.load(NEW) is None


@pytest.mark.parametrize('there', [builders.warm, builders.ready])
def test_a_cache_of_the_new_generation_is_kept(catalog, there):
    record = builders.ready(catalog)
    before = there(catalog, b'new', key=NEW)
    with pytest.raises(exception.WrongState, match=IMAGE):
        catalog.retag(record, NEW.generation)
    assert catalog.load(NEW) == before
    assert catalog.load(KEY) == record


def test_what_was_retired_meanwhile_is_not_retagged(catalog):
    record = builders.ready(catalog)
    catalog.retire(record, 'x')
    with pytest.raises(exception.WrongState, match=IMAGE):
        catalog.retag(record, NEW.generation)
    assert catalog.load(NEW) is None


def test_what_a_former_attempt_left_is_in_nobodys_way(catalog):
    record = builders.ready(catalog)
    catalog.paths.sealed(NEW).write_bytes(b'left')
    catalog.require_unchanged(catalog.retag(record, NEW.generation))


def test_a_crash_between_the_two_records_is_made_up_for(catalog):
    record = builders.ready(catalog)
    with (
        mock.patch.object(catalog, '_set_state', autospec=True, side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        catalog.retag(record, NEW.generation)
    assert (catalog.load(KEY).state, catalog.load(NEW).state) == (State.READY, State.READY)
    catalog.retag(record, NEW.generation)
    assert (catalog.load(KEY).state, catalog.load(NEW).state) == (State.STALE, State.READY)
    catalog.require_unchanged(catalog.load(NEW))


def test_a_file_system_that_gives_no_reason_is_quoted(catalog):
    record = builders.ready(catalog)
    odd = mock.Mock(side_effect=OSError('odd'))
    with mock.patch.object(os, 'link', odd), pytest.raises(exception.CacheBroken, match=': odd'):
        catalog.retag(record, NEW.generation)
    with (
        mock.patch.object(pathlib.Path, 'lstat', odd),
        pytest.raises(exception.CacheBroken, match=': odd'),
    ):
        catalog.require_unchanged(record)


def test_a_file_that_is_gone_is_not_retagged(catalog):
    record = builders.ready(catalog)
    catalog.paths.sealed(KEY).unlink()
    with pytest.raises(exception.CacheBroken, match='No such file'):
        catalog.retag(record, NEW.generation)
    assert catalog.load(NEW) is None
    assert catalog.load(KEY) == record


def test_a_lookup_of_a_cache_of_before_retires_no_other(catalog):
    judged = builders.ready(catalog)
    catalog.discard(KEY)
    now = builders.ready(catalog, b'again', created_at=2e9)
    catalog.retire(judged, 'x')
    catalog.refresh(dataclasses.replace(judged, base_identity=BaseIdentity(1, 2, 3)))
    assert catalog.load(KEY) == now
