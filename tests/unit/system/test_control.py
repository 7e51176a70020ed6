# SPDX-License-Identifier: Apache-2.0
"""Talking to a recorder that answers, is silent, or says anything at all."""

import contextlib
import json
import socket
import threading

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
    assert requests == [json.dumps({'command': command}).encode() + b'\n']


@pytest.mark.parametrize(
    ('more', 'claimed'),
    [({'claimed': True}, True), ({'claimed': False}, False), ({'claimed': 1}, False), ({}, False)],
)
def test_claim(path, more, claimed):
    with server(path, json.dumps({**REPLY, **more}).encode() + b'\n') as requests:
        assert RecorderClient(path, 60).claim() is claimed
    assert requests == [b'{"command": "claim"}\n']


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


def test_a_listener_whose_queue_is_full(path):
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        with pytest.raises(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(exception.RecorderUnreachable):
            RecorderClient(path, 0.05).status()


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


@pytest.mark.parametrize('name', sorted(set(REPLY) - {'unreadable_blocks'}))
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
