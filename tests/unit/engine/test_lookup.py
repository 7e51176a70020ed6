# SPDX-License-Identifier: Apache-2.0
"""Lookup of a cache for a boot, and which cache needs a revalidation."""

import dataclasses
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.bases.generation import Generations
from nova_qcache.engine.lookup import Lookup
from nova_qcache.engine.lookup import LookupResult
from nova_qcache.model.key import CacheKey
from nova_qcache.model.plan import Cause
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.source import BaseIdentity
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from nova_qcache.system.paths import Paths
from tests.unit import builders
from tests.unit.builders import GENERATION
from tests.unit.builders import IDENTITY
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE

HASH, OTHER_HASH = 'md5:1', 'md5:2'


@pytest.fixture
def source():
    return builders.MemorySource()


@pytest.fixture
def lookup(catalog, generations, current):
    return Lookup(catalog, generations)


def ready(catalog, **more):
    return builders.ready(catalog, base='memory://base', **more)


def test_nothing_is_suspicious(lookup, catalog, source):
    ready(catalog)
    found = lookup.find(builders.boot(), source)
    assert (found.plan.kind, found.to_revalidate) == (PlanKind.PLAY, None)
    assert found.other_times is None


@pytest.mark.parametrize(
    ('noted', 'said', 'kind'),
    [
        ((), '', PlanKind.PLAY),
        ((), HASH, PlanKind.PLAY),  # nobody knew it when the cache was made
        ((HASH,), '', PlanKind.PLAY),  # a reboot knows none
        ((HASH,), HASH, PlanKind.PLAY),
        ((HASH, OTHER_HASH), HASH, PlanKind.PLAY),  # an older server, after a proof
        ((HASH,), OTHER_HASH, PlanKind.PLAIN),
    ],
)
def test_glances_hash(lookup, catalog, source, noted, said, kind):
    ready(catalog, image_hashes=noted)
    found = lookup.find(builders.boot(image_hash=said), source)
    assert found.plan.kind is kind
    assert found.to_revalidate == (KEY if kind is PlanKind.PLAIN else None)
    assert catalog.load(KEY).state is State.READY


@pytest.mark.parametrize('now', [BaseIdentity(1, 7, 3), BaseIdentity(4096, 8, 3)])
def test_another_file(lookup, catalog, source, now):
    ready(catalog)
    source.now = now
    found = lookup.find(builders.boot(), source)
    assert (found.plan.kind, found.to_revalidate) == (PlanKind.PLAIN, KEY)
    assert found.plan.cause is Cause.DOUBT
    assert f'revalidate it with `nova-qcache verify {IMAGE}`' in found.plan.reason
    assert found.other_times is None


def test_the_generation_is_that_of_the_base(lookup, source, current):
    plan = lookup.find(builders.boot(), source).plan
    assert plan.generation == GENERATION
    assert current.call_args.args[-1] is source


@pytest.mark.parametrize('revision', [1, 2])
def test_the_cache_of_another_image_is_neither_played_nor_revalidated(
    lookup, catalog, source, revision
):
    ready(catalog, key=CacheKey(OTHER_IMAGE, GENERATION, revision))
    found = lookup.find(builders.boot(), source)
    assert (found.plan.kind, found.plan.image_id) == (PlanKind.RECORD, IMAGE)
    assert found.to_revalidate is None


def test_a_recording_is_joined_at_the_socket_of_its_recorder(lookup, catalog, source):
    socket = str(catalog.paths.nbd_socket(KEY))
    assert lookup.find(builders.boot(), source).plan.socket == socket, (
        'and so is one that nobody began'
    )
    builders.warm(catalog, base='memory://base')
    assert lookup.find(builders.boot(), source).plan.socket == socket


def in_the_way(catalog, what, key=KEY):
    """Leave something of the generation of now that no boot can use."""
    if what == 'broken':
        ready(catalog, key=key)
        catalog.paths.record(key).write_bytes(b'x')
    elif what == 'of a newer version':
        ready(catalog, key=key)
        catalog.paths.record(key).write_bytes(b'{"version": 1000}')
    elif what == 'of another base':
        builders.ready(catalog, key=key, base='memory://other')
    elif what == 'of another format':
        ready(catalog, key=key, base_format='qcow2')
    else:
        catalog.retire(ready(catalog, key=key), 'its digest is another', Staleness(what))


IN_THE_WAY = [
    *('damaged', 'operator', 'revision', 'broken'),
    *('of a newer version', 'of another base', 'of another format'),
]


@pytest.mark.parametrize('what', IN_THE_WAY)
def test_what_no_boot_can_use_is_in_nobodys_way(lookup, catalog, source, what):
    in_the_way(catalog, what)
    plan = lookup.find(builders.boot(), source).plan
    second = KEY.next_revision()
    assert (plan.kind, plan.key, plan.cause) == (PlanKind.RECORD, second, None)
    assert plan.socket == str(catalog.paths.nbd_socket(second))
    assert lookup.recording(IMAGE, source) == second
    ready(catalog, key=second)
    plan = lookup.find(builders.boot(), source).plan
    assert (plan.kind, plan.key) == (PlanKind.PLAY, second)


@pytest.mark.parametrize('what', IN_THE_WAY)
def test_a_recording_beside_what_no_boot_can_use_is_joined(lookup, catalog, source, what):
    in_the_way(catalog, what)
    second = KEY.next_revision()
    builders.warm(catalog, key=second, base='memory://base')
    plan = lookup.find(builders.boot(), source).plan
    assert (plan.kind, plan.key) == (PlanKind.RECORD, second)
    assert lookup.recording(IMAGE, source) == second


@pytest.mark.parametrize('what', IN_THE_WAY)
def test_a_newer_one_that_no_boot_can_use_hides_no_older_one(lookup, catalog, source, what):
    ready(catalog)
    in_the_way(catalog, what, KEY.next_revision())
    plan = lookup.find(builders.boot(), source).plan
    assert (plan.kind, plan.key) == (PlanKind.PLAY, KEY)


def test_a_newer_one_that_is_gone_leaves_a_stale_one_that_plays_no_part(lookup, catalog, source):
    """Guests still read the first revision when the second one is evicted."""
    first, second = ready(catalog), KEY.next_revision()
    ready(catalog, key=second)
    catalog.retire(first, 'it was recorded again', Staleness.REVISION)
    catalog.discard(second)
    plan = lookup.find(builders.boot(), source).plan
    assert (plan.kind, plan.key) == (PlanKind.RECORD, second)


@pytest.mark.parametrize('path_of', [Paths.nbd_socket, Paths.control_socket])
def test_the_name_of_a_recorder_that_serves_on_is_passed_over(lookup, catalog, source, path_of):
    """Its recording was dropped, and its guests read on."""
    with builders.listening(path_of(catalog.paths, KEY)):
        plan = lookup.find(builders.boot(), source).plan
    assert (plan.kind, plan.key) == (PlanKind.RECORD, KEY.next_revision())
    plan = lookup.find(builders.boot(), source).plan
    assert plan.key == KEY, 'what a dead one has left is in nobodys way'


def test_an_audit_is_no_recording_to_join(lookup, catalog, source):
    second, third = KEY.next_revision(), KEY.next_revision().next_revision()
    catalog.retire(ready(catalog), 'damaged', Staleness.DAMAGED)
    builders.warm(catalog, key=second, base='memory://base', is_audit=True)
    plan = lookup.find(builders.boot(), source).plan
    assert (plan.kind, plan.key) == (PlanKind.RECORD, third)


def test_there_is_nothing_to_record_where_a_cache_plays(lookup, catalog, source):
    ready(catalog)
    with pytest.raises(exception.WrongState, match=f'nova-qcache remove {IMAGE}'):
        lookup.recording(IMAGE, source)


def test_a_record_that_cannot_be_read_is_said_once(lookup, catalog, source, caplog):
    in_the_way(catalog, 'broken')
    for _ in range(2):
        lookup.find(builders.boot(), source)
    (line,) = [each for each in caplog.records if each.levelname == 'WARNING']
    assert f'nova-qcache remove {IMAGE}' in line.getMessage()


def test_other_times_stop_no_boot(lookup, catalog, source):
    """Nova sets them at each boot, on all hosts that share the base."""
    record = ready(catalog)
    source.now = dataclasses.replace(IDENTITY, mtime_ns=1)
    found = lookup.find(builders.boot(), source)
    assert (found.plan.kind, found.to_revalidate, found.other_times) == (
        PlanKind.PLAY,
        None,
        record,
    )


def test_who_only_looks_gives_a_base_no_generation(lookup, catalog, source, current):
    with mock.patch.object(Generations, 'known', autospec=True, return_value=None):
        plan = lookup.preview(builders.boot(), source).plan
        ready(catalog)
        found = lookup.preview(builders.boot(), source)
    assert (plan.kind, plan.generation, plan.socket) == (PlanKind.RECORD, None, None)
    assert (found.plan.cause, found.to_revalidate) == (Cause.DOUBT, KEY)
    current.assert_not_called()


def test_other_times_do_not_excuse_a_broken_cache(lookup, catalog, source):
    ready(catalog)
    catalog.paths.sealed(KEY).write_bytes(b'')
    source.now = dataclasses.replace(IDENTITY, mtime_ns=1)
    found = lookup.find(builders.boot(), source)
    assert (found.plan.cause, found.other_times) == (Cause.BROKEN, None)


def test_a_base_that_was_written(lookup, catalog, source, current):
    ready(catalog)
    current.return_value = GENERATION.next()
    found = lookup.find(builders.boot(), source)
    assert (found.plan.kind, found.to_revalidate) == (PlanKind.PLAIN, KEY)
    assert found.plan.generation == GENERATION.next()


@pytest.mark.parametrize('other', ['memory://other', 'qcow2', 'STALE', 'RECORDING', None])
def test_what_cannot_be_retagged(lookup, catalog, source, current, other):
    if other == 'RECORDING':
        builders.warm(catalog, base='memory://base')
    elif other == 'qcow2':
        ready(catalog, base_format='qcow2')
    elif other is not None:
        base = other if other.startswith('memory') else 'memory://base'
        record = builders.ready(catalog, base=base)
        if other == 'STALE':
            catalog.retire(record, 'x')
    current.return_value = GENERATION.next()
    found = lookup.find(builders.boot(), source)
    assert (found.plan.kind, found.to_revalidate) == (PlanKind.RECORD, None)


def test_a_cache_that_is_sealed_while_it_is_looked_for_is_in_no_doubt(lookup, catalog, source):
    with mock.patch.object(catalog, 'load', autospec=True, side_effect=[None, ready(catalog)]):
        found = lookup.find(builders.boot(), source)
    assert (found.plan.kind, found.to_revalidate) == (PlanKind.RECORD, None)


def test_a_recording_of_the_new_generation_is_joined(lookup, catalog, source, current):
    ready(catalog)
    new = CacheKey(IMAGE, GENERATION.next())
    builders.warm(catalog, key=new, base='memory://base')
    current.return_value = new.generation
    assert lookup.find(builders.boot(), source).plan.kind is PlanKind.RECORD


def test_a_record_of_before_that_cannot_be_read(lookup, catalog, source, current):
    in_the_way(catalog, 'broken')
    current.return_value = GENERATION.next()
    assert lookup.find(builders.boot(), source).plan.kind is PlanKind.RECORD


def test_a_lookup_doubts_nothing_by_itself(lookup, source):
    found = lookup.find(builders.boot(), source)
    assert found == LookupResult(found.plan)


def test_a_cache_file_that_is_not_what_was_sealed(lookup, catalog, source):
    ready(catalog)
    catalog.paths.sealed(KEY).unlink()
    found = lookup.find(builders.boot(), source)
    assert (found.plan.kind, found.to_revalidate) == (PlanKind.PLAIN, KEY)
    assert found.plan.cause is Cause.BROKEN
    assert isinstance(found.error, exception.CacheBroken)
    assert found.plan.reason == str(found.error)
