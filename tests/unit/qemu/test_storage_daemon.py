# SPDX-License-Identifier: Apache-2.0
"""Starting and ending a daemon, which here is a script that waits."""

import os
import pathlib
import resource
import signal
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.qemu import storage_daemon
from nova_qcache.qemu.storage_daemon import StorageDaemon
from nova_qcache.system import processes
from tests.unit.builders import MIB


@pytest.fixture
def program(tmp_path):
    """A program that ends when it is told to."""
    path = tmp_path / 'daemon'
    path.write_text('#!/bin/sh\nexec tail -f /dev/null\n')
    path.chmod(0o700)
    return path


@pytest.fixture
def log(tmp_path):
    return tmp_path / 'log'


@pytest.fixture
def daemon(program, log):
    made = StorageDaemon.start(str(program), pathlib.Path('/run/x'), log, MIB, 2 * MIB)
    yield made
    made.process.signal(signal.SIGKILL)
    made.process.has_ended(60)
    made.process.reap()
    made.process.close()


def limit(daemon):
    return resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)


def test_the_kernel_keeps_to_the_quota(daemon):
    assert limit(daemon) == (MIB, 2 * MIB)
    daemon.raise_file_limit()
    assert limit(daemon) == (2 * MIB, 2 * MIB)
    daemon.raise_file_limit()
    assert limit(daemon) == (2 * MIB, 2 * MIB)


def test_too_long_a_file_is_an_error_and_no_signal(daemon):
    status = pathlib.Path(f'/proc/{daemon.pid}/status').read_text()
    ignored = next(line for line in status.splitlines() if line.startswith('SigIgn'))
    assert int(ignored.split()[1], 16) & 1 << (signal.SIGXFSZ - 1)


def test_it_may_have_more_guests_than_its_parent_has_files(program, log):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard))
    try:
        made = StorageDaemon.start(str(program), pathlib.Path('/run/x'), log, MIB, MIB)
        try:
            assert resource.prlimit(made.pid, resource.RLIMIT_NOFILE) == (hard, hard)
        finally:
            made.process.signal(signal.SIGKILL)
            made.stop()
            made.process.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_it_is_nobody_s_child(daemon):
    assert os.getsid(daemon.pid) == daemon.pid


def test_what_it_is_told_and_where_its_words_go(program, log):
    log.write_text('before\n')
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$PWD" "$(umask)" "$@"\necho error >&2\n')
    made = StorageDaemon.start(str(program), pathlib.Path('/run/a,b.qmp'), log, MIB, MIB)
    assert made.process.has_ended(60)
    made.stop()
    made.process.close()
    assert log.read_text().splitlines() == [
        'before',
        '/',
        '0117',
        '--chardev',
        'socket,id=qmp,path=/run/a,,b.qmp,server=on,wait=off',
        '--monitor',
        'chardev=qmp',
        'error',
    ]


def test_no_program(tmp_path, log):
    with pytest.raises(exception.ToolMissing) as caught:
        StorageDaemon.start(str(tmp_path / 'gone'), tmp_path / 'x', log, MIB, MIB)
    assert repr(str(tmp_path / 'gone')) in str(caught.value)
    assert 'set [qcache] qemu_storage_daemon to its path' in str(caught.value)


def test_what_it_serves_from_its_start(program, log):
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    made = StorageDaemon.start(str(program), pathlib.Path('/q'), log, options=['--export', 'x'])
    assert made.process.has_ended(60)
    assert made.reap()
    assert log.read_text().splitlines()[-2:] == ['--export', 'x']


def test_one_that_writes_nothing_has_no_limit(program, log):
    made = StorageDaemon.start(str(program), pathlib.Path('/q'), log)
    try:
        assert limit(made) == resource.getrlimit(resource.RLIMIT_FSIZE)
        assert not made.reap()
    finally:
        made.process.signal(signal.SIGKILL)
        assert made.process.has_ended(60)
        assert made.reap()


# -- one that was started by somebody who is dead

LISTEN = """#!/usr/bin/python3
import signal, socket, sys
path = sys.argv[2].split(',')[2].removeprefix('path=')
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
signal.pause()
"""


@pytest.fixture
def listener(tmp_path, log):
    """A daemon that listens as soon as it has started."""
    program, path = tmp_path / 'listener', tmp_path / 'x.qmp'
    program.write_text(LISTEN)
    program.chmod(0o700)
    made = StorageDaemon.start(str(program), path, log)
    yield made, path
    made.process.signal(signal.SIGKILL)
    made.process.has_ended(60)
    made.reap()


@pytest.fixture
def patient():
    with mock.patch.object(storage_daemon, '_START_SECONDS', 300):
        yield


def test_one_that_does_not_listen_yet_is_found(listener, patient):
    made, path = listener
    assert StorageDaemon.find(path) == made.pid
    assert made.listens(path)


def test_nobody_to_be_found(tmp_path, patient):
    assert StorageDaemon.find(tmp_path / 'x.qmp') is None


def test_one_whose_socket_was_removed_is_not_waited_for_long(daemon):
    with mock.patch.object(storage_daemon, '_START_SECONDS', 0.01):
        assert StorageDaemon.find(pathlib.Path('/run/x')) is None
        assert not daemon.listens(pathlib.Path('/run/x'))


def test_one_that_ends_listens_no_more(program, log, patient):
    program.write_text('#!/bin/sh\nexit 1\n')
    made = StorageDaemon.start(str(program), pathlib.Path('/q'), log)
    assert not made.listens(pathlib.Path('/run/x'))
    assert made.reap()


def waits_in_vain(times):
    """Let the end of a process be waited for so often for a moment only, and for long after that:
    it comes, on however busy a machine."""
    real, moments = processes.Process.has_ended, iter([0.01] * times)
    return mock.patch.object(
        processes.Process,
        'has_ended',
        autospec=True,
        side_effect=lambda self, seconds=0: real(self, next(moments, 60)),
    )


def test_one_that_does_not_quit_is_terminated(daemon):
    with waits_in_vain(1):
        daemon.stop()
    with pytest.raises(ProcessLookupError):
        processes.Process(daemon.pid)


def test_one_that_is_stopped_is_killed(daemon):
    daemon.process.signal(signal.SIGSTOP)
    with waits_in_vain(2):
        daemon.stop()
    with pytest.raises(ProcessLookupError):
        processes.Process(daemon.pid)


def test_one_that_hangs():
    process = mock.create_autospec(processes.Process, instance=True)
    process.pid = 4711
    process.has_ended.return_value = False
    with pytest.raises(exception.DeadlinePassed, match='Ending process 4711') as caught:
        StorageDaemon(process).stop()
    assert 'waiting for the storage of the base' in str(caught.value)
    assert [call.args for call in process.signal.call_args_list] == [
        (signal.SIGTERM,),
        (signal.SIGKILL,),
    ]


def test_adopt(daemon):
    adopted = StorageDaemon.adopt(daemon.pid)
    assert adopted.pid == daemon.pid
    adopted.process.close()
