# SPDX-License-Identifier: Apache-2.0
"""Commands that run in lanes."""

from concurrent import futures
import os
import pathlib
import signal
import subprocess
import sys
import threading
from unittest import mock

import pytest

PATIENCE = 300


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def run(lanes, tmp_path, said):
    def run_lanes(*wanted):
        return lanes.run(wanted, tmp_path, said.append)

    return run_lanes


@pytest.fixture
def python(lanes):
    """A function that makes a part of a program."""

    def make(name, program, **more):
        return lanes.Part(name, [sys.executable, '-c', program], **more)

    return make


def test_a_lane_is_in_order_and_goes_on_after_a_failure(run, python, said):
    results = run([python('a', 'raise SystemExit(3)'), python('b c', 'print("words")')])
    assert [(each.part.name, each.code) for each in results] == [('a', 3), ('b c', 0)]
    assert results[1].log.name == 'b-c.log'
    assert results[1].log.read_text() == 'words\n'
    assert said[0].startswith('a: FAILED (exit code 3)')
    assert said[1].startswith('b c: ok')


def test_lanes_run_side_by_side(run, python, tmp_path):
    """Each of the two waits for what the other one makes."""
    program = (
        'import os, pathlib, sys, time\n'
        'mine, other = (pathlib.Path({folder!r}, name) for name in ({mine!r}, {other!r}))\n'
        'mine.touch()\n'
        'while not other.exists(): time.sleep(0.01)\n'
    )
    first = program.format(folder=str(tmp_path), mine='x', other='y')
    second = program.format(folder=str(tmp_path), mine='y', other='x')
    options = {'seconds': PATIENCE}
    results = run([python('one', first, **options)], [python('two', second, **options)])
    assert [each.code for each in results] == [0, 0]


def test_what_cannot_be_started_has_failed(run, lanes, said):
    (result,) = run([lanes.Part('absent', ['/nonexistent/program'])])
    assert result.code != 0
    assert 'cannot be started: No such file' in said[0]


def test_what_takes_too_long_is_ended_with_all_that_it_started(run, python, tmp_path, said):
    fifo = tmp_path / 'fifo'
    os.mkfifo(fifo)
    program = (
        'import subprocess, time\n'
        f'writer = open({str(fifo)!r}, "w")\n'
        'subprocess.Popen(["sleep", "3600"], pass_fds=[writer.fileno()])\n'
        'time.sleep(3600)\n'
    )
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        (result,) = run([python('long', program, seconds=1)])
        assert result.code != 0
        assert 'it was ended after 1 s' in said[-1]
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b'', 'nobody has it open any more'
    finally:
        os.close(reader)


def test_an_interrupt_ends_what_runs_and_undoes_what_was_done(run, python, tmp_path, said):
    begun = tmp_path / 'begun'
    os.mkfifo(begun)
    waits = f'open({str(begun)!r}, "w").close()\nimport time\ntime.sleep(3600)'
    undone = tmp_path / 'undone'

    def interrupt() -> None:
        begun.read_bytes()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(
            [
                python('waits', waits),
                python('is skipped', 'raise SystemExit(1)'),
                python('undoes', f'open({str(undone)!r}, "w").close()', undoes=True),
            ]
        )
    thread.join(PATIENCE)
    assert undone.exists(), said
    assert not (tmp_path / 'is-skipped.log').exists()


def test_an_interrupt_while_a_command_is_being_started_ends_it_too(lanes, python, tmp_path):
    """The command runs already, and whoever started it does not know it yet."""
    start, noticed = subprocess.Popen, threading.Event()

    def say(text: str) -> None:
        if text.startswith('interrupted'):
            noticed.set()

    def starts_and_is_interrupted(*words, **options):
        child = start(*words, **options)
        os.kill(os.getpid(), signal.SIGINT)
        noticed.wait(PATIENCE)
        return child

    with mock.patch.object(lanes.subprocess, 'Popen', autospec=True) as popen:
        popen.side_effect = starts_and_is_interrupted
        with pytest.raises(KeyboardInterrupt):
            lanes.run([[python('waits', 'import time\ntime.sleep(3600)')]], tmp_path, say)
    assert noticed.is_set()


def test_an_interrupt_while_a_lane_is_being_started_ends_it_too(lanes, python, run, said):
    """Its command runs, and nobody has returned from starting its lane."""
    begun = threading.Event()
    start, submit = subprocess.Popen, futures.ThreadPoolExecutor.submit

    def starts(*words, **options):
        child = start(*words, **options)
        begun.set()
        return child

    def submits_and_is_interrupted(*words):
        lane = submit(*words)
        begun.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGINT)
        return lane

    with (
        mock.patch.object(lanes.subprocess, 'Popen', autospec=True, side_effect=starts),
        mock.patch.object(
            lanes.futures.ThreadPoolExecutor,
            'submit',
            autospec=True,
            side_effect=submits_and_is_interrupted,
        ),
        pytest.raises(KeyboardInterrupt),
    ):
        run([python('waits', 'import time\ntime.sleep(20)')])
    assert said[0] == 'interrupted: ending what is running'
    assert said[1].startswith('waits: FAILED')


def test_what_is_running_is_said_from_time_to_time(lanes, run, python, said, tmp_path):
    """The part goes on until it was said that it runs."""
    stop = tmp_path / 'stop'

    def say(text: str) -> None:
        said.append(text)
        if 'half way' in text:
            stop.touch()

    program = (
        'import pathlib, time\n'
        'print("half way", flush=True)\n'
        f'while not pathlib.Path({str(stop)!r}).exists(): time.sleep(0.01)\n'
    )
    with mock.patch.object(lanes, '_HEARTBEAT_SECONDS', 0.1):
        (result,) = lanes.run([[python('a', program, seconds=PATIENCE)]], tmp_path, say)
    assert result.code == 0
    assert 'a: half way' in said


@pytest.mark.parametrize(
    ('log', 'words'),
    [
        ('', '...'),
        ('one\ntwo\n\n', 'two'),
        ('\x1b[1mbold\x1b[0m\n', '[1mbold[0m'),
        ('....... [ 45%]\n......', '45%'),
        ('tests/test_a.py::test_b ', 'tests/test_a.py::test_b'),
    ],
)
def test_last_words(lanes, tmp_path: pathlib.Path, log, words):
    path = tmp_path / 'log'
    path.write_text(log)
    assert lanes._last_words(path) == words


def test_of_a_log_with_failures_these_are_shown(lanes, tmp_path):
    path = tmp_path / 'log'
    path.write_text('dots\n' * 100 + '===== FAILURES =====\nwhy\n' + 'more\n' * 100)
    assert lanes.tail(path).splitlines()[:2] == ['===== FAILURES =====', 'why']
    path.write_text('a\nb\nc\n')
    assert lanes.tail(path, 2) == 'b\nc'
