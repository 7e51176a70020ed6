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


def open_recording(catalog, tool, settings=SETTINGS):
    return opener.open_recording(catalog, tool, builders.MemorySource('qcow2'), KEY, settings)


def test_open(catalog, tool, reserve):
    record = open_recording(catalog, tool)
    path = catalog.paths.recording(KEY)
    assert catalog.load(KEY) == record
    assert record.state is State.RECORDING
    assert (record.base, record.base_format) == ('memory://base', 'qcow2')
    assert record.base_identity == builders.IDENTITY
    assert (record.virtual_size, record.quota) == (64 * MIB, MIB)
    assert (record.cluster_size, record.extended_l2) == (4096, False)
    assert not catalog.paths.draft(KEY).exists()
    tool.create_cache.assert_called_once_with(
        catalog.paths.draft(KEY),
        64 * MIB,
        backing='memory://base',
        backing_format='qcow2',
        cluster_size=4096,
        extended_l2=False,
    )
    reserve.assert_called_once_with(path, quota.file_limit(MIB))


def test_the_record_is_there_before_the_file(catalog, tool):
    """A crash in between leaves a record without a living recorder: dirty, and dropped."""
    tool.create_cache.side_effect = lambda *_, **__: seen.append(catalog.load(KEY).state)
    seen: list[State] = []
    with pytest.raises(FileNotFoundError):
        open_recording(catalog, tool)
    assert seen == [State.RECORDING]


@pytest.mark.parametrize('missing', [0, 1])
def test_a_quota_has_room_beside_the_tables(catalog, tool, reserve, missing):
    given = quota.least(200 * 1024, 4096) - missing
    settings = dataclasses.replace(SETTINGS, quota=given)
    if not missing:
        open_recording(catalog, tool, settings)
        return
    with pytest.raises(exception.InvalidQuota) as caught:
        open_recording(catalog, tool, settings)
    said = str(caught.value)
    assert f'A quota of {given} bytes is too little' in said
    assert f'the tables of a disk of {64 * MIB} bytes' in said
    assert 'Set [qcache] quota (MiB) to 1 or more, or [qcache] cluster_size to more' in said
    reserve.assert_not_called()


def test_a_base_that_is_unfit_leaves_nothing(catalog, tool, inspect):
    inspect.side_effect = exception.InvalidBase(base='x', reason='y', remedy='z')
    with pytest.raises(exception.InvalidBase):
        open_recording(catalog, tool)
    assert catalog.keys() == []


def test_a_sealed_cache_is_not_recorded_over(catalog):
    ready = builders.ready(catalog)
    for state in ('READY', 'STALE'):
        with pytest.raises(exception.WrongState) as caught:
            opener.require_cold_or_dirty(catalog, KEY)
        assert f'is {state} and cannot become RECORDING' in str(caught.value)
        assert f'`nova-qcache remove {IMAGE}` first' in str(caught.value)
        if state == 'READY':
            catalog.retire(ready, 'old')


def test_whether_there_is_something_dirty(catalog):
    assert not opener.require_cold_or_dirty(catalog, KEY)
    builders.warm(catalog)
    assert opener.require_cold_or_dirty(catalog, KEY)


def test_what_cannot_be_read_is_not_recorded_over(catalog):
    catalog.paths.record(KEY).write_bytes(b'nonsense')
    with pytest.raises(exception.RecordBroken):
        opener.require_cold_or_dirty(catalog, KEY)


# -- copies

AUDIT = KEY.next_revision()
CONTENT = b'what was sealed' * 1000


def open_copy(catalog, tool, audited, its_quota=MIB):
    return opener.open_copy(catalog, tool, builders.MemorySource(), AUDIT, audited, its_quota)


def test_a_copy(catalog, tool, reserve):
    audited = builders.ready(catalog, CONTENT, image_hashes=('a',))
    record = open_copy(catalog, tool, audited, 2 * MIB)
    path = catalog.paths.recording(AUDIT)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    assert catalog.load(AUDIT) == record
    assert (record.state, record.sealed, record.quota) == (State.RECORDING, None, 2 * MIB)
    assert record.created_at > audited.created_at
    for name in ('base', 'base_format', 'base_identity', 'virtual_size', 'image_hashes'):
        assert getattr(record, name) == getattr(audited, name)
    reserve.assert_called_once_with(path, quota.file_limit(2 * MIB))
    assert catalog.load(KEY) == audited
    catalog.require_unchanged(audited)


def test_space_is_reserved_before_it_is_copied_into(catalog, tool, reserve):
    sizes: list[int] = []
    reserve.side_effect = lambda path, size: sizes.append(path.stat().st_size)
    open_copy(catalog, tool, builders.ready(catalog, CONTENT))
    assert sizes == [0]


def test_a_copy_on_a_base_of_another_size(catalog, tool, inspect):
    inspect.return_value += 512
    audited = builders.ready(catalog, CONTENT)
    with pytest.raises(exception.InvalidBase, match='its cache is of'):
        open_copy(catalog, tool, audited)
    assert catalog.keys() == [KEY]


def test_a_cache_that_was_written_to_is_not_copied(catalog, tool):
    audited = builders.ready(catalog, CONTENT)
    catalog.paths.sealed(KEY).chmod(0o600)
    catalog.paths.sealed(KEY).write_bytes(CONTENT[:-1])
    with pytest.raises(exception.CacheBroken):
        open_copy(catalog, tool, audited)
    assert catalog.keys() == [KEY]


def test_a_cache_that_is_damaged_is_not_copied(catalog, tool):
    """Its copy would get a digest of its own, and nobody would ever know."""
    audited = builders.ready(catalog, CONTENT)
    sealed = dataclasses.replace(audited.sealed, digest='sha256:' + '00' * 32)
    with pytest.raises(exception.CacheBroken, match='its digest differs'):
        open_copy(catalog, tool, dataclasses.replace(audited, sealed=sealed))


def test_the_audited_cache_is_the_newest_that_is_ready(catalog):
    revisions = [KEY]
    for _ in range(3):
        revisions.append(revisions[-1].next_revision())
    ready = [builders.ready(catalog, key=key) for key in revisions[:3]]
    assert opener.require_audited(catalog, revisions[3]) == ready[2]
    assert opener.require_audited(catalog, revisions[2]) == ready[1], 'not its own'
    catalog.retire(ready[2], 'x')
    assert opener.require_audited(catalog, revisions[3]) == ready[1]


def test_nothing_to_audit(catalog):
    builders.warm(catalog)
    builders.ready(catalog, key=dataclasses.replace(KEY, generation=KEY.generation.next()))
    with pytest.raises(exception.WrongState, match='no READY cache before revision 2'):
        opener.require_audited(catalog, AUDIT)
