# SPDX-License-Identifier: Apache-2.0
"""Waiting: the first answer, or one named error after the deadline. The clock here is a test's."""

import time
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.system import progress
from nova_qcache.system import waiting


class Clock:
    """Time passes only in sleep."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@pytest.fixture
def clock():
    made = Clock()
    with (
        mock.patch.object(time, 'monotonic', autospec=True, side_effect=made.monotonic),
        mock.patch.object(time, 'sleep', autospec=True, side_effect=made.sleep),
    ):
        yield made


def wait(answers, seconds=10.0, shown=progress.silent):
    answers = iter(answers)
    return waiting.until(
        lambda: next(answers),
        what='Something',
        seconds=seconds,
        remedy='Do this',
        poll_seconds=2.5,
        progress=shown,
    )


@pytest.mark.parametrize('answer', ['yes', 0, False, ''])
def test_an_answer_at_once_takes_no_time(clock, answer):
    assert wait([answer]) == answer
    assert clock.naps == []


def test_the_first_answer(clock):
    assert wait([None, None, 'one', 'two']) == 'one'
    assert clock.naps == [2.5, 2.5]


def test_the_last_question_is_at_the_deadline(clock):
    assert wait([None] * 4 + ['late']) == 'late'
    assert clock.now == 1010


def test_the_deadline(clock):
    with pytest.raises(exception.DeadlinePassed) as caught:
        wait([None] * 5 + ['too late'])
    assert str(caught.value) == 'Something took longer than 10.0 s. Do this.'


def test_a_deadline_of_nothing_asks_once(clock):
    assert wait(['yes'], 0) == 'yes'
    with pytest.raises(exception.DeadlinePassed):
        wait([None, 'yes'], 0)
    assert clock.naps == []


def test_an_error_of_the_question_ends_it(clock):
    with pytest.raises(ZeroDivisionError):
        wait(1 / at for at in (0,))


def test_progress_is_the_time_that_has_passed(clock):
    told: list = []

    def show(what, total, unit='B'):
        told.append((what, total, unit))
        return told.append

    wait([None, None, 'yes'], shown=show)
    assert told == [('Something', 10.0, 's'), 0.0, 2.5]


def test_silent_progress_tells_nobody(capsys):
    progress.silent('x', 3)(1)
    assert capsys.readouterr() == ('', '')
