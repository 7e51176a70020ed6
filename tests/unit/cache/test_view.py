# SPDX-License-Identifier: Apache-2.0
"""What an operator sees of a cache, and whether it is in use."""

from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache import view as view_module
from nova_qcache.model.states import Phase
from nova_qcache.system import files
from nova_qcache.system import processes
from nova_qcache.system.paths import Paths
from tests.unit import builders
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY


@pytest.fixture
def at_work(recorder):
    recorder.status.side_effect = None
    recorder.status.return_value = builders.status(guests=1)
    return recorder


def view(catalog):
    return view_module.view(catalog, KEY)


def test_ready(catalog, recorder):
    record = builders.ready(catalog, b'cached')
    seen = view(catalog)
    path = catalog.paths.sealed(KEY)
    assert (seen.key, seen.path, seen.state, seen.note) == (KEY, path, 'READY', 'idle')
    assert (seen.record, seen.recorder) == (record, None)
    assert (seen.length, seen.allocated) == (6, files.allocated_bytes(path))


def test_stale(catalog, recorder):
    catalog.retire(builders.ready(catalog), 'the base differs')
    assert (view(catalog).state, view(catalog).note) == ('STALE', 'the base differs')


def test_warming(catalog, at_work):
    builders.warm(catalog, b'half')
    seen = view(catalog)
    assert (seen.state, seen.note) == ('RECORDING', 'a note')
    assert seen.recorder == at_work.status.return_value
    assert (seen.path, seen.length) == (catalog.paths.recording(KEY), 4)


def test_dirty(catalog, recorder):
    builders.warm(catalog)
    seen = view(catalog)
    assert seen.state == view_module.DIRTY
    assert 'the next boot records it again' in seen.note


def test_a_file_without_a_record(catalog, recorder):
    catalog.paths.recording(KEY).write_bytes(b'lost')
    assert (view(catalog).state, view(catalog).note) == (view_module.BROKEN, 'it has no record')


def test_nothing_and_nobody(catalog, recorder):
    assert view(catalog).state == 'COLD'
    assert view_module.served(catalog.paths) == set()


@pytest.mark.parametrize('socket_of', [Paths.control_socket, Paths.qmp_socket, Paths.nbd_socket])
def test_a_process_that_works_for_nothing_is_seen(catalog, recorder, socket_of):
    with builders.listening(socket_of(catalog.paths, KEY)):
        assert view_module.served(catalog.paths) == {KEY}
    assert view(catalog).note == 'its recorder does not answer, or has died'


def test_sockets_of_others_are_none_of_ours(catalog):
    folder = catalog.paths.guests
    with builders.listening(folder / 'other.nbd', folder.parent / f'{KEY.stem}.nbd', folder / 'x'):
        assert view_module.served(catalog.paths) == set()


def test_a_recorder_that_serves_on_after_its_recording_was_dropped(catalog, at_work):
    seen = view(catalog)
    assert (seen.state, seen.note, seen.guests) == ('COLD', 'a note', 1)
    with pytest.raises(exception.CacheInUse, match='1 guests read'):
        view_module.require_no_guests(seen)


def test_guests_of_a_daemon_whose_recorder_has_died(catalog, recorder):
    builders.warm(catalog)
    catalog.paths.nbd_socket(KEY).touch()
    with mock.patch.object(processes, 'connections', autospec=True, return_value=2):
        assert (view(catalog).state, view(catalog).guests) == (view_module.DIRTY, 2)


def test_a_record_that_is_none(catalog, recorder):
    catalog.paths.record(KEY).write_bytes(b'nonsense')
    seen = view(catalog)
    assert (seen.state, seen.record, seen.length) == (view_module.BROKEN, None, 0)
    assert f'`nova-qcache remove {IMAGE}` removes it' in seen.note


def test_a_record_without_a_file(catalog, recorder):
    builders.ready(catalog)
    catalog.paths.sealed(KEY).unlink()
    seen = view(catalog)
    assert (seen.state, seen.length, seen.allocated) == ('READY', 0, 0)


def test_a_sealed_file_counts_before_one_that_was_left_behind(catalog, recorder):
    builders.ready(catalog)
    catalog.paths.recording(KEY).write_bytes(b'left behind')
    assert view(catalog).path == catalog.paths.sealed(KEY)


def test_unused(catalog, recorder):
    builders.ready(catalog)
    with mock.patch.object(files, 'used_by_qemu', autospec=True, return_value=False) as used:
        view_module.require_closed(view(catalog))
    used.assert_called_once_with(catalog.paths.sealed(KEY))


def test_nothing_to_use(catalog, recorder):
    builders.ready(catalog)
    catalog.paths.sealed(KEY).unlink()
    view_module.require_closed(view(catalog))


def test_used_by_a_guest(catalog, recorder):
    builders.ready(catalog)
    with (
        mock.patch.object(files, 'used_by_qemu', autospec=True, return_value=True),
        pytest.raises(exception.CacheInUse) as caught,
    ):
        view_module.require_closed(view(catalog))
    said = str(caught.value)
    assert repr(str(catalog.paths.sealed(KEY))) in said
    assert 'a process of qemu has it open' in said
    assert 'End its guests, or add --force' in said


def test_used_by_guests_of_its_recorder(catalog, at_work):
    builders.warm(catalog)
    with pytest.raises(exception.CacheInUse) as caught:
        view_module.require_no_guests(view(catalog))
    said = str(caught.value)
    assert repr(str(catalog.paths.recording(KEY))) in said
    assert '1 guests read through its recorder' in said
    assert 'add --force' in said


def test_a_recorder_without_guests_is_no_use(catalog, at_work):
    builders.warm(catalog)
    at_work.status.return_value = builders.status(Phase.RECORDING)
    view_module.require_no_guests(view(catalog))


def test_a_file_that_cannot_be_looked_at_is_not_taken_for_unused(catalog, recorder):
    builders.ready(catalog)
    denied = PermissionError(13, 'Permission denied')
    with (
        mock.patch.object(files, 'used_by_qemu', autospec=True, side_effect=denied),
        pytest.raises(PermissionError),
    ):
        view_module.require_closed(view(catalog))
