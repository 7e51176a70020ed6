# SPDX-License-Identifier: Apache-2.0
"""Processes that are no children, the listeners of sockets and their clients."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
from typing import Any, IO
from unittest import mock
import uuid

import pytest

from nova_qcache.system import processes

ROOT = pathlib.Path(__file__).parents[3]

READER = """
import os, socket, sys
from nova_qcache.system import processes
ours, theirs = socket.socketpair()
with ours, theirs, open(sys.argv[1], 'rb', buffering=0) as file:
    theirs.sendall(b'y' * 10_000)
    before = processes.bytes_read(os.getpid())
    nothing = processes.bytes_read(os.getpid()) - before
    os.pread(file.fileno(), 200_000, 0)
    os.pread(file.fileno(), 200_000, 0)
    ours.recv(10_000)
    print(processes.bytes_read(os.getpid()) - before, nothing)
"""
"""A process of its own: other threads of pytest's may read just then."""


@contextlib.contextmanager
def child():
    """A process that ends when its standard input does."""
    with subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def path(short_folder):
    return short_folder / 'socket'


@pytest.fixture
def listener(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(8)
        yield server


def test_who_listens_is_seen_without_a_connection(path, listener):
    assert path in processes.listening()
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.close()
    assert path not in processes.listening()


def test_a_connection_listens_on_nothing(path, listener):
    with contextlib.ExitStack() as stack:
        connect(path, stack)
        accepted, _ = listener.accept()
        stack.enter_context(accepted)
        listener.close()
        assert path not in processes.listening()


def connect(path, stack):
    client = stack.enter_context(socket.socket(socket.AF_UNIX))
    client.connect(str(path))
    return client


def test_a_process_and_its_end():
    with child() as process:
        handle = processes.Process(process.pid)
        assert handle.pid == process.pid
        assert not handle.has_ended()
        process.stdin.close()
        assert handle.has_ended(60), 'a zombie has ended'
        assert os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        handle.reap()
        with pytest.raises(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG)
        handle.reap()
        handle.signal(signal.SIGKILL)
        handle.close()
        with pytest.raises(OSError):
            os.fstat(handle.fd)


def test_a_signal_reaches_the_process():
    with child() as process:
        handle = processes.Process(process.pid)
        handle.signal(signal.SIGTERM)
        assert handle.has_ended(60)
        handle.close()
        assert process.wait() == -signal.SIGTERM


def test_a_process_that_is_gone():
    with child() as process:
        process.kill()
        process.wait()
        with pytest.raises(ProcessLookupError):
            processes.Process(process.pid)


def test_bytes_that_a_process_reads_from_files(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'x' * 300_000)
    done = subprocess.run(
        [sys.executable, '-c', READER, str(path)], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    read, nothing = map(int, done.stdout.split())
    assert 400_000 <= read <= 400_000 + 3 * nothing


def test_a_process_that_is_gone_reads_nothing():
    with child() as process:
        process.kill()
        process.wait()
        with pytest.raises(OSError):
            processes.bytes_read(process.pid)


def test_files_that_a_process_has_open(tmp_path):
    """Under the names that they had when it opened them they may be found no more. A log below the
    folder, or beside them, is none of them."""
    folder, other = tmp_path / 'folder', tmp_path / 'folder-too'
    link = tmp_path / 'link'
    link.symlink_to(folder)
    paths = [folder / 'renamed.a', folder / 'removed.b', folder / 'c.log']
    paths += [other / 'd.a', folder / 'below' / 'e.a']
    with contextlib.ExitStack() as undo:
        for path in paths:
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(path.name)
        descriptors = [undo.enter_context(path.open()) for path in (*paths, paths[0])]
        command = [sys.executable, '-c', 'input()']
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=[file.fileno() for file in descriptors]
        ) as process:
            paths[0].rename(folder / 'new.b')
            paths[1].unlink()
            files = processes.open_files(process.pid, link, ['.a', '.b'])
            process.communicate(b'\n')
        contents = [undo.enter_context(file).read() for file in files]
    assert sorted(contents) == [b'removed.b', b'renamed.a']
    with pytest.raises(OSError):
        processes.open_files(process.pid, folder, ['.a', '.b'])


def test_a_file_that_is_closed_meanwhile(tmp_path):
    """A daemon's connections come and go while one looks."""
    opened = pathlib.Path.open
    path = tmp_path / 'file.a'
    path.write_text('x')

    def gone(link, *arguments):
        assert str(link).startswith('/proc/')
        raise FileNotFoundError

    with opened(path), mock.patch.object(pathlib.Path, 'open', autospec=True, side_effect=gone):
        assert processes.open_files(os.getpid(), tmp_path, ['.a']) == []


def test_where_one_of_two_files_cannot_be_opened_none_is(tmp_path):
    opened = pathlib.Path.open
    files: list[IO[Any]] = []
    paths = [tmp_path / 'one.a', tmp_path / 'two.a']

    def only_once(link, *arguments):
        if files:
            raise PermissionError
        files.append(opened(link, *arguments))
        return files[0]

    with contextlib.ExitStack() as undo:
        for path in paths:
            path.write_text('x')
            undo.enter_context(opened(path))
        undo.enter_context(
            mock.patch.object(pathlib.Path, 'open', autospec=True, side_effect=only_once)
        )
        with pytest.raises(PermissionError):
            processes.open_files(os.getpid(), tmp_path, ['.a'])
    assert files[0].closed


def test_a_process_by_its_argument():
    word = f'socket,path=/{uuid.uuid4()}'
    assert processes.with_argument(word) is None
    command = [sys.executable, '-c', 'input()', word]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert processes.with_argument(word) == process.pid
        assert processes.with_argument(word[:-1]) is None, 'all of it'
        process.communicate(b'\n')
    assert processes.with_argument(word) is None


def test_a_process_in_the_middle_of_its_exec_is_waited_for():
    """The kernel shows no arguments of it for a moment."""
    read, word = pathlib.Path.read_bytes, f'socket,path=/{uuid.uuid4()}'
    with subprocess.Popen(
        [sys.executable, '-c', 'input()', word], stdin=subprocess.PIPE
    ) as process:
        path = pathlib.Path(f'/proc/{process.pid}/cmdline')
        texts = iter([b''] * 3)

        def at_first_empty(self):
            return next(texts, read(self)) if self == path else read(self)

        with mock.patch.object(
            pathlib.Path, 'read_bytes', autospec=True, side_effect=at_first_empty
        ):
            assert processes.with_argument(word) == process.pid
        process.communicate(b'\n')


def test_the_listener_is_named(path, listener):
    assert processes.listener_pid(path) == os.getpid()


def test_nobody_listens_where_there_is_no_name(path):
    assert processes.listener_pid(path) is None


def test_nobody_listens_on_a_socket_that_was_left_behind(path, listener):
    listener.close()
    assert path.is_socket()
    assert processes.listener_pid(path) is None


def test_nobody_listens_on_a_plain_file(path):
    path.write_text('')
    assert processes.listener_pid(path) is None


def test_a_listener_with_a_full_queue_is_alive(path, listener):
    listener.listen(0)
    with contextlib.ExitStack() as stack:
        with pytest.raises(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(BlockingIOError):
            processes.listener_pid(path)  # it is alive, so it must not be None


def test_what_cannot_be_known_is_no_none(short_folder):
    with pytest.raises(OSError, match='AF_UNIX path too long'):
        processes.listener_pid(short_folder / ('x' * 108))


def test_connections_are_those_of_this_socket_that_were_accepted(short_folder, path, listener):
    other = short_folder / 'socket2'
    with contextlib.ExitStack() as stack:
        beside = stack.enter_context(socket.socket(socket.AF_UNIX))
        beside.bind(str(other))
        beside.listen(8)
        connect(other, stack)
        stack.enter_context(beside.accept()[0])
        assert processes.connections(path) == 0
        accepted = []
        for count in (1, 2, 3):
            connect(path, stack)
            accepted.append(stack.enter_context(listener.accept()[0]))
            assert processes.connections(path) == count
        accepted[0].close()
        assert processes.connections(path) == 2
        assert processes.connections(other) == 1


def test_connections_of_a_path_with_blanks(short_folder):
    path = short_folder / 'a socket  of two'
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(path))
        server.listen(1)
        connect(path, stack)
        stack.enter_context(server.accept()[0])
        assert processes.connections(path) == 1


def test_nobody_is_connected_where_nobody_listens(path):
    assert processes.connections(path) == 0


# -- programs that are run to their end


def test_a_program_that_is_run():
    done = processes.run(['sh', '-c', 'cat; echo \'\\377\' >&2; exit 3'], seconds=60, stdin='a')
    assert (done.returncode, done.stdout, done.stderr) == (3, 'a', '\ufffd\n')


def test_a_program_that_cannot_be_killed_is_left_behind():
    """Its disk hangs: whoever waited for it would never return."""
    with mock.patch.object(subprocess, 'Popen', autospec=True) as popen:
        process = popen.return_value
        process.__enter__.return_value = process
        process.stdin, process.stdout, process.stderr = None, mock.Mock(), mock.Mock()
        process.communicate.side_effect = subprocess.TimeoutExpired('x', 9, b'said')

        def wait(timeout=None):
            assert timeout is not None, 'for ever'
            raise subprocess.TimeoutExpired('x', timeout)

        process.wait.side_effect = wait
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            processes.run(['x'], seconds=9)
    assert caught.value.stdout == b'said'
    process.kill.assert_called_once_with()
