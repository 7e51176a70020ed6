# SPDX-License-Identifier: Apache-2.0
"""A warning once an hour for one trouble, and never silence for another."""

import logging
import time
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.system import log_rate_limit
from nova_qcache.system.log_rate_limit import LogRateLimit


@pytest.fixture
def clock():
    """The monotonic clock of a host that has just booted."""
    with mock.patch.object(time, 'monotonic', autospec=True, return_value=1.0) as made:
        yield made


@pytest.fixture
def said(clock):
    return LogRateLimit()


def unfit(path='/cache', reason='it is gone'):
    return exception.FolderUnfit(path=path, reason=reason, remedy='Bring it back')


def test_the_first_time_and_again(said):
    assert said.level(unfit()) == logging.WARNING
    assert [said.level(unfit()) for _ in range(3)] == [logging.INFO] * 3


@pytest.mark.parametrize(
    ('seconds', 'level'), [(3599.9, logging.INFO), (3600, logging.WARNING), (1e6, logging.WARNING)]
)
def test_once_an_hour(said, clock, seconds, level):
    said.level(unfit())
    clock.return_value += seconds
    assert said.level(unfit()) == level


def test_the_hour_begins_with_the_warning(said, clock):
    for _ in range(4):
        levels = []
        for _ in range(3):
            levels.append(said.level(unfit()))
            clock.return_value += 1200
        assert levels == [logging.WARNING, logging.INFO, logging.INFO]


ALIKE = {
    'the same path': (unfit(reason='gone'), unfit(reason='read-only')),
    'the same file': (
        FileNotFoundError(2, 'No such file', '/run/x'),
        FileNotFoundError(2, 'Another word', '/run/x'),
    ),
    'the same words': (ValueError('x'), ValueError('x')),
    'the same words about two images': (
        exception.RecorderFailed(
            image_id='0e0f97ae-2b43-4a2f-8a0d-6d7a4a3b9f11', reason='8323072 bytes are free'
        ),
        exception.RecorderFailed(
            image_id='b5a48cc4-aa15-4668-8cc6-5bc0ca62a158', reason='8319 bytes are free'
        ),
    ),
}
DIFFERENT = {
    'another path': (unfit('/cache'), unfit('/run')),
    'another kind': (
        unfit('/x'),
        exception.RecorderUnreachable(path='/x', reason='it is gone'),
    ),
    'another file': (FileNotFoundError(2, 'No', '/run/x'), FileNotFoundError(2, 'No', '/run/y')),
    'other words': (
        exception.RecorderFailed(image_id='x', reason='one'),
        exception.RecorderFailed(image_id='x', reason='two'),
    ),
    'without a file': (OSError(28, 'No space'), OSError(5, 'Input/output error')),
}


@pytest.mark.parametrize(('one', 'other'), ALIKE.values(), ids=ALIKE)
def test_alike(said, one, other):
    assert [said.level(one), said.level(other)] == [logging.WARNING, logging.INFO]


@pytest.mark.parametrize(('one', 'other'), DIFFERENT.values(), ids=DIFFERENT)
def test_different(said, one, other):
    assert [said.level(one), said.level(other)] == [logging.WARNING, logging.WARNING]


def test_each_remembers_for_itself(clock):
    assert [LogRateLimit().level(unfit()) for _ in range(2)] == [logging.WARNING] * 2


def test_memory_is_bounded(said):
    with mock.patch.object(log_rate_limit, '_MOST', 3):
        levels = [said.level(ValueError("x" * (number % 5))) for number in range(20)]
        assert len(said._said) <= 3
    assert levels[:5] == [logging.WARNING] * 5
