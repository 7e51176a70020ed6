# SPDX-License-Identifier: Apache-2.0
"""Which boot of an image records."""

import dataclasses

import pytest

from nova_qcache.engine.admission import Admission
from nova_qcache.model.plan import Boot
from nova_qcache.model.plan import Cause
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.plan import Policy
from nova_qcache.stats.counter_store import CounterStore
from nova_qcache.stats.counters import Counters
from tests.unit.builders import BOOT
from tests.unit.builders import IMAGE

A_BOOT = Boot(*BOOT)
WISHED = dataclasses.replace(A_BOOT, policy=Policy.ALWAYS)


@pytest.fixture
def counter_store(paths):
    return CounterStore(paths, 1)


@pytest.mark.parametrize(
    ('since', 'before', 'policy', 'records'),
    [
        (1, 0, Policy.AUTO, True),
        (3, 0, Policy.AUTO, False),
        (3, 1, Policy.AUTO, False),
        (3, 2, Policy.AUTO, True),
        (3, 9, Policy.AUTO, True),
        (3, 0, Policy.ALWAYS, True),
    ],
)
def test_the_nth_boot_records(counter_store, since, before, policy, records):
    counter_store.add(IMAGE, Counters(boots=before))
    refusal = Admission(counter_store, since).refusal(dataclasses.replace(A_BOOT, policy=policy))
    assert (refusal is None) is records
    assert records or f'boot {before + 1} of the image' in str(refusal)


@pytest.mark.parametrize('policy', Policy)
def test_an_image_of_one_boot_is_never_recorded(counter_store, policy):
    boot = dataclasses.replace(A_BOOT, policy=policy, boots_once=True)
    assert 'for this boot alone' in str(Admission(counter_store, 1).refusal(boot))


# -- on the way of a boot


@pytest.fixture
def boots(conf, boots):
    boots._admission = Admission(boots._catalog.counter_store, 2)
    return boots


def test_a_boot_too_early_is_plain_and_counts(boots, launch_start, recorder, caplog):
    plan = boots.plan(A_BOOT)
    assert (plan.kind, plan.cause) == (PlanKind.PLAIN, Cause.NOT_YET)
    assert 'record_from_boot is 2' in plan.reason
    launch_start.assert_not_called()
    assert not caplog.records, 'it is what was asked for'
    assert boots.plan(A_BOOT).cause is Cause.NOT_YET, 'its domain has not started'
    boots.count(plan)
    assert boots.plan(A_BOOT).kind is PlanKind.RECORD


def test_who_comes_while_it_is_recorded_joins(boots, recorder, launch_start):
    boots.plan(WISHED)
    status = launch_start.return_value
    recorder.status.side_effect = recorder.expect_guest.side_effect = lambda: status
    assert boots.plan(A_BOOT).kind is PlanKind.RECORD
    assert launch_start.call_count == 1


def test_a_boot_counts_when_it_has_started(boots, catalog):
    boots_of = (A_BOOT, WISHED, dataclasses.replace(A_BOOT, image_id='no image'))
    plans = [boots.plan(boot) for boot in boots_of]
    assert catalog.counter_store.of(IMAGE) == Counters()
    for plan in plans:
        boots.count(plan)
    counted = catalog.counter_store.of(IMAGE)
    assert (counted.boots, counted.records, counted.plain) == (2, 1, {'not-yet': 1})
