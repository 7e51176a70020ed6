# SPDX-License-Identifier: Apache-2.0
"""When a recording has finished: scenarios of guests, and rules that no scenario breaks."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st
import pytest

from nova_qcache.model.states import FinishReason
from nova_qcache.recorder.finish import FinishPoint
from nova_qcache.recorder.finish import Limits
from nova_qcache.recorder.finish import NextStep

LIMITS = Limits(idle=10, settle=4, longest=100, grace=3, lease=50)
EMPTY = 1000
GO_ON = NextStep.GO_ON


def expect(now):
    """A guest is told to come."""
    return lambda point: point.expect_guest(now)


def outage(now):
    """The base does not answer."""
    return lambda point: point.note_outage(now)


def hold(now):
    """A domain names the socket whose guest is not connected."""
    return lambda point: point.hold(now)


def nobody(point):
    """Whoever was told to come will not."""
    point.expect_nobody()


def watch(steps):
    """Yield the verdict after each (time, growth in bytes, guests); other steps are calls."""
    point = FinishPoint(LIMITS, 0, EMPTY)
    for step in steps:
        if callable(step):
            step(point)
            continue
        now, growth, guests = step
        point.observe(now, EMPTY + growth, guests)
        yield point.while_recording(now)


SCENARIOS = {
    'nobody comes': ([(0, 0, 0), (49, 0, 0), (50, 0, 0)], NextStep.DROP),
    'nobody comes any more': ([nobody, (0, 0, 0)], NextStep.DROP),
    'dismissed before its last guest left': ([(1, 0, 1), nobody, (2, 0, 0)], NextStep.DROP),
    'expected again after that': ([(1, 0, 1), nobody, expect(1), (2, 0, 0)], GO_ON),
    'an outage is no idleness': ([(1, 0, 1), (2, 9, 1), outage(11), (20, 9, 1)], GO_ON),
    'an outage is no rest': (
        [(1, 0, 1), (2, 9, 1), (7, 9, 1), outage(8), (9, 9, 0), (13, 9, 0)],
        NextStep.DROP,
    ),
    'somebody who will come back': ([hold(40), (50, 0, 0), (69, 0, 0)], GO_ON),
    'who did not come back': ([hold(40), (50, 0, 0), (70, 0, 0)], NextStep.DROP),
    'dismissed, whoever may come back': ([hold(1), nobody, (2, 0, 0)], NextStep.DROP),
    'a guest that still may come': ([(49.9, 0, 0)], GO_ON),
    'another that still may come': ([(1, 0, 0), expect(30), (79, 0, 0)], GO_ON),
    'two leases, one guest': ([expect(1), (2, 0, 1), (3, 0, 0), (49, 0, 0)], GO_ON),
    'reads all it needs': ([(1, 0, 1), (2, 9, 1), (11, 9, 1), (12, 9, 1)], FinishReason.IDLE),
    'reads next to nothing': ([(1, 0, 1), (2, 1, 1), (12, 1, 1)], FinishReason.IDLE),
    'reads again just in time': ([(1, 0, 1), (2, 9, 1), (11, 10, 1), (20, 10, 1)], GO_ON),
    'idle only since it came': ([(1, 0, 0), (20, 0, 1), (21, 0, 1)], GO_ON),
    'reads nothing': ([(1, 0, 1), (50, 0, 1), (100, 0, 1)], GO_ON),
    'reads nothing for too long': ([(1, 0, 1), (101, 0, 1)], NextStep.DROP),
    'reads for ever': (
        [(1, 0, 1), *((at, at, 1) for at in range(2, 101)), (101, 101, 1)],
        FinishReason.MAX_TIME,
    ),
    'leaves in the middle of its boot': (
        [(1, 0, 1), (2, 9, 1), (4, 20, 0), (7, 20, 0)],
        NextStep.DROP,
    ),
    'left in the middle, and may be back': (
        [(1, 0, 1), (2, 9, 1), (4, 20, 0), (6.9, 20, 0)],
        GO_ON,
    ),
    'leaves after it was quiet': (
        [(1, 0, 1), (2, 9, 1), (6, 9, 1), (7, 9, 0), (10, 9, 0)],
        FinishReason.LAST_GUEST,
    ),
    'was quiet, read more, and left': (
        [(1, 0, 1), (2, 9, 1), (6, 9, 1), (7, 20, 1), (8, 30, 0), (11, 30, 0)],
        FinishReason.LAST_GUEST,
    ),
    'not quiet for long enough': (
        [(1, 0, 1), (2, 9, 1), (5.9, 9, 1), (5.95, 9, 0), (9, 9, 0)],
        NextStep.DROP,
    ),
    'hard reboot': (
        [(1, 0, 1), (2, 9, 1), (6, 9, 1), (7, 9, 0), (9.9, 9, 0), (9.95, 9, 1)],
        GO_ON,
    ),
    'grace starts again': (
        [(1, 0, 1), (2, 9, 1), (6, 9, 1), (7, 9, 0), (9, 9, 1), (10, 9, 0), (12.9, 9, 0)],
        GO_ON,
    ),
    'quiet without a guest is not quiet': (
        [(1, 0, 1), expect(1), (2, 9, 1), (3, 9, 0), (40, 9, 1), (41, 9, 0), (44, 9, 0)],
        NextStep.DROP,
    ),
    'idle without a guest is not idle': (
        [(1, 0, 1), expect(1), (2, 9, 1), (3, 9, 0), (40, 9, 1), (49, 9, 1)],
        GO_ON,
    ),
    'another guest is on its way': (
        [(1, 0, 1), (2, 9, 1), (6, 9, 1), expect(6), (7, 9, 0), (55, 9, 0)],
        GO_ON,
    ),
    'another guest never came': (
        [(1, 0, 1), (2, 9, 1), (6, 9, 1), expect(6), (7, 9, 0), (56, 9, 0)],
        FinishReason.LAST_GUEST,
    ),
    'another guest came and both left': (
        [(1, 0, 1), (2, 9, 1), (6, 9, 1), expect(6), (7, 9, 2), (8, 9, 0), (11, 9, 0)],
        FinishReason.LAST_GUEST,
    ),
    'one of two leaves': ([(1, 0, 2), (2, 9, 2), (6, 9, 1), (11, 9, 1)], GO_ON),
    'told to end': (
        [(1, 0, 1), (2, 9, 1), (6, 9, 1), (7, 9, 0), nobody, (7, 9, 0)],
        FinishReason.LAST_GUEST,
    ),
    'a file that shrinks has not grown': (
        [(1, 0, 1), (2, 9, 1), (11, 3, 1), (12, 9, 1)],
        FinishReason.IDLE,
    ),
    'too long, between two guests': (
        [(1, 0, 1), (2, 9, 1), expect(60), (99, 10, 0), (101, 10, 0)],
        FinishReason.MAX_TIME,
    ),
}


@pytest.mark.parametrize(('steps', 'next_step'), SCENARIOS.values(), ids=SCENARIOS)
def test_scenario(steps, next_step):
    *before, last = watch(steps)
    assert set(before) <= {GO_ON}
    assert last is next_step


def test_recorded_and_guests():
    point = FinishPoint(LIMITS, 0, EMPTY)
    assert (point.recorded, point.guests) == (0, 0)
    point.observe(1, EMPTY + 7, 2)
    assert (point.recorded, point.guests) == (7, 2)
    point.observe(2, 0, 1)
    assert (point.recorded, point.guests) == (7, 1)


@pytest.mark.parametrize(
    ('steps', 'next_step'),
    [
        ([(0, 0)], GO_ON),
        ([(50, 0)], NextStep.LEAVE),
        ([(1, 1), (1000, 1)], GO_ON),
        ([(1, 1), (5, 0)], GO_ON),
        ([(1, 1), (5, 0), (7.9, 0)], GO_ON),
        ([(1, 1), (5, 0), (8, 0)], NextStep.LEAVE),
        ([expect(1), (2, 1), (5, 0), (50.9, 0)], GO_ON),
        ([expect(1), (2, 1), (5, 0), (51, 0)], NextStep.LEAVE),
        ([expect(1), nobody, (1, 0)], NextStep.LEAVE),
        ([expect(1), nobody, (1, 1)], GO_ON),
        ([nobody, expect(1), (5, 0)], GO_ON),
    ],
)
def test_while_serving(steps, next_step):
    point = FinishPoint(LIMITS, 0, EMPTY)
    for step in steps:
        if callable(step):
            step(point)
        else:
            now, guests = step
            point.observe(now, 0, guests)
    assert point.while_serving(now) is next_step


@dataclasses.dataclass
class History:
    """What has happened, kept as simply as can be, to check a next step by."""

    now: float = 0
    recorded: int = 0
    guests: int = 0
    growth_at: float = 0
    """Or the time since which a guest has been there, if that is later."""
    first_guest_at: float | None = None
    gone_at: float = 0
    ever_quiet: bool = False
    leases: list[float] = dataclasses.field(default_factory=lambda: [LIMITS.lease])

    def observe(self, pause, growth, guests):
        self.now += pause
        if growth or (guests and not self.guests):
            self.growth_at = self.now
        if self.guests and not guests:
            self.gone_at = self.now
        if guests and self.first_guest_at is None:
            self.first_guest_at = self.now
        del self.leases[: max(0, guests - self.guests)]
        self.leases = [until for until in self.leases if until > self.now]
        self.recorded += growth
        self.guests = guests
        if guests and self.recorded and self.quiet >= LIMITS.settle:
            self.ever_quiet = True

    @property
    def quiet(self):
        return self.now - self.growth_at

    @property
    def age(self):
        return -1 if self.first_guest_at is None else self.now - self.first_guest_at


steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 9.5, 10.0, 30.0, 60.0]),
        st.sampled_from([0, 0, 0, 1, 4096]),
        st.sampled_from([0, 0, 1, 1, 1, 2, 3]),
        st.booleans(),
    ),
    max_size=40,
)


@given(steps)
def test_ready_is_only_what_is_worth_it_and_nobody_is_left_behind(given_steps):
    point, history = FinishPoint(LIMITS, 0, EMPTY), History()
    for pause, growth, guests, expected in given_steps:
        history.observe(pause, growth, guests)
        point.observe(history.now, EMPTY + history.recorded, guests)
        if expected:
            point.expect_guest(history.now)
            history.leases.append(history.now + LIMITS.lease)
        next_step = point.while_recording(history.now)
        serving = point.while_serving(history.now)
        assert point.recorded == history.recorded

        if isinstance(next_step, FinishReason):
            assert history.recorded, 'nothing is no cache'
            assert history.ever_quiet or history.age >= LIMITS.longest
        if next_step is FinishReason.IDLE:
            assert guests
            assert history.quiet >= LIMITS.idle
        if next_step is FinishReason.MAX_TIME:
            assert history.age >= LIMITS.longest
        assert next_step not in (FinishReason.QUOTA, FinishReason.OPERATOR), 'not for it to say'

        abandoned = (
            not guests and not history.leases and history.now - history.gone_at >= LIMITS.grace
        )
        assert (serving is NextStep.LEAVE) == abandoned
        if next_step is FinishReason.LAST_GUEST:
            assert abandoned
        if next_step is NextStep.DROP:
            assert abandoned or history.age >= LIMITS.longest
        if next_step is GO_ON:
            assert not abandoned
            assert history.age < LIMITS.longest


# -- audits

PATIENCE = 1000


def audit(steps):
    """Yield the verdict after each (time, growth in bytes, guests, bytes read so far)."""
    point = FinishPoint(LIMITS, 0, EMPTY, PATIENCE)
    for step in steps:
        if callable(step):
            step(point)
            continue
        now, growth, guests, read = step
        point.observe(now, EMPTY + growth, guests, read)
        yield point.while_recording(now)


AUDITS = {
    'waits for a guest that nobody announced': ([(999, 0, 0, 0)], GO_ON),
    'waits in vain': ([(1000, 0, 0, 0)], NextStep.DROP),
    'waits for one that is late': ([expect(990), (1001, 0, 0, 0), (1039, 0, 0, 0)], GO_ON),
    'whoever was expected did not come': ([expect(10), (61, 0, 0, 0), (999, 0, 0, 0)], GO_ON),
    'told that nobody comes': ([nobody, (1, 0, 0, 0)], NextStep.DROP),
    'nothing was missed': (
        [(1, 0, 1, 0), (2, 0, 1, 9999), (11, 0, 1, 9999), (12, 0, 1, 9999)],
        FinishReason.IDLE,
    ),
    'reads from its cache': ([(1, 0, 1, 0), (9, 0, 1, 9999), (12, 0, 1, 9999)], GO_ON),
    'signals are no reads': (
        [(1, 0, 1, 0), (2, 0, 1, 9999), (9, 0, 1, 9999 + 511), (12, 0, 1, 9999 + 511)],
        FinishReason.IDLE,
    ),
    'the smallest read': (
        [(1, 0, 1, 0), (2, 0, 1, 9999), (9, 0, 1, 9999 + 512), (12, 0, 1, 9999 + 512)],
        GO_ON,
    ),
    'the smallest read is its first': ([(1, 0, 1, 0), (9, 0, 1, 512), (12, 0, 1, 512)], GO_ON),
    'misses': ([(1, 0, 1, 0), (9, 7, 1, 0), (12, 7, 1, 0)], GO_ON),
    'leaves in the middle of its boot': (
        [(1, 0, 1, 0), (2, 0, 1, 9999), (4, 0, 0, 9999), (7, 0, 0, 9999)],
        NextStep.DROP,
    ),
    'leaves after it was quiet': (
        [(1, 0, 1, 0), (2, 0, 1, 9999), (6, 0, 1, 9999), (7, 0, 0, 9999), (10, 0, 0, 9999)],
        FinishReason.LAST_GUEST,
    ),
    'reads the same for ever': (
        [(1, 0, 1, 0), *((at, 0, 1, at * 999) for at in range(2, 21)), (21, 0, 1, 21 * 999)],
        FinishReason.IDLE,
    ),
    'misses now and then': (
        [(1, 0, 1, 0), *((at, at, 1, at * 999) for at in range(2, 101)), (101, 101, 1, 101 * 999)],
        FinishReason.MAX_TIME,
    ),
    'misses late': (
        [
            *[(1, 0, 1, 0), *((at, 0, 1, at * 999) for at in range(2, 20))],
            *((at, 7, 1, at * 999) for at in range(20, 40)),
        ],
        GO_ON,
    ),
}


@pytest.mark.parametrize(('steps', 'next_step'), AUDITS.values(), ids=AUDITS)
def test_audit(steps, next_step):
    *before, last = audit(steps)
    assert set(before) <= {GO_ON}
    assert last is next_step


def test_awaiting():
    point = FinishPoint(LIMITS, 0, EMPTY, PATIENCE)
    assert point.is_awaiting(999)
    assert not point.is_awaiting(1000)
    point.expect_guest(10)
    assert not point.is_awaiting(10)
    assert point.is_awaiting(60), 'whoever was expected has not come'
    point.observe(61, EMPTY, 1)
    point.observe(62, EMPTY, 0)
    assert not point.is_awaiting(62), 'it has had its guest'


def test_a_recording_awaits_nobody():
    point = FinishPoint(LIMITS, 0, EMPTY)
    assert not point.is_awaiting(0)
    assert not point.is_awaiting(60)


def test_an_audit_that_serves_is_not_patient():
    point = FinishPoint(LIMITS, 0, EMPTY, PATIENCE)
    point.observe(4, EMPTY, 0)
    assert point.while_recording(4) is GO_ON
    assert point.while_serving(4) is NextStep.LEAVE


def test_who_came_and_when():
    point = FinishPoint(LIMITS, 0, EMPTY)
    assert (point.came, point.seconds(5)) == (0, 0)
    for now, guests in enumerate([0, 2, 1, 2, 0, 1]):
        point.observe(now, EMPTY, guests)
    assert point.came == 4
    assert point.seconds(11) == 10
