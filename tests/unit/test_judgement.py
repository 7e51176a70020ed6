# SPDX-License-Identifier: Apache-2.0
"""What a boot may use: what raises suspicion, and which cache is to be examined then."""

import pytest

from nova_qcache import exception
from nova_qcache.judgement import Judge
from nova_qcache.judgement import Judgement
from nova_qcache.key import CacheKey
from nova_qcache.plan import PlanKind
from nova_qcache.source import BaseIdentity
from nova_qcache.states import State
from nova_qcache.touches import Touches
from tests.unit import builders
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY

HASH, OTHER_HASH = 'md5:1', 'md5:2'


@pytest.fixture
def source():
    return builders.MemorySource()


@pytest.fixture
def judge(store, generations, verifier, current):
    return Judge(store, generations, verifier, Touches())


def ready(store, **more):
    return builders.ready(store, base='memory://base', **more)


def test_nothing_is_suspicious(judge, store, source):
    ready(store)
    found = judge.judge(IMAGE, source)
    assert (found.plan.kind, found.doubtful) == (PlanKind.PLAY, None)


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
def test_glances_hash(judge, store, source, noted, said, kind):
    ready(store, image_hashes=noted)
    found = judge.judge(IMAGE, source, said)
    assert found.plan.kind is kind
    assert found.doubtful == (KEY if kind is PlanKind.PLAIN else None)
    assert store.load(KEY).state is State.READY


@pytest.mark.parametrize('now', [BaseIdentity(1, 7, 3), BaseIdentity(4096, 8, 3)])
def test_another_file(judge, store, source, verifier, now):
    ready(store)
    source.now = now
    found = judge.judge(IMAGE, source)
    assert (found.plan.kind, found.doubtful) == (PlanKind.PLAIN, KEY)
    assert f'`nova-qcache verify {IMAGE}` decides' in found.plan.reason
    verifier.sample_is_equal.assert_not_called()


def test_a_base_that_was_written(judge, store, source, current):
    ready(store)
    current.return_value = GENERATION.next()
    found = judge.judge(IMAGE, source)
    assert (found.plan.kind, found.doubtful) == (PlanKind.PLAIN, KEY)
    assert found.plan.generation == GENERATION.next()


@pytest.mark.parametrize('other', ['memory://other', 'qcow2', 'STALE', 'WARMING', None])
def test_what_cannot_be_carried_over(judge, store, source, current, other):
    if other == 'WARMING':
        builders.warm(store, base='memory://base')
    elif other == 'qcow2':
        ready(store, base_format='qcow2')
    elif other is not None:
        base = other if other.startswith('memory') else 'memory://base'
        record = builders.ready(store, base=base)
        if other == 'STALE':
            store.retire(record, 'x')
    current.return_value = GENERATION.next()
    found = judge.judge(IMAGE, source)
    assert (found.plan.kind, found.doubtful) == (PlanKind.RECORD, None)


def test_a_recording_of_the_new_generation_is_joined(judge, store, source, current):
    ready(store)
    new = CacheKey(IMAGE, GENERATION.next())
    builders.warm(store, key=new, base='memory://base')
    current.return_value = new.generation
    assert judge.judge(IMAGE, source).plan.kind is PlanKind.RECORD


def test_a_record_of_before_that_cannot_be_read(judge, store, source, current):
    ready(store)
    store.paths.record(KEY).write_bytes(b'x')
    current.return_value = GENERATION.next()
    with pytest.raises(exception.RecordBroken):
        judge.judge(IMAGE, source)


def test_a_judgement_doubts_nothing_by_itself(judge, source):
    found = judge.judge(IMAGE, source)
    assert found == Judgement(found.plan)


def test_a_cache_file_that_is_not_what_was_sealed(judge, store, source):
    ready(store)
    store.paths.sealed(KEY).unlink()
    found = judge.judge(IMAGE, source)
    assert (found.plan.kind, found.doubtful) == (PlanKind.PLAIN, KEY)
    assert isinstance(found.trouble, exception.CacheBroken)
    assert found.plan.reason == str(found.trouble)
