# SPDX-License-Identifier: Apache-2.0
"""Locks between processes: exclusive, with a deadline, and gone with their holder."""

import contextlib
import pathlib
import subprocess
import sys
import threading
import time
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache import locks
from nova_qcache.key import CacheKey
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE

ROOT = pathlib.Path(__file__).parents[2]

HOLDER = """
import pathlib, sys
from nova_qcache import locks
from tests.unit.builders import KEY
folder = pathlib.Path(sys.argv[2])
ways = {
    'recorder': lambda: locks.recorder(folder, KEY),
    'image': lambda: locks.image(folder, KEY.image_id, 1),
    'generation': lambda: locks.generation(folder, 'base', 1),
}
with ways[sys.argv[1]]():
    print('held', flush=True)
    sys.stdin.read()
"""


def take(kind, folder):
    """Take a lock of this kind, waiting for as short a time as can be."""
    ways = {
        'recorder': lambda: locks.recorder(folder, KEY),
        'image': lambda: locks.image(folder, IMAGE, 0),
        'generation': lambda: locks.generation(folder, 'base', 0),
    }
    return ways[kind]()


@contextlib.contextmanager
def another_process_holds(kind, folder):
    command = [sys.executable, '-c', HOLDER, kind, str(folder)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == 'held\n'
            yield process
        finally:
            process.kill()


def test_recorder_lock_is_one_process_s_until_it_is_killed(tmp_path):
    with another_process_holds('recorder', tmp_path) as process:
        with (
            mock.patch.object(time, 'sleep', autospec=True) as sleep,
            pytest.raises(exception.RecorderBusy) as caught,
            take('recorder', tmp_path),
        ):
            pass
        sleep.assert_not_called()
        said = str(caught.value)
        assert f'image {IMAGE}' in said
        assert f"'recorder-{KEY.stem}'" in said
        assert 'it serves its guests' in said
        process.kill()
        process.wait()
        with take('recorder', tmp_path):
            pass


@pytest.mark.parametrize(
    ('kind', 'name'), [('image', f'image-{IMAGE}'), ('generation', 'generation-base')]
)
def test_short_locks_have_a_deadline_and_end_with_their_holder(tmp_path, kind, name):
    with another_process_holds(kind, tmp_path) as process:
        with pytest.raises(exception.LockTimeout) as caught, take(kind, tmp_path):
            pass
        said = str(caught.value)
        assert f'The lock {name!r} in {str(tmp_path)!r} was not free within 0 s' in said
        assert '`lslocks`' in said
        process.kill()
        process.wait()
        with take(kind, tmp_path):
            pass


@pytest.mark.parametrize('kind', ['recorder', 'image', 'generation'])
def test_threads_of_one_process_exclude_each_other_too(tmp_path, kind):
    with take(kind, tmp_path):
        caught = []

        def other():
            try:
                with take(kind, tmp_path):
                    pass
            except exception.QcacheError as e:
                caught.append(type(e))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert caught == [exception.RecorderBusy if kind == 'recorder' else exception.LockTimeout]


@pytest.mark.parametrize('kind', ['recorder', 'image', 'generation'])
def test_a_lock_is_free_again_after_an_error(tmp_path, kind):
    with pytest.raises(ZeroDivisionError), take(kind, tmp_path):
        raise ZeroDivisionError
    with take(kind, tmp_path):
        pass


def test_a_waiter_gets_the_lock_when_it_is_given_back(tmp_path):
    entered = threading.Event()

    def wait():
        with locks.image(tmp_path, IMAGE, 60):
            entered.set()

    with locks.image(tmp_path, IMAGE, 0):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not entered.is_set()
    thread.join()
    assert entered.is_set()


def test_different_things_have_different_locks(tmp_path):
    other = CacheKey(IMAGE, KEY.generation.next())
    with (
        locks.recorder(tmp_path, KEY),
        locks.recorder(tmp_path, other),
        locks.image(tmp_path, IMAGE, 0),
        locks.image(tmp_path, OTHER_IMAGE, 0),
        locks.generation(tmp_path, 'base', 0),
        locks.generation(tmp_path, 'base.2', 0),
    ):
        pass
