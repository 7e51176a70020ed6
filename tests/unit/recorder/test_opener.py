# SPDX-License-Identifier: Apache-2.0
"""Opening a recording: an empty file with all its space, or an error that says what to do."""

import dataclasses

import pytest

from nova_qcache import exception
from nova_qcache.model.states import State
from nova_qcache.recorder import opener
from nova_qcache.recorder import quota
from nova_qcache.recorder.finish import Limits
from nova_qcache.recorder.settings import Settings
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


pytestmark = pytest.mark.usefixtures('inspect', 'reserve')


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


def test_what_a_killed_recorder_was_making_is_in_nobodys_way(catalog, tool):
    """A qemu-img that it had started may still have that file open, and locked."""
    draft = catalog.paths.draft(KEY)
    draft.write_bytes(b'of another one')
    make = tool.create_cache.side_effect

    def create(path, *arguments, **options):
        assert path == draft
        assert not draft.exists()
        make(path)

    tool.create_cache.side_effect = create
    open_recording(catalog, tool)


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
