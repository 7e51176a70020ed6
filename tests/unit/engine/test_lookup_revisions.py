# SPDX-License-Identifier: Apache-2.0
"""Caches that were recorded again on top of themselves: which one a boot uses, and what becomes of
the others."""

import pytest

from nova_qcache import exception
from nova_qcache.engine.lookup import Lookup
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


def ready(catalog, key):
    return builders.ready(catalog, key=key, base='memory://base')


@pytest.fixture
def lookup(catalog, generations, current):
    lookup = Lookup(catalog, generations)
    return lambda: lookup.find(builders.boot(), builders.MemorySource()).plan


def test_the_newest_that_is_ready_is_played(lookup, catalog):
    for key in (KEY, THIRD, SECOND):
        ready(catalog, key)
    assert (lookup().kind, lookup().revision) == (PlanKind.PLAY, 3)
    assert lookup().cache == str(catalog.paths.sealed(THIRD))
    assert lookup().key == THIRD


def test_one_that_is_being_recorded_is_not(lookup, catalog):
    ready(catalog, KEY)
    builders.warm(catalog, key=SECOND, base='memory://base', is_audit=True)
    assert (lookup().kind, lookup().key) == (PlanKind.PLAY, KEY)


def test_the_first_may_be_gone_or_stale(lookup, catalog):
    first = ready(catalog, KEY)
    ready(catalog, SECOND)
    catalog.retire(first, 'there is a new revision', Staleness.REVISION)
    assert lookup().key == SECOND
    catalog.discard(KEY)
    assert (lookup().kind, lookup().key) == (PlanKind.PLAY, SECOND)


def test_a_broken_record_of_the_newest_is_no_reason_to_boot_plain(lookup, catalog):
    ready(catalog, KEY)
    ready(catalog, SECOND)
    catalog.paths.record(SECOND).write_text('x')
    assert (lookup().kind, lookup().key) == (PlanKind.PLAY, KEY)
    catalog.paths.record(KEY).write_text('x')
    assert (lookup().kind, lookup().key) == (PlanKind.RECORD, THIRD)


def test_a_revision_of_another_generation_is_another_cache(lookup, catalog):
    ready(catalog, CacheKey(IMAGE, GENERATION.next(), 2))
    assert lookup().kind is PlanKind.PLAIN  # it may be the same content: that is found out


def test_a_boot_keeps_the_revision_that_it_was_told(boots, catalog, paths):
    ready(catalog, KEY)
    ready(catalog, SECOND)
    plan = boots.plan(builders.boot(consumer='instance'))
    assert plan.key == SECOND
    (lease,) = boots._leases.active()
    assert lease.key == SECOND


def test_nothing_is_recorded_beside_a_revision_that_plays(boots, catalog, launch_start):
    ready(catalog, SECOND)
    with pytest.raises(exception.WrongState, match='is READY'):
        boots.record(*builders.BOOT)
    assert catalog.load(SECOND).state is State.READY
    launch_start.assert_not_called()


def test_a_revision_that_was_proved_again_stays_what_it_is(manager, catalog, verifier, source):
    ready(catalog, KEY)
    ready(catalog, SECOND)
    source.now = BaseIdentity(1, 2, 3)
    assert manager.boots.plan(builders.boot()).kind is PlanKind.PLAIN
    (asked,) = manager.boots._requests.pending()
    assert asked == SECOND
