# SPDX-License-Identifier: Apache-2.0
"""A boot that goes through an audit in place of playing, and what may come in between."""

import dataclasses
from unittest import mock

import pytest

from nova_qcache.engine.audits import Audits
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.states import Phase
from tests.unit import builders
from tests.unit.builders import KEY
from tests.unit.builders import MIB

AUDIT = KEY.next_revision()


@pytest.fixture
def audits(boots):
    boots._audits = mock.create_autospec(Audits, instance=True)
    boots._audits.plan.side_effect = lambda play, quota: dataclasses.replace(
        play, kind=PlanKind.RECORD, revision=2, cache=None, socket='/x', is_audit=True
    )
    return boots._audits


@pytest.fixture(autouse=True)
def ready(catalog):
    return builders.ready(catalog, base='memory://base')


def leased(boots):
    return [lease.key for lease in boots._leases.active()]


def test_an_audit_has_a_lease_and_is_counted(boots, audits, catalog, recorder):
    recorder.status.side_effect = builders.status
    plan = boots.plan(builders.boot(consumer='instance'))
    assert (plan.kind, plan.key, plan.is_audit) == (PlanKind.RECORD, AUDIT, True)
    ((play, quota), _) = audits.plan.call_args
    assert (play.kind, play.key, quota) == (PlanKind.PLAY, KEY, 16 * MIB)
    assert leased(boots) == [AUDIT]
    boots.count(plan)
    counted = catalog.counter_store.of(KEY.image_id)
    assert (counted.boots, counted.audits, counted.records) == (1, 1, 0)


@pytest.mark.parametrize('phase', [Phase.SERVING, Phase.LEAVING, None])
def test_an_audit_that_was_ended_before_the_lease_is_no_reason_not_to_play(
    boots, audits, catalog, recorder, phase
):
    if phase is not None:  # or nobody answers
        recorder.status.side_effect = lambda: builders.status(phase)
    plan = boots.plan(builders.boot(consumer='instance'))
    assert (plan.kind, plan.key) == (PlanKind.PLAY, KEY)
    assert leased(boots) == [KEY]
    boots.count(plan)
    assert catalog.counter_store.of(KEY.image_id).plays == 1


def test_guests_that_cannot_use_a_recorder_are_not_audited(boots, audits):
    plan = boots.plan(builders.boot(no_recording='AppArmor keeps guests from the socket'))
    assert plan.kind is PlanKind.PLAY
    audits.plan.assert_not_called()


def test_no_audit_is_due(boots, audits):
    audits.plan.side_effect = None
    audits.plan.return_value = None
    assert boots.plan(builders.boot()).kind is PlanKind.PLAY
