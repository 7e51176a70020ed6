# SPDX-License-Identifier: Apache-2.0
"""Locks between processes: exclusive, with a deadline, and gone with their holder."""

import asyncio
import contextlib
import os
import pathlib
import stat
import subprocess
import sys
import threading
import time
from unittest import mock

from oslo_concurrency import lockutils
import pytest

from nova_qcache import exception
from nova_qcache.model.key import CacheKey
from nova_qcache.system import locks
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE

ROOT = pathlib.Path(__file__).parents[3]

HOLDER = """
import pathlib, sys
from nova_qcache.system import locks
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


def another_try(folder):
    """Start a process that tries the lock of an image, and fails if it is held."""
    code = HOLDER.replace("KEY.image_id, 1", "KEY.image_id, 0")
    command = [sys.executable, '-c', code, 'image', str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


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


@pytest.mark.parametrize('kind', ['recorder', 'image', 'generation'])
def test_nobody_else_can_open_a_lock(tmp_path, kind):
    """Whatever umask this process has: who can open a file can lock it, and never give it back."""
    old = os.umask(0)
    try:
        with take(kind, tmp_path):
            pass
    finally:
        os.umask(old)
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def lock_in_a_thread(folder):
    """Take the lock of an image in another thread, as far as that is possible now."""
    held = contextlib.ExitStack()

    def take_it():
        with contextlib.suppress(exception.LockTimeout):
            held.enter_context(take('image', folder))

    thread = threading.Thread(target=take_it)
    thread.start()
    thread.join()
    return held


def test_making_the_file_drops_no_lock_of_this_process(tmp_path):
    """A close of the file would, if another thread had the lock by then."""
    real = os.open
    held: list[contextlib.ExitStack] = []

    def then_another_thread(path, *args):
        fd = real(path, *args)
        if path == tmp_path / f'image-{IMAGE}' and not held:
            held.append(lock_in_a_thread(tmp_path))
        return fd

    with (
        mock.patch.object(os, 'open', then_another_thread),
        take('image', tmp_path),
        another_try(tmp_path) as process,
    ):
        assert process.wait() == 1
    assert held


def test_a_try_in_vain_drops_no_lock_of_this_process(tmp_path):
    """Its file is closed at once, not when the error is forgotten."""
    with another_process_holds('image', tmp_path) as process:
        try:
            with take('image', tmp_path):
                pass
        except exception.LockTimeout as e:
            error = e
        process.kill()
        process.wait()
    with take('image', tmp_path):
        del error
        with another_try(tmp_path) as process:
            assert process.wait() == 1


# -- files that go away


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_of_locks_go_with_their_caches(tmp_path):
    gone = CacheKey(OTHER_IMAGE, KEY.generation)
    for key in (KEY, gone):
        with (
            locks.recorder(tmp_path, key),
            locks.image(tmp_path, key.image_id, 0),
            locks.lease(tmp_path, key.image_id, 0),
        ):
            pass
    with locks.keeper(tmp_path, 0), locks.pool(tmp_path, 0), locks.statistics(tmp_path, 0):
        with locks.generation(tmp_path, 'base', 0):
            pass
        others = ['generation-base', 'keeper', 'pool', 'statistics']
        assert len(names(tmp_path)) == 10
        locks.clear_away(tmp_path, [KEY])
        kept = [f'image-{IMAGE}', f'lease-{IMAGE}', f'recorder-{KEY.stem}']
        assert names(tmp_path) == sorted([*others, *kept])
        locks.clear_away(tmp_path, [])
        assert names(tmp_path) == others


@pytest.mark.parametrize('kind', ['recorder', 'image'])
def test_the_file_of_a_lock_that_somebody_has_stays(tmp_path, kind):
    with another_process_holds(kind, tmp_path) as process:
        locks.clear_away(tmp_path, [])
        assert len(names(tmp_path)) == 1
        process.kill()
        process.wait()
    with take(kind, tmp_path):
        locks.clear_away(tmp_path, [])
        assert len(names(tmp_path)) == 1
    locks.clear_away(tmp_path, [])
    assert names(tmp_path) == []


def test_who_opened_a_file_that_goes_away_takes_the_next_one(tmp_path):
    path = tmp_path / f'image-{IMAGE}'
    lock = lockutils.InterProcessLock.trylock
    tries: list[object] = []

    def trylock(self):
        if not tries:
            path.unlink()  # since it was opened
        tries.append(self)
        return lock(self)

    with (
        mock.patch.object(lockutils.InterProcessLock, 'trylock', trylock),
        take('image', tmp_path),
    ):
        assert len(tries) == 2
        with another_try(tmp_path) as process:
            assert process.wait() == 1


def test_locks_exclude_while_their_files_come_and_go(tmp_path):
    code = """
import pathlib, sys
from nova_qcache.system import locks
from tests.unit.builders import IMAGE
folder, count = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
for _ in range(300):
    with locks.image(folder, IMAGE, 600):
        count.write_text(str(int(count.read_text()) + 1))
    locks.clear_away(folder, [])
"""
    folder, count = tmp_path / 'locks', tmp_path / 'count'
    folder.mkdir()
    count.write_text('0')
    command = [sys.executable, '-c', code, str(folder), str(count)]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert count.read_text() == '900'


def test_a_lock_of_before_is_taken_as_it_is(tmp_path):
    path = tmp_path / f'image-{IMAGE}'
    path.touch(0o644)
    inode = path.stat().st_ino
    with take('image', tmp_path):
        assert path.stat().st_ino == inode
        with another_try(tmp_path) as process:
            assert process.wait() == 1


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


# -- their order; the fixture of the same name makes every unit test look at it


def wait_for(kind, folder):
    """Take a lock as the product does: only the recorder's is tried."""
    ways = {
        'recorder': lambda: locks.recorder(folder, KEY),
        'image': lambda: locks.image(folder, OTHER_IMAGE, 1),
        'generation': lambda: locks.generation(folder, 'other', 1),
    }
    return ways[kind]()


def taken(complaints):
    """Return what was complained about until now, and forget it."""
    said = list(complaints)
    complaints.clear()
    return said


@pytest.mark.parametrize(
    ('held', 'wanted', 'in_order'),
    [
        ('recorder', 'image', True),
        ('recorder', 'generation', True),
        ('image', 'generation', True),
        ('image', 'recorder', True),  # it is only tried
        ('generation', 'recorder', True),
        ('generation', 'image', False),
        ('image', 'image', False),  # two who take two of them in different orders
        ('generation', 'generation', False),
    ],
)
def test_order(tmp_path, lock_complaints, held, wanted, in_order):
    with take(held, tmp_path), wait_for(wanted, tmp_path):
        pass
    said = taken(lock_complaints)
    assert bool(said) is not in_order
    if said:
        names = {'image': f"'image-{IMAGE}'", 'generation': "'generation-base'"}
        wishes = {'image': f"'image-{OTHER_IMAGE}'", 'generation': "'generation-other'"}
        assert said == [f'{wishes[wanted]} is waited for by a holder of {names[held]}']


def test_order_among_three(tmp_path, lock_complaints):
    with (
        locks.recorder(tmp_path, KEY),
        locks.generation(tmp_path, 'base', 1),
        locks.image(tmp_path, IMAGE, 1),
    ):
        pass
    assert taken(lock_complaints) == [
        f"'image-{IMAGE}' is waited for by a holder of 'generation-base'"
    ]


def test_what_was_given_back_is_not_held(tmp_path, lock_complaints):
    with pytest.raises(ZeroDivisionError), locks.generation(tmp_path, 'base', 1):
        raise ZeroDivisionError
    with locks.generation(tmp_path, 'base', 0):
        with pytest.raises(exception.LockTimeout), locks.generation(tmp_path, 'base', 0):
            pass
        with locks.image(tmp_path, IMAGE, 0):
            pass
    with locks.image(tmp_path, IMAGE, 1), locks.generation(tmp_path, 'base', 1):
        pass
    assert not lock_complaints


def test_order_in_what_a_holder_runs_in_a_thread(tmp_path, lock_complaints):
    """As a recorder does while it seals: its own locks count there."""

    def wait():
        with locks.image(tmp_path, IMAGE, 1):
            pass

    async def hold():
        with locks.generation(tmp_path, 'base', 1):
            await asyncio.to_thread(wait)

    asyncio.run(hold())
    assert len(taken(lock_complaints)) == 1
    with locks.generation(tmp_path, 'base', 1):  # and those of another thread do not
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    assert not lock_complaints


def test_nobody_looks_at_the_order_in_production(tmp_path):
    with (
        mock.patch.object(locks, 'complain', None),
        locks.generation(tmp_path, 'base', 1),
        locks.image(tmp_path, IMAGE, 1),
    ):
        assert not locks._held.get()
    done = subprocess.run(
        [sys.executable, '-c', 'from nova_qcache.system import locks; print(locks.complain)'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == 'None\n'


def test_locks_may_be_released_in_any_order(tmp_path, lock_complaints):
    other = CacheKey(OTHER_IMAGE, KEY.generation)
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    first.enter_context(locks.recorder(tmp_path, KEY))
    second.enter_context(locks.recorder(tmp_path, other))
    first.close()
    second.close()
    with locks.image(tmp_path, IMAGE, 1):
        pass
    assert lock_complaints == []
    assert locks._held.get() == ()
