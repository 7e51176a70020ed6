# SPDX-License-Identifier: Apache-2.0
"""Talking to a recorder that answers, is silent, or says anything at all."""

import contextlib
import json
import os
import socket
import threading
import time
from unittest import mock

from hypothesis import example
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from nova_qcache import exception
from nova_qcache.model.states import Phase
from nova_qcache.system.control import RecorderClient
from tests.unit import builders

REPLY = {
    'version': 1,
    'phase': 'recording',
    'guests': 2,
    'recorded_bytes': 4096,
    'pid': 10,
    'daemon_pid': 11,
    'note': 'a note',
    'unreadable_blocks': 0,
}
STATUS = builders.status(Phase.RECORDING, guests=2, recorded_bytes=4096, pid=10, daemon_pid=11)
TOO_LONG = b'{"note": "' + b'x' * 200_000 + b'"}\n'


def without(name):
    return {key: value for key, value in REPLY.items() if key != name}


@pytest.fixture
def path(short_folder):
    return short_folder / 'ctl'


@contextlib.contextmanager
def server(path, *pieces, hold=False, pause=0.0):
    """A recorder for one client: takes its request, sends ``pieces`` with a pause before each, and
    hangs up or holds on."""
    requests: list[bytes] = []
    leave = threading.Event()

    def serve():
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            requests.append(connection.recv(65536))
            for piece in pieces:
                leave.wait(pause)
                connection.sendall(piece)
            if hold:
                leave.wait()

    with socket.socket(socket.AF_UNIX) as listener:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(1)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield requests
        finally:
            leave.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def refusal(path, *pieces, hold=False, seconds=60):
    with (
        server(path, *pieces, hold=hold),
        pytest.raises(exception.RecorderUnreachable) as caught,
    ):
        RecorderClient(path, seconds).status()
    said = str(caught.value)
    assert f'No recorder answers at {str(path)!r}' in said
    assert '`nova-qcache record` starts one' in said
    return said


@pytest.mark.parametrize(
    ('verb', 'command'),
    [
        ('status', 'status'),
        ('expect_guest', 'expect-guest'),
        ('seal', 'seal'),
        ('drop', 'drop'),
        ('hold', 'hold'),
        ('leave', 'leave'),
        ('dismiss', 'dismiss'),
    ],
)
def test_verbs(path, verb, command):
    with server(path, json.dumps(REPLY).encode() + b'\n') as requests:
        assert getattr(RecorderClient(path, 60), verb)() == STATUS
    assert requests == [json.dumps({'version': 1, 'command': command}).encode() + b'\n']


@pytest.mark.parametrize(
    ('more', 'claimed'),
    [({'claimed': True}, True), ({'claimed': False}, False), ({'claimed': 1}, False), ({}, False)],
)
def test_claim(path, more, claimed):
    with server(path, json.dumps({**REPLY, **more}).encode() + b'\n') as requests:
        assert RecorderClient(path, 60).claim() is claimed
    assert requests == [b'{"version": 1, "command": "claim"}\n']


def test_a_claim_of_a_recorder_that_knows_none(path):
    with (
        server(path, b'{"error": "no such command"}\n'),
        pytest.raises(exception.RecorderUnreachable, match='no such command'),
    ):
        RecorderClient(path, 60).claim()


def test_a_reply_in_pieces(path):
    text = json.dumps(REPLY).encode() + b'\n'
    with server(path, text[:1], text[1:20], text[20:], hold=True):
        assert RecorderClient(path, 60).status() == STATUS


def test_a_reply_that_takes_its_time(path):
    text = json.dumps(REPLY).encode() + b'\n'
    with server(path, text[:20], text[20:], pause=0.05):
        assert RecorderClient(path, 60).status() == STATUS


def test_a_deadline_is_for_the_whole_reply_and_not_for_each_piece(path):
    drops = [bytes([letter]) for letter in json.dumps(REPLY).encode() + b'\n']
    with (
        server(path, *drops, pause=0.02),
        pytest.raises(exception.RecorderUnreachable, match='timed out'),
    ):
        RecorderClient(path, 0.2).status()


@contextlib.contextmanager
def full_queue(path):
    """A listener that accepts nobody, as one that is stopped, and to which nobody can connect."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        with pytest.raises(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        yield listener


def test_a_listener_whose_queue_is_full(path):
    with full_queue(path), pytest.raises(exception.RecorderUnreachable, match='timed out'):
        RecorderClient(path, 0.05).status()


def test_a_listener_whose_queue_was_full(path):
    with full_queue(path) as listener, contextlib.ExitStack() as stack:

        def serve_all(seconds):
            """In place of the pause of the client: accept whoever waits, and answer the client."""
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    stack.enter_context(listener.accept()[0])
            listener.setblocking(True)
            thread = threading.Thread(target=serve_one)
            stack.callback(thread.join)
            thread.start()

        def serve_one():
            with listener.accept()[0] as connection:
                connection.sendall(json.dumps(REPLY).encode() + b'\n')

        with mock.patch.object(time, 'sleep', autospec=True, side_effect=serve_all):
            assert RecorderClient(path, 60).status() == STATUS


def test_a_deadline_that_has_passed_is_not_missed_for_more_to_read(path):
    """Whoever sends a byte now and then would keep the client for ever."""
    begin = time.monotonic()
    times = iter([begin] * 3)  # the begin, the connection, the first piece

    class OneByOne(socket.socket):
        def recv(self, size, flags=0, /):
            return super().recv(1)

    with (
        server(path, json.dumps(REPLY).encode() + b'\n', hold=True),
        mock.patch.object(socket, 'socket', OneByOne),
        mock.patch.object(
            time, 'monotonic', autospec=True, side_effect=lambda: next(times, begin + 61)
        ),
        pytest.raises(exception.RecorderUnreachable, match='timed out'),
    ):
        RecorderClient(path, 60).status()


def test_a_server_that_hangs_up_before_it_is_asked(path):
    """So does one that is busy; what it has said before is read."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        class Late(socket.socket):
            """Connects, and is answered and left before it can ask anything."""

            def connect(self, address):
                super().connect(address)
                with listener.accept()[0] as connection:
                    connection.sendall(b'{"version": 1, "error": "Busy. Try again."}\n')

        with (
            mock.patch.object(socket, 'socket', Late),
            pytest.raises(exception.RecorderUnreachable, match=r': Busy\. Try again\. `nova'),
        ):
            RecorderClient(path, 60).status()


# -- versions


@pytest.mark.parametrize('reply', [without('version'), {**REPLY, 'version': 0}, REPLY])
def test_a_reply_of_this_version_or_of_one_before(path, reply):
    with server(path, json.dumps(reply).encode() + b'\n'):
        assert RecorderClient(path, 60).status() == STATUS


@pytest.mark.parametrize('more', [{}, {'error': 'no such command'}, {'phase': 'of the future'}])
def test_a_reply_of_a_later_version(path, more):
    said = refusal(path, json.dumps({**REPLY, **more, 'version': 2}).encode() + b'\n')
    assert f'The reply has version 2 of the protocol, but process {os.getpid()} reads' in said
    assert 'versions up to 1. Restart that process, the older of the two.' in said
    assert '..' not in said.replace(str(path), '')


def test_a_claim_that_a_later_version_answers(path):
    reply = {**REPLY, 'claimed': True, 'version': 2}
    with (
        server(path, json.dumps(reply).encode() + b'\n'),
        pytest.raises(exception.RecorderUnreachable, match='The reply has version 2'),
    ):
        RecorderClient(path, 60).claim()


@pytest.mark.parametrize('version', [None, True, -1, 1.0, float('inf'), '1', [], {}])
def test_a_version_that_is_none(path, version):
    said = refusal(path, json.dumps({**REPLY, 'version': version}).encode() + b'\n')
    assert 'The version of the reply is not a whole number such as 1.' in said


def test_a_version_that_is_very_long(path):
    line = json.dumps({**REPLY, 'version': 10**400}).encode() + b'\n'
    assert 'The reply has version 100000000 of' in refusal(path, line)


def test_more_fields_than_we_know(path):
    with server(path, json.dumps({**REPLY, 'new': []}).encode() + b'\n'):
        assert RecorderClient(path, 60).status() == STATUS


def test_nobody(path):
    with pytest.raises(exception.RecorderUnreachable, match='No such file or directory'):
        RecorderClient(path).status()


def test_a_socket_that_was_left_behind(path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(exception.RecorderUnreachable, match='Connection refused'):
        RecorderClient(path).status()


def test_a_path_that_is_too_long(short_folder):
    with pytest.raises(exception.RecorderUnreachable, match='path too long'):
        RecorderClient(short_folder / ('x' * 108)).status()


@pytest.mark.parametrize('pieces', [(), (b'{"phase": ',)], ids=['silent', 'stuck half-way'])
def test_silence_has_an_end(path, pieces):
    assert 'timed out' in refusal(path, *pieces, hold=True, seconds=0.05)


def test_a_listener_that_never_accepts(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        with pytest.raises(exception.RecorderUnreachable, match='timed out'):
            RecorderClient(path, 0.05).status()


@pytest.mark.parametrize('pieces', [(), (b'{"phase": ',), (b'\0',)])
def test_hanging_up(path, pieces):
    assert 'the reply ends in the middle' in refusal(path, *pieces)


@pytest.mark.parametrize('hold', [True, False])
def test_a_reply_that_is_too_long(path, hold):
    assert 'the reply ends in the middle' in refusal(path, TOO_LONG[:-1], hold=hold)


def test_an_error_is_passed_on(path):
    assert 'no such command' in refusal(path, b'{"error": "no such command"}\n')


@pytest.mark.parametrize('name', sorted(set(REPLY) - {'unreadable_blocks', 'version'}))
def test_a_field_that_is_missing(path, name):
    assert name in refusal(path, json.dumps(without(name)).encode() + b'\n')


@pytest.mark.parametrize(
    'reply',
    [
        b'\n',
        b'nonsense\n',
        b'\xff\xfe\n',
        b'null\n',
        b'[]\n',
        b'"status"\n',
        b'[' * 60_000 + b'\n',
        json.dumps({**REPLY, 'phase': 'sleeping'}).encode() + b'\n',
        json.dumps({**REPLY, 'phase': []}).encode() + b'\n',
        json.dumps({**REPLY, 'guests': 'two'}).encode() + b'\n',
        json.dumps({**REPLY, 'guests': None}).encode() + b'\n',
        json.dumps({**REPLY, 'guests': float('inf')}).encode() + b'\n',
        json.dumps({**REPLY, 'pid': float('nan')}).encode() + b'\n',
    ],
)
def test_garbage(path, reply):
    refusal(path, reply)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200)
    | st.dictionaries(st.sampled_from([*REPLY, 'error']), values).map(
        lambda changes: json.dumps({**REPLY, **changes}).encode()
    )
)
@example(b'')
def test_anything_at_all_is_a_status_or_one_error(path, reply):
    with server(path, reply + b'\n'), contextlib.suppress(exception.RecorderUnreachable):
        assert RecorderClient(path, 60).status().phase in Phase


def test_one_of_before_an_upgrade_knows_of_nothing_that_cannot_be_read(path):
    answer = json.dumps(without('unreadable_blocks')).encode() + b'\n'
    with server(path, answer):
        assert RecorderClient(path).status() == STATUS


@pytest.mark.parametrize(
    ('status', 'said'),
    [
        (builders.status(Phase.RECORDING), ''),
        (builders.status(Phase.SEALING), ''),
        (builders.status(Phase.SERVING), 'its recorder no longer records: a note'),
        (builders.status(unreadable_blocks=1), 'some blocks of its base cannot be read'),
    ],
)
def test_why_no_more_guests_are_to_come(status, said):
    assert status.refusal == said
