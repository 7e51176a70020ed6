# SPDX-License-Identifier: Apache-2.0
"""Recorders that are gone: who serves their guests, when they are started again, and how often."""

import itertools
import json
import socket
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.keeper import respawner as respawner_module
from nova_qcache.keeper.respawner import Respawner
from nova_qcache.qemu import block_graph
from nova_qcache.qemu.storage_daemon import StorageDaemon
from nova_qcache.recorder import launch
from nova_qcache.recorder import respawn
from nova_qcache.system import locks
from nova_qcache.system import processes
from nova_qcache.system.paths import Paths
from tests.unit import builders
from tests.unit.builders import KEY

ARGUMENTS = ['--base=/b', KEY.image_id]


@pytest.fixture
def spawn():
    with mock.patch.object(launch, 'spawn', autospec=True) as made:
        made.return_value.poll.return_value = 0
        yield made


@pytest.fixture
def find():
    """What looks for a living daemon; there is none."""
    with mock.patch.object(StorageDaemon, 'find', autospec=True, return_value=None) as made:
        yield made


@pytest.fixture
def adopt():
    with mock.patch.object(StorageDaemon, 'adopt', autospec=True) as made:
        yield made


@pytest.fixture
def share():
    with mock.patch.object(Paths, 'share', autospec=True) as made:
        yield made


@pytest.fixture
def start(find, adopt, share):
    """What starts a daemon, which listens at once."""
    with mock.patch.object(StorageDaemon, 'start', autospec=True) as made:
        made.return_value = adopt.return_value = mock.create_autospec(StorageDaemon, instance=True)
        made.return_value.process = mock.create_autospec(processes.Process, instance=True)
        made.return_value.reap.return_value = False
        yield made


@pytest.fixture
def clock():
    with mock.patch('nova_qcache.keeper.respawner.time.monotonic', autospec=True) as made:
        made.return_value = 1000.0
        yield made


@pytest.fixture
def respawner(catalog, spawn, start, clock):
    return Respawner(catalog.paths, catalog, 'qsd', 7)


@pytest.fixture
def missed(paths):
    respawn.note(paths, KEY, ARGUMENTS)


def test_no_respawn_spec(respawner, spawn, start):
    assert respawner.run_once() == 0
    spawn.assert_not_called()
    start.assert_not_called()


def test_one_that_is_at_work(respawner, paths, spawn, start, missed):
    with socket.socket(socket.AF_UNIX) as control_server:
        control_server.bind(str(paths.control_socket(KEY)))
        control_server.listen()
        for _ in range(3):
            assert respawner.run_once() == 1
    spawn.assert_not_called()
    start.assert_not_called()


def test_one_that_is_still_starting_is_no_dead_one(respawner, paths, spawn, start, missed):
    """The copy of an audit may take minutes."""
    with locks.recorder(paths.locks, KEY):
        for _ in range(3):
            assert respawner.run_once() == 1
    spawn.assert_not_called()
    start.assert_not_called()


@pytest.mark.parametrize('key', [KEY, KEY.next_revision()], ids=['a recording', 'an audit'])
def test_one_that_is_gone(respawner, paths, spawn, key):
    respawn.note(paths, key, ARGUMENTS)
    assert respawner.run_once() == 1
    ((output, arguments), _) = spawn.call_args
    assert output.name == str(paths.log(key))
    assert arguments == [
        '--serve-only',
        f'--generation={key.generation}',
        f'--revision={key.revision}',
        *ARGUMENTS,
    ]


# -- its guests


@pytest.mark.parametrize('there', ['nothing', 'warm', 'ready', 'damaged', 'stale', 'broken'])
def test_its_guests_are_served_before_all_else(respawner, catalog, spawn, start, missed, there):
    if there == 'warm':
        builders.warm(catalog)
    elif there != 'nothing':
        record = builders.ready(catalog)
        if there == 'stale':
            catalog.retire(record, 'x')
        if there == 'broken':
            catalog.paths.record(KEY).write_bytes(b'x')
        if there == 'damaged':
            catalog.paths.sealed(KEY).unlink()
    before, found = builders.files(catalog), []

    def note(*arguments, options):
        spawn.assert_not_called()
        found.append(builders.files(catalog))
        return mock.DEFAULT

    start.side_effect = note
    respawner.run_once()
    options = start.call_args.kwargs['options']
    served = json_options(options)
    assert served['--nbd-server'] == [
        {
            'addr': {'type': 'unix', 'path': str(catalog.paths.nbd_socket(KEY))},
            'max-connections': 0,
        }
    ]
    assert served['--export'] == [block_graph.EXPORT]
    nodes = {node['node-name']: node for node in served['--blockdev']}
    assert nodes['base-file']['filename'] == '/b'
    assert (block_graph.CACHE_FILE_NODE in nodes) == (there == 'ready')
    assert all(node['read-only'] for node in nodes.values())
    assert [before] == found, 'they wait for no disk'
    start.return_value.listens.assert_called_once_with(catalog.paths.nbd_socket(KEY))
    assert builders.files(catalog) == before, 'that is for the recorder'
    spawn.assert_called_once()


def json_options(options):
    found: dict = {}
    for name, value in zip(options[::2], options[1::2], strict=True):
        found.setdefault(name, []).append(json.loads(value))
    return found


def test_a_daemon_that_dies_after_its_recorder(respawner, spawn, start, missed, find):
    """An interpreter takes seconds to start on a busy machine."""
    find.return_value = 4711
    spawn.return_value.poll.return_value = None
    respawner.run_once()
    start.assert_not_called()
    spawn.assert_called_once()
    find.return_value = None
    respawner.run_once()
    start.assert_called_once()
    spawn.assert_called_once()


def test_a_base_that_is_away_is_not_tried_without_end(respawner, spawn, start, missed):
    start.return_value.listens.return_value = False
    spawn.return_value.poll.return_value = None
    for _ in range(5):
        respawner.run_once()
    start.assert_called_once()


def test_guests_may_connect_to_a_daemon_whose_recorder_died_at_once(
    respawner, paths, spawn, start, missed, find, adopt, share
):
    find.return_value = 4711
    share.side_effect = lambda *_: spawn.assert_not_called()
    respawner.run_once()
    adopt.assert_called_once_with(4711)
    share.assert_called_once_with(paths, paths.nbd_socket(KEY))


@pytest.mark.parametrize(
    'error', [OSError(5, 'x'), exception.ToolMissing(tool='a', reason='b', package='', option='')]
)
def test_guests_that_cannot_be_served(respawner, spawn, start, caplog, missed, error):
    start.side_effect = error
    assert respawner.run_once() == 1
    spawn.assert_called_once()
    assert 'Failed to start a qemu-storage-daemon' in caplog.text


def test_a_daemon_that_ends_is_no_zombie(respawner, start, missed):
    respawner.run_once()
    respawner.run_once()
    start.return_value.reap.assert_called_once()
    start.return_value.reap.return_value = True
    respawner.run_once()
    respawner.run_once()
    assert start.return_value.reap.call_count == 2


# -- how often


def test_one_that_is_being_started_has_no_rival(respawner, spawn, clock, missed):
    spawn.return_value.poll.return_value = None
    for _ in range(5):
        respawner.run_once()
        clock.return_value += 60
    assert spawn.call_count == 1


def test_the_pauses_get_longer_and_end(respawner, paths, spawn, clock, missed):
    times: list[float] = []
    with mock.patch.object(respawner_module, '_MOST_ATTEMPTS', 20):
        while respawn.read(paths, KEY) is not None:
            respawner.run_once()
            if spawn.call_count > len(times):
                times.append(clock.return_value)
            clock.return_value += 1
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[:3] == [1, 2, 4]
    assert set(pauses[3:]) == {4}, 'guests wait'
    assert len(times) == 20


def at_work():
    return mock.patch.object(processes, 'listener_pid', autospec=True, return_value=1)


@pytest.mark.parametrize(('seconds', 'anew'), [(9, False), (10, True)])
def test_pauses_begin_anew_after_one_that_has_worked_for_a_while(
    respawner, spawn, clock, missed, seconds, anew
):
    for _ in range(5):
        respawner.run_once()
        clock.return_value += 4
    count = spawn.call_count
    clock.return_value += seconds - 4
    with at_work():
        respawner.run_once()
    respawner.run_once()
    clock.return_value += 1
    respawner.run_once()
    assert spawn.call_count == count + 1 + anew


def test_a_respawn_spec_that_ends(respawner, paths, spawn, missed):
    respawner.run_once()
    respawn.forget(paths, KEY)
    assert respawner.run_once() == 0
    respawn.note(paths, KEY, ARGUMENTS)
    respawner.run_once()
    assert spawn.call_count == 2, 'at once'


def test_a_respawn_spec_that_ends_meanwhile(respawner, paths, spawn, start, missed):
    """It had the lock until then, and its guests have gone."""

    def forget(*arguments):
        respawn.forget(paths, KEY)

    with mock.patch.object(processes, 'listener_pid', autospec=True, side_effect=forget):
        respawner.run_once()
    spawn.assert_not_called()
    start.assert_not_called()


def test_a_recorder_that_cannot_be_asked_lives(respawner, spawn, missed):
    with mock.patch.object(processes, 'listener_pid', autospec=True, side_effect=BlockingIOError):
        for _ in range(3):
            assert respawner.run_once() == 1
    spawn.assert_not_called()
