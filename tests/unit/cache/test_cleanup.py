# SPDX-License-Identifier: Apache-2.0
"""What is dead is cleared away, what lives or may be of use is not."""

import contextlib
import os
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from nova_qcache import exception
from nova_qcache.cache import cleanup
from nova_qcache.cache.leases import Leases
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.recorder import respawn
from nova_qcache.system import locks
from nova_qcache.system import processes
from tests.unit import builders
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE

LATER_IMAGE = 'ffffffff-4e5f-6071-8293-000000000000'
OLDER = CacheKey(IMAGE, Generation('0123456789ab', 2))


@pytest.fixture
def clean_up(catalog, paths):
    return lambda: cleanup.clean_up(catalog, Leases(paths.leases, 300))


def remains(paths, key=KEY):
    """Make what a recorder and a daemon leave that are killed."""
    left = [paths.nbd_socket(key), paths.qmp_socket(key), paths.control_socket(key)]
    for path in left:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
    paths.log(key).write_text('Killed')
    return [*left, paths.log(key)]


def test_nothing(clean_up):
    assert clean_up() == []


def test_a_recording_that_nobody_fills(clean_up, catalog, paths, caplog):
    builders.warm(catalog)
    left = [*remains(paths), paths.recording(KEY), paths.record(KEY)]
    assert all(path.exists() for path in left)
    assert clean_up() == [KEY]
    assert not any(path.exists() for path in left)
    assert 'its recorder died' in caplog.text
    assert clean_up() == []


def test_remains_without_a_record(clean_up, paths):
    left = remains(paths)
    assert clean_up() == []
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize('content', [b'', bytes(300)])
@pytest.mark.parametrize('has_file', [False, True])
def test_a_recording_that_a_crash_of_the_host_left_by_halves(
    clean_up, catalog, paths, content, has_file
):
    paths.record(KEY).write_bytes(content)
    if has_file:
        paths.recording(KEY).write_bytes(b'dirty')
    assert clean_up() == [KEY]
    assert catalog.keys() == []


@pytest.mark.parametrize('is_stale', [False, True])
def test_a_sealed_cache_stays(clean_up, catalog, paths, is_stale):
    record = builders.ready(catalog)
    if is_stale:
        catalog.retire(record, 'x')
    before = catalog.load(KEY)
    left = remains(paths)
    assert clean_up() == []
    assert paths.sealed(KEY).exists()
    assert catalog.load(KEY) == before
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize('content', [b'', bytes(300)])
def test_a_cache_whose_record_a_crash_of_the_host_left_empty(
    clean_up, catalog, paths, caplog, content
):
    """Of one that was retired without waiting for the disk."""
    builders.ready(catalog)
    paths.record(KEY).write_bytes(content)
    assert clean_up() == []
    assert not paths.record(KEY).exists()
    assert not paths.sealed(KEY).exists()
    assert 'a crash of the host left its record empty' in caplog.text


def test_a_cache_with_an_empty_record_stays_as_long_as_somebody_names_it(catalog, paths):
    builders.ready(catalog)
    paths.record(KEY).write_bytes(b'')
    assert cleanup.clean_up(catalog, Leases(paths.leases, 300), lambda key: key == KEY) == []
    assert paths.sealed(KEY).exists()


def test_a_record_that_cannot_be_read_is_an_operators(clean_up, paths):
    paths.record(KEY).write_text('{')
    paths.recording(KEY).write_text('x')
    assert clean_up() == []
    assert paths.record(KEY).exists()
    assert paths.recording(KEY).exists()


def test_foreign_files_stay(clean_up, paths):
    foreign = [
        folder / name
        for folder in (paths.guests, paths.control, paths.cache_path)
        for name in ('notes.txt', f'{KEY.image_id}.nbd', 'lost+found')
    ]
    for path in foreign:
        path.write_text('mine')
    assert clean_up() == []
    assert all(path.read_text() == 'mine' for path in foreign)


@pytest.mark.parametrize('which', ['nbd_socket', 'qmp_socket', 'control_socket'])
def test_a_socket_that_has_a_listener_is_never_taken(clean_up, catalog, paths, which):
    builders.warm(catalog)
    left = remains(paths)
    path = getattr(paths, which)(KEY)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert clean_up() == []
        assert all(each.exists() for each in [*left, paths.recording(KEY)])
    assert clean_up() == [KEY]


def test_a_daemon_that_is_stopped_and_whose_queue_is_full(clean_up, catalog, paths, caplog):
    other = builders.warm(catalog, key=CacheKey(OTHER_IMAGE, GENERATION)).key
    later = builders.warm(catalog, key=CacheKey(LATER_IMAGE, GENERATION)).key
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(socket.socket(socket.AF_UNIX))
        daemon.bind(str(paths.qmp_socket(other)))
        daemon.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(paths.qmp_socket(other)))
        assert clean_up() == [later], 'and it keeps nobody else from being swept'
        assert paths.recording(other).exists()
        assert paths.qmp_socket(other).exists()
    assert str(paths.qmp_socket(other)) in caplog.text


def test_a_recording_that_lost_its_record(clean_up, catalog, paths):
    """It keeps its whole quota on the file system, and no boot of a later base clears it away."""
    paths.recording(KEY).write_bytes(b'x')
    assert clean_up() == [KEY]
    assert not paths.recording(KEY).exists()
    assert clean_up() == []


def test_a_sealed_file_that_lost_its_record_is_an_operators(clean_up, paths):
    """A definition of a domain may name it."""
    paths.sealed(KEY).write_bytes(b'x')
    assert clean_up() == []
    assert paths.sealed(KEY).exists()


def test_one_of_many(clean_up, catalog, paths):
    other = builders.ready(catalog, key=CacheKey(OTHER_IMAGE, GENERATION)).key
    dead = [builders.warm(catalog).key, builders.warm(catalog, key=OLDER).key]
    assert clean_up() == sorted(dead)
    assert catalog.keys() == [other]


def test_a_recorder_that_lives_is_left_alone(clean_up, catalog, paths):
    builders.warm(catalog)
    left = remains(paths)
    holder = textwrap.dedent("""
        import pathlib, sys
        from nova_qcache.system import locks
        from nova_qcache.model.key import CacheKey
        with locks.recorder(pathlib.Path(sys.argv[1]), CacheKey.from_stem(sys.argv[2])):
            print('held', flush=True)
            sys.stdin.read()
    """)
    with subprocess.Popen(
        [sys.executable, '-c', holder, str(paths.locks), KEY.stem],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == 'held\n'
        assert clean_up() == []
        assert paths.recording(KEY).exists()
        assert all(path.exists() for path in left)
        process.communicate()
    assert clean_up() == [KEY]


def test_leases_that_have_ended(clean_up, paths):
    Leases(paths.leases, 300).take('lasting', KEY)
    Leases(paths.leases, -1).take('ended', KEY)
    clean_up()
    assert [name.partition('.')[0] for name in os.listdir(paths.leases)] == ['lasting']


def test_a_folder_that_is_gone(clean_up, paths):
    paths.guests.rmdir()
    with pytest.raises(OSError, match='guests'):
        clean_up()


def test_what_cannot_be_removed(clean_up, catalog, paths, monkeypatch):
    builders.warm(catalog)

    def refuse(*arguments, **options):
        raise exception.LockTimeout(name='x', path='/x', seconds=1)

    monkeypatch.setattr(catalog, 'discard_recording', refuse)
    with pytest.raises(exception.LockTimeout):
        clean_up()


def test_a_second_name_without_a_record(clean_up, catalog):
    """Whoever re-tagged a cache was killed before it wrote the record."""
    record = builders.ready(catalog)
    second = catalog.paths.sealed(CacheKey(KEY.image_id, KEY.generation.next()))
    second.hardlink_to(catalog.paths.sealed(KEY))
    clean_up()
    assert not second.exists()
    catalog.require_unchanged(record)


def test_a_record_that_was_half_written(clean_up, catalog):
    left = catalog.paths.record(KEY).with_name(f'.{catalog.paths.record(KEY).name}.x1y2')
    left.write_bytes(b'{')
    (catalog.paths.cache_path / '.foreign.json.x').touch()
    clean_up()
    assert [path.name for path in catalog.paths.cache_path.glob('.*')] == ['.foreign.json.x']


# -- a daemon whose recorder has died

DAEMON = """
import signal, socket, sys
servers = []
for path in sys.argv[1:]:
    servers.append(socket.socket(socket.AF_UNIX))
    servers[-1].bind(path)
    servers[-1].listen()
print('ready', flush=True)
held = servers[-1].accept()
signal.pause()
"""


@pytest.fixture
def daemon(paths):
    """It serves, and nobody supervises it."""
    sockets = [paths.qmp_socket(KEY), paths.nbd_socket(KEY)]
    command = [sys.executable, '-c', DAEMON, *map(str, sockets)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b'ready\n'
        yield process
        process.kill()


def test_a_daemon_without_a_recorder_and_without_guests_is_ended(catalog, paths, daemon):
    respawn.note(paths, KEY, [])
    cleanup.end_daemon(catalog, KEY)
    daemon.wait()
    assert not paths.nbd_socket(KEY).exists()
    assert respawn.read(paths, KEY) is None, 'nobody starts a recorder for it'
    cleanup.end_daemon(catalog, KEY)  # there is none any more


def test_a_daemon_that_has_guests_serves_them_on(catalog, paths, daemon):
    with socket.socket(socket.AF_UNIX) as guest:
        guest.connect(str(paths.nbd_socket(KEY)))
        while not processes.connections(paths.nbd_socket(KEY)):
            time.sleep(0.001)
        cleanup.end_daemon(catalog, KEY)
        assert daemon.poll() is None
        assert paths.nbd_socket(KEY).exists()


def test_a_daemon_whose_recorder_starts_is_left_alone(catalog, paths, daemon):
    with (
        locks.recorder(paths.locks, KEY),
        pytest.raises(exception.CacheInUse, match='does not answer'),
    ):
        cleanup.end_daemon(catalog, KEY)
    assert daemon.poll() is None
