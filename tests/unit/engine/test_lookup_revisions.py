# SPDX-License-Identifier: Apache-2.0
"""Caches that were recorded again on top of themselves: which one a boot uses, and what becomes of
the others."""

import pytest

from nova_qcache import exception
from nova_qcache.engine.lookup import Judge
from nova_qcache.model.key import CacheKey
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.source import BaseIdentity
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from tests.unit import builders
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY

SECOND = KEY.next_revision()
THIRD = SECOND.next_revision()


def ready(store, key):
    return builders.ready(store, key=key, base='memory://base')


@pytest.fixture
def judge(store, generations, current):
    judge = Judge(store, generations)
    return lambda: judge.judge(builders.boot(), builders.MemorySource()).plan


def test_the_newest_that_is_ready_is_played(judge, store):
    for key in (KEY, THIRD, SECOND):
        ready(store, key)
    assert (judge().kind, judge().revision) == (PlanKind.PLAY, 3)
    assert judge().cache == str(store.paths.sealed(THIRD))
    assert judge().key == THIRD


def test_one_that_is_being_recorded_is_not(judge, store):
    ready(store, KEY)
    builders.warm(store, key=SECOND, base='memory://base', is_audit=True)
    assert (judge().kind, judge().key) == (PlanKind.PLAY, KEY)


def test_the_first_may_be_gone_or_stale(judge, store):
    first = ready(store, KEY)
    ready(store, SECOND)
    store.retire(first, 'there is a new revision', Staleness.REVISION)
    assert judge().key == SECOND
    store.discard(KEY)
    assert (judge().kind, judge().key) == (PlanKind.PLAY, SECOND)


def test_when_the_newest_is_damaged_the_one_before_plays(judge, store):
    ready(store, KEY)
    store.retire(ready(store, SECOND), 'its digest is another', Staleness.DAMAGED)
    assert (judge().kind, judge().key) == (PlanKind.PLAY, KEY)


def test_a_broken_record_of_the_newest_is_no_reason_to_boot_plain(judge, store):
    ready(store, KEY)
    ready(store, SECOND)
    store.paths.record(SECOND).write_text('x')
    assert (judge().kind, judge().key) == (PlanKind.PLAY, KEY)
    store.paths.record(KEY).write_text('x')
    assert (judge().kind, judge().key) == (PlanKind.RECORD, THIRD)


def test_a_revision_of_another_generation_is_another_cache(judge, store):
    ready(store, CacheKey(IMAGE, GENERATION.next(), 2))
    assert judge().kind is PlanKind.PLAIN  # it may be the same content: that is found out


def test_a_boot_keeps_the_revision_that_it_was_told(boots, store, paths):
    ready(store, KEY)
    ready(store, SECOND)
    plan = boots.plan(builders.boot(consumer='instance'))
    assert plan.key == SECOND
    (lease,) = boots._leases.active()
    assert lease.key == SECOND


def test_nothing_is_recorded_beside_a_revision_that_plays(boots, store, launch_start):
    ready(store, SECOND)
    with pytest.raises(exception.WrongState, match='is READY'):
        boots.record(*builders.BOOT)
    assert store.load(SECOND).state is State.READY
    launch_start.assert_not_called()


def test_a_revision_that_was_proved_again_stays_what_it_is(manager, store, verifier, source):
    ready(store, KEY)
    ready(store, SECOND)
    source.now = BaseIdentity(1, 2, 3)
    assert manager.boots.plan(builders.boot()).kind is PlanKind.PLAIN
    (asked,) = manager.boots._requests.pending()
    assert asked == SECOND
