# SPDX-License-Identifier: Apache-2.0
"""Which boot of an image records."""

import dataclasses

import pytest

from nova_qcache.engine.admission import Admission
from nova_qcache.model.plan import Boot
from nova_qcache.model.plan import Cause
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.plan import Wish
from nova_qcache.stats.counter_store import Ledger
from nova_qcache.stats.counters import Counters
from tests.unit.builders import BOOT
from tests.unit.builders import IMAGE

A_BOOT = Boot(*BOOT)
WISHED = dataclasses.replace(A_BOOT, wish=Wish.ALWAYS)


@pytest.fixture
def ledger(paths):
    return Ledger(paths, 1)


@pytest.mark.parametrize(
    ('since', 'before', 'wish', 'records'),
    [
        (1, 0, Wish.AUTO, True),
        (3, 0, Wish.AUTO, False),
        (3, 1, Wish.AUTO, False),
        (3, 2, Wish.AUTO, True),
        (3, 9, Wish.AUTO, True),
        (3, 0, Wish.ALWAYS, True),
    ],
)
def test_the_nth_boot_records(ledger, since, before, wish, records):
    ledger.add(IMAGE, Counters(boots=before))
    refusal = Admission(ledger, since).refusal(dataclasses.replace(A_BOOT, wish=wish))
    assert (refusal is None) is records
    assert records or f'boot {before + 1} of the image' in str(refusal)


@pytest.mark.parametrize('wish', Wish)
def test_an_image_of_one_boot_is_never_recorded(ledger, wish):
    boot = dataclasses.replace(A_BOOT, wish=wish, boots_once=True)
    assert 'for this boot alone' in str(Admission(ledger, 1).refusal(boot))


# -- on the way of a boot


@pytest.fixture
def boots(conf, boots):
    boots._admission = Admission(boots._store.ledger, 2)
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


def test_a_boot_counts_when_it_has_started(boots, store):
    boots_of = (A_BOOT, WISHED, dataclasses.replace(A_BOOT, image_id='no image'))
    plans = [boots.plan(boot) for boot in boots_of]
    assert store.ledger.of(IMAGE) == Counters()
    for plan in plans:
        boots.count(plan)
    counted = store.ledger.of(IMAGE)
    assert (counted.boots, counted.records, counted.plain) == (2, 1, {'not-yet': 1})
