# SPDX-License-Identifier: Apache-2.0
"""The recorder's control server: who may connect, what is answered, and what it survives."""

import asyncio
import contextlib
import gc
import json
import logging
import os
import stat

import pytest

from nova_qcache import exception
from nova_qcache.model.states import Phase
from nova_qcache.recorder.control_server import ControlServer
from nova_qcache.system.control import RecorderClient
from tests.unit import builders
from tests.unit import virtual_time

STATUS = builders.status(Phase.SERVING, guests=3)
REPLY = {
    'phase': 'serving',
    'guests': 3,
    'recorded_bytes': 0,
    'pid': 1234,
    'daemon_pid': 1235,
    'note': 'a note',
}


BREAK = b'{"command": "break"}\n'


def break_down():
    raise ZeroDivisionError


def lose_the_file():
    raise FileNotFoundError


@pytest.fixture
def path(short_folder):
    return short_folder / 'ctl'


@pytest.fixture
def control_server(path):
    return ControlServer(
        path, {'status': lambda: REPLY, 'break': break_down, 'lose': lose_the_file}
    )


def while_open(control_server, visit):
    """Run the coroutine function ``visit`` while the server listens."""

    async def run():
        await control_server.open()
        try:
            return await visit()
        finally:
            await control_server.close()

    return virtual_time.run(run())


async def say(path, text):
    """Say something, hang up the sending side, and return all that is answered."""
    reader, writer = await asyncio.open_unix_connection(path, limit=2**20)
    with contextlib.suppress(ConnectionError):
        writer.write(text)
        await writer.drain()
        writer.write_eof()
    answer = b''
    with contextlib.suppress(ConnectionError):
        answer = await reader.read()
    writer.close()
    return answer


def test_client_and_control_server_speak_one_language(path, control_server):
    async def visit():
        return await asyncio.to_thread(RecorderClient(path, 60).status)

    assert while_open(control_server, visit) == STATUS


def test_a_command_it_does_not_know(path, control_server):
    async def visit():
        return await asyncio.to_thread(RecorderClient(path, 60).seal)

    with pytest.raises(exception.RecorderUnreachable) as caught:
        while_open(control_server, visit)
    assert '"seal"' in str(caught.value)
    assert 'is not a command; known commands: break, lose, status' in str(caught.value)


@pytest.mark.parametrize(
    'request_line',
    [
        b'\n',
        b'status\n',
        b'\xff\xfe\n',
        b'null\n',
        b'[]\n',
        b'{}\n',
        b'{"command": null}\n',
        b'{"command": []}\n',
        b'{"command": {}}\n',
        b'[' * 60_000 + b'\n',
    ],
)
def test_nonsense_is_answered_with_an_error(path, control_server, request_line):
    answer = while_open(control_server, lambda: say(path, request_line))
    assert answer.endswith(b'\n')
    assert 'is not a command' in json.loads(answer)['error']
    assert len(answer) < 500


@pytest.mark.parametrize(
    'text',
    [
        b'',
        b'{"command": "sta',
        b'x' * 70_000 + b'\n',
        b'x' * 200_000,
        BREAK,
        b'{"command": "lose"}\n',
    ],
    ids=['nothing', 'half', 'too long', 'much too long', 'broken handler', 'lost file'],
)
def test_it_stays_open_whatever_is_said(path, control_server, text, caplog):
    async def visit():
        await say(path, text)
        return await say(path, b'{"command": "status"}\n')

    assert json.loads(while_open(control_server, visit)) == REPLY
    gc.collect()  # asyncio complains of an unhandled error when its task goes
    complaints = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert bool(complaints) == (text == BREAK)


def test_a_silent_visitor_keeps_nobody_waiting_and_is_sent_away(path, control_server):
    async def visit():
        reader, writer = await asyncio.open_unix_connection(path)
        answer = await say(path, b'{"command": "status"}\n')
        sent_away = await reader.read()
        writer.close()
        return json.loads(answer), sent_away

    assert while_open(control_server, visit) == (REPLY, b'')


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
    assert (
        json.loads(while_open(control_server, lambda: say(path, b'{"command": "status"}\n')))
        == REPLY
    )


def test_a_closed_control_server_leaves_nothing(path, control_server):
    async def visit():
        assert path.is_socket()

    while_open(control_server, visit)
    assert not path.exists()


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
            asyncio.run(ControlServer(short_folder / 'gone' / 'ctl', {}).open())
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(old)
