# SPDX-License-Identifier: Apache-2.0
"""The recorder's control server: who may connect, what is answered, and what it survives."""

import asyncio
import contextlib
import gc
import json
import logging
import os
import socket
import stat
import tracemalloc
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.model.states import Phase
from nova_qcache.recorder import control_server as module
from nova_qcache.recorder.control_server import ControlServer
from nova_qcache.system.control import RecorderClient
from tests.unit import builders
from tests.unit import virtual_time

STATUS = builders.status(Phase.SERVING, guests=3)
REPLY = {
    'version': 1,
    'phase': 'serving',
    'guests': 3,
    'recorded_bytes': 0,
    'pid': 1234,
    'daemon_pid': 1235,
    'note': 'a note',
}
GOOD = b'{"version": 1, "command": "status"}\n'
MIB = 1 << 20


class Script:
    """What the server answers with, and which requests have come so far."""

    commands = ('break', 'cancel', 'lose', 'refuse', 'set', 'status', 'tell', 'wait')

    def __init__(self):
        self.requests = []
        self.cancelled = 0

    async def answer(self, command, request):
        self.requests.append(request)
        match command:
            case 'break':
                raise ZeroDivisionError
            case 'cancel':
                raise asyncio.CancelledError
            case 'lose':
                raise FileNotFoundError
            case 'refuse':
                raise exception.NotPinned(image_id='X')
            case 'set':
                return {'set': {1, 2}}
            case 'tell':
                return {'much': 'x' * request.get('bytes', 4 * MIB)}
            case 'wait':
                try:
                    await asyncio.Event().wait()
                finally:
                    self.cancelled += 1
        return {name: value for name, value in REPLY.items() if name != 'version'}


@pytest.fixture
def path(short_folder):
    return short_folder / 'ctl'


@pytest.fixture
def script():
    return Script()


@pytest.fixture
def control_server(path, script):
    return ControlServer(path, script.commands, script.answer)


def while_open(control_server, visit):
    """Run the coroutine function ``visit`` while the server listens; nothing is left of it."""

    async def run():
        await control_server.open()
        try:
            return await visit()
        finally:
            await control_server.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    return virtual_time.run(run())


@contextlib.asynccontextmanager
async def visitor(path, text=b''):
    """Connect, and say something."""
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, str(path))
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(client, text)
        yield client


async def hear(client):
    """Return all that is answered until the server hangs up."""
    answer = b''
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            while piece := await asyncio.get_running_loop().sock_recv(client, 65536):
                answer += piece
    return answer


async def say(path, text):
    """Say something, hang up the sending side, and return all that is answered."""
    async with visitor(path, text) as client:
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        return await hear(client)


async def error_of(path, text):
    """Return the error that is answered, when the server has answered a good request as well."""
    answer = await say(path, text)
    assert json.loads(await say(path, GOOD)) == REPLY
    assert answer.endswith(b'\n') and answer.count(b'\n') == 1
    assert len(answer) < 500
    reply = json.loads(answer)
    assert set(reply) == {'version', 'error'} and reply['version'] == 1
    return reply['error']


def test_client_and_control_server_speak_one_language(path, control_server, script):
    async def visit():
        return await asyncio.to_thread(RecorderClient(path, 60).status)

    assert while_open(control_server, visit) == STATUS
    assert script.requests == [{'version': 1, 'command': 'status'}]


def test_a_command_it_does_not_know(path, control_server):
    async def visit():
        return await asyncio.to_thread(RecorderClient(path, 60).seal)

    with pytest.raises(exception.RecorderUnreachable) as caught:
        while_open(control_server, visit)
    assert '"seal" is not a command; known commands: break, cancel' in str(caught.value)


@pytest.mark.parametrize(
    'request_line',
    [
        b'\n',
        b'status\n',
        b'\xff\xfe\n',
        b'{"command": "sta\xff"}\n',
        b'null\n',
        b'[]\n',
        b'[{"version": 1, "command": "status"}]\n',
        b'[' * 60_000 + b'\n',
        b'{"a":' * 10_000 + b'\n',
        b'{"version": 1' + b'0' * 5000 + b', "command": "status"}\n',
        b'{"command": "sta',
        b'x' * 65_537,
        b'x' * 70_000 + b'\n',
        b'x' * 4 * MIB,
        b'{"command": "status", "x": "' + b'x' * 65_536 + b'"}\n',
    ],
    ids=lambda text: repr(text[:32]),
)
def test_what_is_no_request(path, control_server, script, request_line):
    error = while_open(control_server, lambda: error_of(path, request_line))
    assert 'A request is a line of at most 65536 bytes' in error
    assert '{"version": 1, "command": "status"}' in error
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    'command',
    [b'null', b'[]', b'{}', b'7', b'"Status"', b'"\\ud800"', b'"' + b'y' * 60_000 + b'"'],
)
def test_what_is_no_command(path, control_server, command):
    line = b'{"version": 1, "command": %b}\n' % command
    error = while_open(control_server, lambda: error_of(path, line))
    assert 'is not a command; known commands: break, cancel, lose' in error


def test_a_request_without_a_command(path, control_server):
    assert 'is not a command' in while_open(control_server, lambda: error_of(path, b'{}\n'))


def test_the_longest_request(path, control_server, script):
    frame = b'{"command": "status", "x": ""}'
    line = frame.replace(b'""', b'"%b"' % (b'x' * (65_536 - len(frame)))) + b'\n'
    assert len(line) == 65_537
    assert json.loads(while_open(control_server, lambda: say(path, line))) == REPLY
    assert len(script.requests[0]['x']) == 65_536 - len(frame)


# -- versions


@pytest.mark.parametrize('version', [b'', b'"version": 0, ', b'"version": 1, '])
def test_one_that_was_not_restarted_yet_is_served_the_same(path, control_server, version):
    line = b'{%b"command": "status"}\n' % version
    assert json.loads(while_open(control_server, lambda: say(path, line))) == REPLY


@pytest.mark.parametrize('version', [b'2', b'17', b'1' + b'0' * 400])
def test_a_request_of_a_later_version(path, control_server, script, version):
    line = b'{"version": %b, "command": "no such command"}\n' % version
    error = while_open(control_server, lambda: error_of(path, line))
    assert error.startswith(f'The request has version {version[:9].decode()} of the protocol')
    assert f'process {os.getpid()} reads versions up to 1. Restart that process' in error
    assert 'the older of the two' in error


@pytest.mark.parametrize(
    'version', [b'null', b'true', b'-1', b'1.0', b'1e400', b'NaN', b'"1"', b'[1]', b'{}']
)
def test_a_version_that_is_none(path, control_server, version):
    line = b'{"version": %b, "command": "status"}\n' % version
    error = while_open(control_server, lambda: error_of(path, line))
    assert error == 'The version of the request is not a whole number such as 1.'


# -- answers that fail


def test_an_answer_that_is_refused(path, control_server, caplog):
    error = while_open(control_server, lambda: error_of(path, b'{"command": "refuse"}\n'))
    assert error == exception.sentence(exception.NotPinned(image_id='X'))
    assert not caplog.records


@pytest.mark.parametrize('command', ['break', 'lose', 'set'])
def test_an_answer_that_fails(path, control_server, command, caplog):
    line = json.dumps({'version': 1, 'command': command}).encode() + b'\n'
    error = while_open(control_server, lambda: error_of(path, line))
    assert error.startswith(f'Command "{command}" failed unexpectedly. See the log of process')
    (entry,) = (entry for entry in caplog.records if entry.levelno >= logging.WARNING)
    assert f'Unexpected error while answering command "{command}"; going on' in entry.message
    assert entry.exc_info


# -- bad visitors


@pytest.mark.parametrize(
    'text', [b'', b'{"command": "cancel"}\n'], ids=['nothing', 'cancelled answer']
)
def test_it_stays_open_whatever_is_said(path, control_server, text, caplog):
    async def visit():
        await say(path, text)
        return await say(path, GOOD)

    assert json.loads(while_open(control_server, visit)) == REPLY
    gc.collect()  # asyncio complains of an unhandled error when its task goes
    assert not [entry for entry in caplog.records if entry.levelno >= logging.ERROR]


@pytest.mark.parametrize('text', [b'', b'{"version": 1, "comm'])
def test_a_silent_visitor_keeps_nobody_waiting_and_is_sent_away(path, control_server, text):
    async def visit():
        async with visitor(path, text) as client:
            answer = await say(path, GOOD)
            return json.loads(answer), await hear(client)

    assert while_open(control_server, visit) == (REPLY, b'')


@pytest.mark.parametrize('count', [2, 100_000])
def test_the_first_of_many_lines_is_answered(path, control_server, script, count):
    async def visit():
        return await say(path, GOOD * count), await say(path, GOOD)

    tracemalloc.start()
    try:
        answers = while_open(control_server, visit)
        # The lines themselves are 3.6 MB, and sendall() has them once more as a bytearray at most.
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [json.loads(answer) for answer in answers] == [REPLY, REPLY]
    assert len(script.requests) == 2
    assert peak < len(GOOD) * count * 2 + MIB


def test_one_who_says_much_while_the_answer_waits_fills_no_memory(path, control_server):
    """What is not read stays with whoever sends it."""

    async def visit():
        async with visitor(path, b'{"command": "wait"}\n') as client:
            sent = 0
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(1):
                        await asyncio.get_running_loop().sock_sendall(client, GOOD * 1000)
                    sent += len(GOOD) * 1000
            return sent, await say(path, GOOD)

    sent, answer = while_open(control_server, visit)
    assert sent < MIB
    assert json.loads(answer) == REPLY


def test_a_visitor_who_never_reads(path, control_server):
    async def visit():
        async with visitor(path, b'{"command": "tell"}\n') as client:
            answer = await say(path, GOOD)
            await asyncio.sleep(6)
            assert not control_server._tasks
            return json.loads(answer), await hear(client)

    reply, cut = while_open(control_server, visit)
    assert reply == REPLY
    assert 0 < len(cut) < 4 * MIB


@pytest.mark.parametrize('size', [*range(64 << 10, 512 << 10, 32 << 10), 4 * MIB])
def test_a_long_reply_to_one_who_reads(path, control_server, size):
    """Whatever part of it does not fit into the buffers of the socket."""
    line = b'{"command": "tell", "bytes": %d}\n' % size
    answer = while_open(control_server, lambda: say(path, line))
    assert json.loads(answer) == {'version': 1, 'much': 'x' * size}


def test_too_many_connections(path, control_server):
    async def visit():
        async with contextlib.AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(visitor(path)) for _ in range(64)]
            busy = await say(path, GOOD)
            crowd[7].close()
            # It is gone once the server has seen that.
            while len(control_server._tasks) == 64:
                await asyncio.sleep(0)
            return json.loads(busy), await say(path, GOOD)

    busy, good = while_open(control_server, visit)
    assert busy == {
        'version': 1,
        'error': 'The server is busy with 64 connections. Try again.',
    }
    assert json.loads(good) == REPLY


def test_a_client_of_a_busy_server(path, control_server):
    """It reads why, though the server has hung up before it was asked."""

    async def visit():
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(64):
                await stack.enter_async_context(visitor(path))
            await asyncio.to_thread(RecorderClient(path, 60).status)

    with pytest.raises(exception.RecorderUnreachable, match='The server is busy with 64'):
        while_open(control_server, visit)


# -- who may connect


def ask_as(path, control_server, *users):
    """Return what users are answered, one after the other."""

    async def visit():
        return [json.loads(await say(path, GOOD)) for _ in users]

    with mock.patch.object(module, '_user_of', autospec=True, side_effect=users):
        return while_open(control_server, visit)


def test_root_and_its_own_user_are_served(path, control_server):
    assert ask_as(path, control_server, 0, os.geteuid()) == [REPLY, REPLY]


def test_root_is_served_by_another_user(path, control_server):
    with mock.patch.object(os, 'geteuid', autospec=True, return_value=4711):
        replies = ask_as(path, control_server, 0, 4711, 4712)
    assert replies[:2] == [REPLY, REPLY]
    assert 'only root and user 4711' in replies[2]['error']


def test_others_are_refused_with_one_warning(path, control_server, script, caplog):
    caplog.set_level(logging.INFO)
    other = os.geteuid() + 17
    (*refused, good) = ask_as(path, control_server, other, other + 1, os.geteuid())
    assert good == REPLY
    assert [reply['error'].split(':')[0] for reply in refused] == [
        f'User {other} is refused',
        f'User {other + 1} is refused',
    ]
    assert len(script.requests) == 1
    entries = [entry for entry in caplog.records if 'Refused user' in entry.message]
    assert [entry.levelno for entry in entries] == [logging.WARNING, logging.INFO]
    assert f"Refused user {other} at socket '{path}'" in entries[0].message


@pytest.mark.parametrize('umask', [0o000, 0o022])
def test_it_is_open_to_this_user_alone(path, control_server, umask):
    async def visit():
        return stat.S_IMODE(path.stat().st_mode)

    old = os.umask(umask)
    try:
        assert while_open(control_server, visit) == 0o600
        assert os.umask(umask) == umask, 'what was set for others is set again'
    finally:
        os.umask(old)


def test_a_socket_that_was_left_behind_is_replaced(path, control_server):
    path.write_text('left behind')
    assert json.loads(while_open(control_server, lambda: say(path, GOOD))) == REPLY


def test_a_closed_control_server_leaves_nothing(path, control_server):
    async def visit():
        assert path.is_socket()

    while_open(control_server, visit)
    assert not path.exists()


def test_what_is_under_way_ends_with_the_server(path, control_server, script):
    async def run():
        await control_server.open()
        async with (
            visitor(path, b'{"command": "wait"}\n') as waiting,
            visitor(path) as silent,
            visitor(path, b'{"command": "tell"}\n') as deaf,
        ):
            while len(control_server._tasks) < 3 or len(script.requests) < 2:
                await asyncio.sleep(0)
            await control_server.close()
            assert script.cancelled == 1
            assert not control_server._tasks
            assert await hear(waiting) == await hear(silent) == b''
            assert len(await hear(deaf)) < 4 * MIB
        await control_server.close()

    virtual_time.run(run())
    assert not path.exists()


async def turn(times):
    """Let the event loop go round; it takes some turns to accept a connection."""
    for _ in range(times):
        await asyncio.sleep(0)


@pytest.mark.parametrize('turns', range(6))
def test_who_connected_just_before_it_closes(path, control_server, script, turns):
    async def run():
        await control_server.open()
        async with visitor(path, GOOD) as late:
            await turn(turns)
            served = len(script.requests)
            await control_server.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}
            await hear(late)
        assert len(script.requests) == served

    virtual_time.run(run())


@pytest.mark.parametrize('turns', range(6))
def test_who_connects_while_it_closes(path, control_server, script, turns):
    other = path.with_name('other')

    async def run():
        await control_server.open()
        os.link(path, other)
        closing = asyncio.create_task(control_server.close())
        await turn(turns)
        with contextlib.suppress(ConnectionError):
            async with visitor(other, GOOD) as late:
                await closing
                await hear(late)
        await closing
        assert not script.requests
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual_time.run(run())


def test_a_closed_control_server_lets_nobody_in_by_another_name(path, control_server):
    other = path.with_name('other')

    async def run():
        await control_server.open()
        path.rename(other)
        await control_server.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_unix_connection(other)

    asyncio.run(run())


def test_a_control_server_that_was_never_opened_removes_nothing(path, control_server):
    path.write_text("another recorder's")
    asyncio.run(control_server.close())
    assert path.exists()


def test_a_control_server_that_cannot_be_opened_changes_no_umask(short_folder):
    old = os.umask(0o022)
    try:
        with pytest.raises(OSError):
            asyncio.run(ControlServer(short_folder / 'gone' / 'ctl', (), Script().answer).open())
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(old)
