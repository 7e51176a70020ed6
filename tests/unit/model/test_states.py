# SPDX-License-Identifier: Apache-2.0
"""The life of a cache: which state may follow which."""

import itertools

import pytest

from nova_qcache import exception
from nova_qcache.model import states
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import Phase
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from tests.unit.builders import IMAGE

ALLOWED = {
    (State.COLD, State.RECORDING),
    (State.RECORDING, State.READY),
    (State.RECORDING, State.COLD),
    (State.READY, State.STALE),
    (State.READY, State.COLD),
    (State.STALE, State.COLD),
}
ALL = list(itertools.product(State, State))


@pytest.mark.parametrize(('state', 'wanted'), [pair for pair in ALL if pair in ALLOWED])
def test_allowed(state, wanted):
    states.require_transition(IMAGE, state, wanted)


@pytest.mark.parametrize(('state', 'wanted'), [pair for pair in ALL if pair not in ALLOWED])
def test_refused(state, wanted):
    with pytest.raises(exception.WrongState) as caught:
        states.require_transition(IMAGE, state, wanted)
    said = str(caught.value)
    assert IMAGE in said
    assert f'is {state.value} and cannot become {wanted.value}' in said
    assert f'`nova-qcache show {IMAGE}`' in said


@pytest.mark.parametrize(
    ('kind', 'words'),
    [
        (State, ['COLD', 'RECORDING', 'READY', 'STALE']),
        (Staleness, ['changed', 'written', 'damaged', 'revision', 'operator']),
        (FinishReason, ['quota', 'idle', 'last-guest', 'max-time', 'operator']),
        (Phase, ['starting', 'recording', 'sealing', 'serving', 'leaving']),
    ],
)
def test_words_on_disk_and_between_processes_stay(kind, words):
    """Another version wrote the records, counts these, or answers as a recorder."""
    assert [member.value for member in kind] == words
