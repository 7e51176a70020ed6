# SPDX-License-Identifier: Apache-2.0
"""Sealing: a recording is READY if all is well with its file, and else nothing is."""

import asyncio
import errno
import stat
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import State
from nova_qcache.qemu.img import QemuImg
from nova_qcache.recorder import sealer
from nova_qcache.system import files
from tests.unit import builders
from tests.unit.builders import KEY


@pytest.fixture
def tool():
    made = mock.create_autospec(QemuImg, instance=True)
    made.check.return_value = 1 << 40
    made.cached_extents.return_value = [(0, 512)]
    return made


def seal(catalog, tool, record):
    return asyncio.run(sealer.seal(catalog, tool, record, FinishReason.IDLE))


def test_ready(catalog, tool):
    record = builders.warm(catalog, b'cached')
    ready = seal(catalog, tool, record)
    path = catalog.paths.sealed(KEY)
    assert ready.state is State.READY
    assert catalog.load(KEY) == ready
    assert catalog.require_unchanged(ready) == path
    assert (ready.sealed.size, ready.sealed.reason) == (6, FinishReason.IDLE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o440
    tool.check.assert_called_once_with(catalog.paths.recording(KEY))


def test_its_bytes_are_on_disk_before_it_is_ready(catalog, tool):
    record = builders.warm(catalog)
    synced = []
    sync = files.sync_file

    def note(path):
        synced.append((path, catalog.load(KEY).state))
        sync(path)

    with mock.patch.object(files, 'sync_file', autospec=True, side_effect=note):
        seal(catalog, tool, record)
    assert synced[0] == (catalog.paths.recording(KEY), State.RECORDING)


@pytest.mark.parametrize('mode', [0o600, 0o440])
def test_space_that_was_not_needed_is_given_back(catalog, tool, mode):
    """Also by an ordinary user, of a file that a killed recorder had sealed."""
    record = builders.warm(catalog)
    path = catalog.paths.recording(KEY)
    path.chmod(mode)

    tool.check.return_value = 3

    def release(path, used):
        assert path.stat().st_mode & stat.S_IWUSR

    with mock.patch.object(files, 'release_tail', autospec=True, side_effect=release) as made:
        seal(catalog, tool, record)
    made.assert_called_once_with(path, 3)


def test_what_its_tables_do_not_use_is_given_back(catalog, tool):
    """Where the quota was reached, writes of the last moment have failed."""
    tool.check.return_value = 6
    record = builders.warm(catalog, b'cachedgarbage')
    assert seal(catalog, tool, record).sealed.size == 6
    assert catalog.paths.sealed(KEY).read_bytes() == b'cached'


def test_a_cache_of_nothing_is_none(catalog, tool):
    tool.cached_extents.return_value = []
    assert 'it caches nothing' in refusal(catalog, tool, builders.warm(catalog))


def test_after_a_recorder_was_killed_between_the_rename_and_the_record(catalog, tool):
    record = builders.warm(catalog)
    catalog.paths.recording(KEY).rename(catalog.paths.sealed(KEY))
    ready = seal(catalog, tool, record)
    assert catalog.load(KEY) == ready
    assert catalog.require_unchanged(ready) == catalog.paths.sealed(KEY)


def refusal(catalog, tool, record):
    with pytest.raises(exception.CacheBroken) as caught:
        seal(catalog, tool, record)
    assert catalog.load(KEY) == record
    assert not catalog.paths.sealed(KEY).exists()
    said = str(caught.value)
    assert repr(str(catalog.paths.recording(KEY))) in said
    return said


def test_tables_that_are_not_clean(catalog, tool):
    tool.check.side_effect = exception.ToolFailed(command='check', code=3, reason='leaks')
    assert 'leaks' in refusal(catalog, tool, builders.warm(catalog))


@pytest.mark.parametrize('name', ['release_tail', 'sync_file'])
def test_a_disk_that_fails(catalog, tool, name):
    record = builders.warm(catalog)
    broken = OSError(errno.EIO, 'Input/output error')
    with mock.patch.object(files, name, autospec=True, side_effect=broken):
        assert 'Input/output error' in refusal(catalog, tool, record)


@pytest.mark.parametrize(('size', 'fits'), [(8, True), (9, False)])
def test_the_quota_is_kept(catalog, tool, size, fits):
    record = builders.warm(catalog, b'x' * size, quota=8)
    if fits:
        assert seal(catalog, tool, record).state is State.READY
    else:
        assert 'its 9 bytes exceed its quota of 8' in refusal(catalog, tool, record)


def test_a_recording_that_was_dropped_meanwhile(catalog, tool):
    record = builders.warm(catalog)

    def check(path):
        catalog.paths.record(KEY).unlink()
        return 1 << 40

    tool.check.side_effect = check
    with pytest.raises(exception.WrongState):
        seal(catalog, tool, record)
    assert catalog.load(KEY) is None


def test_a_recording_without_a_file(catalog, tool):
    record = builders.warm(catalog)
    catalog.paths.recording(KEY).unlink()
    with pytest.raises(exception.CacheBroken):
        seal(catalog, tool, record)
    assert catalog.load(KEY) == record
