# SPDX-License-Identifier: Apache-2.0
"""Opening a recording: an empty file with all its space, or an error that says what to do."""

import dataclasses
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.bases import probe
from nova_qcache.model.states import State
from nova_qcache.qemu.img import QemuImg
from nova_qcache.recorder import opener
from nova_qcache.recorder import quota
from nova_qcache.recorder.finish import Limits
from nova_qcache.recorder.settings import Settings
from nova_qcache.system import files
from tests.unit import builders
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import MIB

SETTINGS = Settings(
    quota=MIB,
    cluster_size=4096,
    extended_l2=False,
    limits=Limits(1, 1, 1, 1, 1),
    storage_daemon='qemu-storage-daemon',
)


@pytest.fixture
def tool():
    """A qemu-img that makes files of 200 KiB."""
    made = mock.create_autospec(QemuImg, instance=True)
    made.create_cache.side_effect = lambda path, *_, **__: path.write_bytes(b'x' * 200 * 1024)
    return made


@pytest.fixture(autouse=True)
def inspect():
    with mock.patch.object(probe, 'inspect', autospec=True, return_value=64 * MIB) as mocked:
        yield mocked


@pytest.fixture(autouse=True)
def reserve():
    with mock.patch.object(files, 'reserve', autospec=True) as mocked:
        yield mocked


def open_recording(store, tool, settings=SETTINGS):
    return opener.open_recording(store, tool, builders.MemorySource('qcow2'), KEY, settings)


def test_open(store, tool, reserve):
    record = open_recording(store, tool)
    path = store.paths.recording(KEY)
    assert store.load(KEY) == record
    assert record.state is State.WARMING
    assert (record.base, record.base_format) == ('memory://base', 'qcow2')
    assert record.base_identity == builders.IDENTITY
    assert (record.virtual_size, record.quota) == (64 * MIB, MIB)
    assert (record.cluster_size, record.extended_l2) == (4096, False)
    assert not store.paths.draft(KEY).exists()
    tool.create_cache.assert_called_once_with(
        store.paths.draft(KEY),
        64 * MIB,
        backing='memory://base',
        backing_format='qcow2',
        cluster_size=4096,
        extended_l2=False,
    )
    reserve.assert_called_once_with(path, quota.file_limit(MIB))


def test_the_record_is_there_before_the_file(store, tool):
    """A crash in between leaves a record without a living recorder: dirty, and dropped."""
    tool.create_cache.side_effect = lambda *_, **__: seen.append(store.load(KEY).state)
    seen: list[State] = []
    with pytest.raises(FileNotFoundError):
        open_recording(store, tool)
    assert seen == [State.WARMING]


@pytest.mark.parametrize('missing', [0, 1])
def test_a_quota_has_room_beside_the_tables(store, tool, reserve, missing):
    given = quota.least(200 * 1024, 4096) - missing
    settings = dataclasses.replace(SETTINGS, quota=given)
    if not missing:
        open_recording(store, tool, settings)
        return
    with pytest.raises(exception.InvalidQuota) as caught:
        open_recording(store, tool, settings)
    said = str(caught.value)
    assert f'A quota of {given} bytes is too little' in said
    assert f'the tables of a disk of {64 * MIB} bytes' in said
    assert 'Set [qcache] quota (MiB) to 1 or more, or [qcache] cluster_size to more' in said
    reserve.assert_not_called()


def test_a_base_that_is_unfit_leaves_nothing(store, tool, inspect):
    inspect.side_effect = exception.InvalidBase(base='x', reason='y', remedy='z')
    with pytest.raises(exception.InvalidBase):
        open_recording(store, tool)
    assert store.keys() == []


@pytest.mark.parametrize('there', [lambda store: None, builders.warm])
def test_cold_or_dirty(store, there):
    there(store)
    opener.require_cold_or_dirty(store, KEY)


def test_a_sealed_cache_is_not_recorded_over(store):
    ready = builders.ready(store)
    for state in ('READY', 'STALE'):
        with pytest.raises(exception.WrongState) as caught:
            opener.require_cold_or_dirty(store, KEY)
        assert f'is {state} and cannot become WARMING' in str(caught.value)
        assert f'`nova-qcache remove {IMAGE}` first' in str(caught.value)
        if state == 'READY':
            store.retire(ready, 'old')


def test_whether_there_is_something_dirty(store):
    assert not opener.require_cold_or_dirty(store, KEY)
    builders.warm(store)
    assert opener.require_cold_or_dirty(store, KEY)


def test_what_cannot_be_read_is_not_recorded_over(store):
    store.paths.record(KEY).write_bytes(b'nonsense')
    with pytest.raises(exception.RecordBroken):
        opener.require_cold_or_dirty(store, KEY)


# -- copies

AUDIT = KEY.next_revision()
CONTENT = b'what was sealed' * 1000


def open_copy(store, tool, audited, its_quota=MIB):
    return opener.open_copy(store, tool, builders.MemorySource(), AUDIT, audited, its_quota)


def test_a_copy(store, tool, reserve):
    audited = builders.ready(store, CONTENT, image_hashes=('a',))
    record = open_copy(store, tool, audited, 2 * MIB)
    path = store.paths.recording(AUDIT)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    assert store.load(AUDIT) == record
    assert (record.state, record.sealed, record.quota) == (State.WARMING, None, 2 * MIB)
    assert record.created_at > audited.created_at
    for name in ('base', 'base_format', 'base_identity', 'virtual_size', 'image_hashes'):
        assert getattr(record, name) == getattr(audited, name)
    reserve.assert_called_once_with(path, quota.file_limit(2 * MIB))
    assert store.load(KEY) == audited
    store.require_unchanged(audited)


def test_space_is_reserved_before_it_is_copied_into(store, tool, reserve):
    sizes: list[int] = []
    reserve.side_effect = lambda path, size: sizes.append(path.stat().st_size)
    open_copy(store, tool, builders.ready(store, CONTENT))
    assert sizes == [0]


def test_a_copy_on_a_base_of_another_size(store, tool, inspect):
    inspect.return_value += 512
    audited = builders.ready(store, CONTENT)
    with pytest.raises(exception.InvalidBase, match='its cache is of'):
        open_copy(store, tool, audited)
    assert store.keys() == [KEY]


def test_a_cache_that_was_written_to_is_not_copied(store, tool):
    audited = builders.ready(store, CONTENT)
    store.paths.sealed(KEY).chmod(0o600)
    store.paths.sealed(KEY).write_bytes(CONTENT[:-1])
    with pytest.raises(exception.CacheBroken):
        open_copy(store, tool, audited)
    assert store.keys() == [KEY]


def test_a_cache_that_is_damaged_is_not_copied(store, tool):
    """Its copy would get a digest of its own, and nobody would ever know."""
    audited = builders.ready(store, CONTENT)
    sealed = dataclasses.replace(audited.sealed, digest='sha256:' + '00' * 32)
    with pytest.raises(exception.CacheBroken, match='its digest is another'):
        open_copy(store, tool, dataclasses.replace(audited, sealed=sealed))


def test_the_audited_cache_is_the_newest_that_is_ready(store):
    revisions = [KEY]
    for _ in range(3):
        revisions.append(revisions[-1].next_revision())
    ready = [builders.ready(store, key=key) for key in revisions[:3]]
    assert opener.require_audited(store, revisions[3]) == ready[2]
    assert opener.require_audited(store, revisions[2]) == ready[1], 'not its own'
    store.retire(ready[2], 'x')
    assert opener.require_audited(store, revisions[3]) == ready[1]


def test_nothing_to_audit(store):
    builders.warm(store)
    builders.ready(store, key=dataclasses.replace(KEY, generation=KEY.generation.next()))
    with pytest.raises(exception.WrongState, match='no READY cache before revision 2'):
        opener.require_audited(store, AUDIT)
