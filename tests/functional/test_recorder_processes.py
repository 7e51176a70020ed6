# SPDX-License-Identifier: Apache-2.0
"""Recorders among others: two at once, told to end, stopped, silent; who may touch what."""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import signal
import socket
import stat
import time
from typing import Any

import psutil
import pytest

from nova_qcache.recorder import launch
from tests.functional import sealed
from tests.functional import users
from tests.functional import waiting
from tests.functional.guests import file_node
from tests.functional.guests import NbdGuest
from tests.functional.site import MIB
from tests.functional.site import NEVER
from tests.functional.site import Site
from tests.functional.watching import WriterWatch

_CONNECT = 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])'
_SAY = """
import contextlib, os, socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
with contextlib.suppress(ConnectionError):
    client.sendall(os.fsencode(sys.argv[2]))
print(client.makefile().readline())
"""


def _parts(site: Site, plan: dict[str, Any]) -> dict[str, pathlib.Path]:
    """Return the paths of all sockets of a recorder."""
    stem = pathlib.Path(plan['socket']).stem
    control = site.run_path / 'control'
    return {
        'nbd': pathlib.Path(plan['socket']),
        'qmp': control / f'{stem}.qmp',
        'ctl': control / f'{stem}.ctl',
    }


@pytest.mark.core
@pytest.mark.parametrize('attempt', range(2))
def test_two_records_at_one_moment(site: Site, base: pathlib.Path, attempt: int) -> None:
    arguments = ('record', site.image_id, f'--base={base}', '-f', 'json')
    with WriterWatch(site.cache_path) as watch:
        calls = [site.start(site.command(*arguments)) for _ in range(2)]
        answers = [call.communicate(timeout=waiting.PATIENCE) for call in calls]
        assert [call.returncode for call in calls] == [0, 0], answers
        plan, other = (json.loads(said) for said, _ in answers)
        names = ('socket', 'recorder_pid', 'daemon_pid')
        assert [plan[name] for name in names] == [other[name] for name in names]
        guests = [NbdGuest(site, plan) for _ in range(2)]
        try:
            for guest in guests:
                guest.require(base, 0, 4 * MIB)
            shown = site.ask('seal', site.image_id, '--wait')
        finally:
            for guest in guests:
                guest.leave()
    assert watch.most_at_once == 1
    assert plan['daemon_pid'] in watch.writers
    sealed.require_sound(site, shown, base, file_node(base))


@pytest.mark.parametrize('attempt', range(2))
def test_two_recorders_at_one_moment(site: Site, base: pathlib.Path, attempt: int) -> None:
    command = site.recorder_command(f'--base={base}', '--base-format=raw', site.image_id)
    processes = [site.start(command) for _ in range(2)]
    try:
        waiting.until(
            lambda: any(process.poll() is not None for process in processes), 'the loser'
        )
        (loser,) = (process for process in processes if process.poll() is not None)
        (winner,) = (process for process in processes if process is not loser)
        assert loser.returncode == launch.BUSY
        shown = site.record(base)  # joins the winner, also while that starts
        assert shown['phase'] == 'recording'
        assert len(site.daemons()) == 1
        winner.terminate()
        winner.communicate(timeout=waiting.PATIENCE)
        assert winner.returncode == 0
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    site.wait_until_cold()


def test_a_second_guest_joins(site: Site, base: pathlib.Path) -> None:
    first = site.record(base)
    second = site.record(base)
    assert second['recorder_pid'] == first['recorder_pid']
    with NbdGuest(site, first) as one, NbdGuest(site, second) as other:
        one.require(base, 0, MIB)
        other.require(base, MIB, MIB)
        assert site.show()['guests'] == 2
        assert site.boot_plan(base)['socket'] == first['socket']


def test_told_to_end_without_guests(site: Site, base: pathlib.Path) -> None:
    plan = site.record(base)
    os.kill(plan['recorder_pid'], signal.SIGTERM)
    site.wait_until_cold()


def test_told_to_end_with_guests(site: Site, base: pathlib.Path) -> None:
    """It goes; its daemon and the guests stay, and the next recorder goes on where it stopped."""
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, 4 * MIB)
        os.kill(plan['recorder_pid'], signal.SIGTERM)
        waiting.until(
            lambda: [each.pid for each in site.recorders()] == [plan['daemon_pid']],
            'the end of the recorder',
        )
        guest.require(base, 4 * MIB, MIB)
        adopted = site.record(base)
        assert adopted['daemon_pid'] == plan['daemon_pid']
        shown = site.ask('seal', site.image_id, '--wait')
    assert shown['cache_bytes'] > 5 * MIB
    sealed.require_sound(site, shown, base, file_node(base))


def test_told_to_end_after_the_seal_with_guests(site: Site, base: pathlib.Path) -> None:
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, 4 * MIB)
        shown = site.ask('seal', site.image_id, '--wait')
        os.kill(plan['recorder_pid'], signal.SIGTERM)
        waiting.until(
            lambda: [each.pid for each in site.recorders()] == [plan['daemon_pid']],
            'the end of the recorder',
        )
        guest.require(base, 0, 16 * MIB)
        assert site.plan(base)['kind'] == 'PLAY'
        assert site.show()['state'] == 'READY'
        done = site.qcache('remove', site.image_id)
        assert (done.returncode, '1 guests read' in done.stderr) == (1, True), done
    sealed.require_sound(site, shown, base, file_node(base))
    # There is no keeper here to see the daemon out.
    waiting.until(lambda: site.qcache('remove', site.image_id).returncode == 0, 'no guest')
    assert not site.recorders()


@contextlib.contextmanager
def _crowd(path: pathlib.Path) -> Iterator[None]:
    """So many connections that nobody else can connect to a stopped server."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        yield


@pytest.mark.parametrize('crowded', [False, True])
def test_a_stopped_recorder_stops_no_boot(site: Site, base: pathlib.Path, crowded: bool) -> None:
    plan = site.record(base)
    recorder = psutil.Process(plan['recorder_pid'])
    with NbdGuest(site, plan) as guest, contextlib.ExitStack() as stack:
        guest.require(base, 0, MIB)
        recorder.suspend()
        site.configure(start_timeout_seconds=2)
        try:
            if crowded:
                stack.enter_context(_crowd(_parts(site, plan)['ctl']))
            boot = site.boot_plan(base)
            assert boot['kind'] == 'PLAIN'
            assert '2' in boot['reason']
            guest.require(base, MIB, MIB)
            assert [each.pid for each in site.daemons()] == [plan['daemon_pid']]
        finally:
            stack.close()
            recorder.resume()
        site.configure(start_timeout_seconds=NEVER)
        again = site.boot_plan(base)
        assert (again['kind'], again['socket']) == ('RECORD', plan['socket'])


def test_a_silent_daemon_is_not_replaced(site: Site, base: pathlib.Path) -> None:
    plan = site.record(base)
    site.configure(start_timeout_seconds=2)
    daemon = psutil.Process(plan['daemon_pid'])
    with WriterWatch(site.cache_path) as watch, NbdGuest(site, plan) as guest:
        guest.require(base, 0, 4 * MIB)
        daemon.suspend()
        try:
            site.kill(plan['recorder_pid'])
            done = site.qcache('record', site.image_id, f'--base={base}')
            assert (done.returncode, done.stdout) == (1, ''), done
            assert len(done.stderr.splitlines()) == 1, done
            assert site.boot_plan(base)['kind'] == 'PLAIN'
            assert [each.pid for each in site.daemons()] == [daemon.pid]
            assert pathlib.Path(plan['path']).exists()
        finally:
            daemon.resume()
        site.configure(start_timeout_seconds=NEVER)
        adopted = site.record(base)
        assert adopted['daemon_pid'] == daemon.pid
        guest.require(base, 4 * MIB, MIB)
        shown = site.ask('seal', site.image_id, '--wait')
    assert watch.writers == {daemon.pid}
    sealed.require_sound(site, shown, base, file_node(base))


def _begin_epoch(site: Site, base: pathlib.Path) -> None:
    """Give the base a generation, and so its first recording a name."""
    site.ask('invalidate', site.image_id, f'--base={base}')


def _leave_stale_files(site: Site, plan: dict[str, Any]) -> None:
    parts = _parts(site, plan)
    for path in parts.values():
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        os.chown(path, users.PRODUCT.uid, users.PRODUCT.gid)
    stem = parts['nbd'].stem
    for name in (f'recorder-{stem}', f'image-{site.image_id}'):
        path = site.cache_path / 'locks' / name
        path.touch()
        os.chown(path, users.PRODUCT.uid, users.PRODUCT.gid)


def test_stale_files_are_no_problem(site: Site, base: pathlib.Path) -> None:
    _begin_epoch(site, base)
    _leave_stale_files(site, site.plan(base))
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, MIB)
        shown = site.ask('seal', site.image_id, '--wait')
    sealed.require_sound(site, shown, base, file_node(base))


def _may_connect(site: Site, path: pathlib.Path, user: users.User) -> bool:
    done = site.run(['/usr/bin/python3', '-c', _CONNECT, str(path)], user)
    assert done.returncode == 0 or 'PermissionError' in done.stderr, done
    return done.returncode == 0


@pytest.mark.core
def test_who_may_touch_a_recorder(site: Site, base: pathlib.Path) -> None:
    plan = site.record(base)
    parts = _parts(site, plan)
    (group,) = users.GUEST.groups
    facts = parts['nbd'].stat()
    assert (facts.st_uid, facts.st_gid) == (users.PRODUCT.uid, group)
    assert stat.S_IMODE(facts.st_mode) == 0o660
    facts = (site.run_path / 'control').stat()
    assert (facts.st_uid, stat.S_IMODE(facts.st_mode)) == (users.PRODUCT.uid, 0o700)

    assert {name: _may_connect(site, path, users.GUEST) for name, path in parts.items()} == {
        'nbd': True,
        'qmp': False,
        'ctl': False,
    }
    assert not any(_may_connect(site, path, users.STRANGER) for path in parts.values())
    assert site.run(['test', '-r', plan['path']], users.GUEST).returncode == 1
    with NbdGuest(site, plan, users.STRANGER) as stranger:
        assert not stranger.connected
    for process in site.recorders():
        assert process.uids() == (users.PRODUCT.uid,) * 3


def test_what_a_recorder_does_not_listen_to(site: Site, base: pathlib.Path) -> None:
    """Though its socket is open to all; and a guest reads on."""
    plan = site.record(base)
    path = _parts(site, plan)['ctl']
    status = b'{"version": 1, "command": "status"}\n'
    seal = b'{"version": 1, "command": "seal"}\n'
    refused = f'only root and user {users.PRODUCT.uid} may send commands'

    def say(user: users.User, text: bytes) -> dict[str, Any]:
        # Whatever prepares the folder closes it again.
        path.parent.chmod(0o711)
        path.chmod(0o666)
        command = ['/usr/bin/python3', '-c', _SAY, str(path), os.fsdecode(text)]
        done = site.run(command, user)
        assert (done.returncode, done.stderr) == (0, ''), done
        reply: dict[str, Any] = json.loads(done.stdout)
        assert reply['version'] == 1
        return reply

    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, MIB)
        for number, (user, text, said) in enumerate(
            (
                (users.STRANGER, seal, refused),
                (users.GUEST, seal, refused),
                (users.PRODUCT, seal.replace(b'1', b'2'), 'The request has version 2 of the'),
                (users.ROOT, b'{"version": 1, "command": "\xff"}\n', 'A request is a line'),
                (users.ROOT, b'[' * 60_000 + b'\n', 'A request is a line'),
            ),
            start=1,
        ):
            guest.begin(number * MIB, MIB)
            reply = say(user, text)
            assert said in reply['error'], reply
            guest.finish(base, number * MIB, MIB)
            for served in (users.ROOT, users.PRODUCT):
                reply = say(served, status)
                assert (reply['phase'], reply['guests']) == ('recording', 1)
    log = path.with_suffix('.log').read_text()
    (warning,) = (line for line in log.splitlines() if 'WARNING' in line)
    assert f"Refused user {users.STRANGER.uid} at socket '{path}': {refused}" in warning


def test_a_recorder_outlives_its_callers_session(site: Site, base: pathlib.Path) -> None:
    """As it outlives a restart of nova-compute: no signal to that one's group reaches it."""
    call = site.start(
        site.command('record', site.image_id, f'--base={base}'), start_new_session=True
    )
    call.communicate(timeout=waiting.PATIENCE)
    assert call.returncode == 0
    plan = {**site.show(), 'export': 'top', 'socket': site.plan(base)['socket']}
    with pytest.raises(ProcessLookupError):
        os.killpg(call.pid, signal.SIGKILL)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, MIB)
    assert os.getsid(plan['recorder_pid']) == plan['recorder_pid']
    assert os.getsid(plan['daemon_pid']) == plan['daemon_pid']


def test_a_lock_that_somebody_holds(site: Site, base: pathlib.Path) -> None:
    """The caller is told so after lock_timeout_seconds, and boots are plain."""
    site.configure(lock_timeout_seconds=1)
    _begin_epoch(site, base)
    plan = site.plan(base)
    lock = site.cache_path / 'locks' / f'image-{site.image_id}'
    hold = 'import fcntl, sys, time; f = open(sys.argv[1], "a"); fcntl.lockf(f, fcntl.LOCK_EX)'
    hold += f'; print("held", flush=True); time.sleep({NEVER})'
    with site.start(['/usr/bin/python3', '-c', hold, str(lock)]) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == 'held\n'
            done = site.qcache('record', site.image_id, f'--base={base}')
            assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done
            assert lock.name in done.stderr
            assert site.boot_plan(base)['kind'] == 'PLAIN'
        finally:
            holder.kill()
    assert not site.files()
    assert not pathlib.Path(plan['socket']).exists()
    waiting.until(lambda: not site.recorders(), 'the end of the recorder')


def test_a_recorder_that_is_killed_while_it_starts(site: Site, base: pathlib.Path) -> None:
    """At some moments of its start: the next one finds nothing in its way."""
    command = site.recorder_command(f'--base={base}', '--base-format=raw', site.image_id)
    for delay in (0.35, 0.5, 0.65):
        with site.start(command) as process:
            time.sleep(delay)
            process.kill()
            process.communicate()
        plan = site.record(base)
        with NbdGuest(site, plan) as guest:
            guest.require(base, 0, MIB)
        os.kill(plan['recorder_pid'], signal.SIGTERM)
        site.wait_until_cold()
