# SPDX-License-Identifier: Apache-2.0
"""What unstack.sh ends in good order: recorders are asked to leave, the keeper is waited for."""

from collections.abc import Callable, Iterator
import json
import pathlib
import socketserver
import subprocess
import sys
import tempfile
import threading

import pytest

from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.recorder import respawn
from nova_qcache.system import locks
from nova_qcache.system.paths import Paths
from tests.unit.devstack.machine import PROJECT

KEY = CacheKey('11111111-2222-3333-4444-555555555555', Generation('0123456789ab', 1))
PROGRAM = PROJECT / 'devstack/files/farewell.py'


@pytest.fixture
def paths() -> Iterator[Paths]:
    with tempfile.TemporaryDirectory(prefix='qd-', dir='/tmp') as folder:
        made = Paths(pathlib.Path(folder, 'cache'), pathlib.Path(folder, 'run'))
        made.prepare()
        yield made


@pytest.fixture
def recorder(paths: Paths) -> Iterator[Callable[[int], list[str]]]:
    """A function that opens the door of a recorder with so many guests, and returns what it is
    told; without guests it leaves when it is dismissed."""
    servers = []

    def start(guests: int) -> list[str]:
        told: list[str] = []

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                told.append(json.loads(self.rfile.readline())['command'])
                if guests == 0:
                    respawn.forget(paths, KEY)
                status = {'phase': 'serving', 'note': '', 'guests': guests, 'recorded_bytes': 0}
                reply = {**status, 'pid': 4711, 'daemon_pid': 4712}
                self.wfile.write(json.dumps(reply).encode() + b'\n')

        respawn.note(paths, KEY, [])
        server = socketserver.UnixStreamServer(str(paths.control_socket(KEY)), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        servers.append((server, thread))
        return told

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def farewell(paths: Paths, seconds: float) -> 'subprocess.CompletedProcess[str]':
    return subprocess.run(
        [sys.executable, str(PROGRAM), str(paths.cache_path), str(paths.run_path), str(seconds)],
        capture_output=True,
        text=True,
    )


def test_a_host_on_which_nothing_was_ever_started(tmp_path: pathlib.Path):
    done = farewell(Paths(tmp_path / 'cache', tmp_path / 'run'), 0)
    assert (done.returncode, done.stderr) == (0, '')
    assert list(tmp_path.iterdir()) == []


def test_recorders_without_guests_are_dismissed(
    paths: Paths, recorder: Callable[[int], list[str]]
):
    told = recorder(0)
    done = farewell(paths, 30)
    assert (done.returncode, done.stderr) == (0, '')
    assert told == ['dismiss']


def test_a_recorder_with_guests_is_named_and_stays(
    paths: Paths, recorder: Callable[[int], list[str]]
):
    told = recorder(2)
    done = farewell(paths, 0.5)
    assert done.returncode == 1
    assert KEY.image_id in done.stderr
    assert 'process 4711, with 2 guests' in done.stderr
    assert set(told) == {'dismiss'}


def test_a_recorder_that_was_killed_is_named(paths: Paths):
    respawn.note(paths, KEY, [])
    done = farewell(paths, 0)
    assert done.returncode == 1
    assert KEY.image_id in done.stderr


def test_a_keeper_that_stays_is_named(paths: Paths):
    with locks.keeper(paths.locks, 1):
        done = farewell(paths, 0.2)
    assert done.returncode == 1
    assert 'the keeper' in done.stderr
