# SPDX-License-Identifier: Apache-2.0
"""What Nova says of a base: its writes end the caches of before."""

import logging
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.bases.generation import Generations
from nova_qcache.cache import plugins
from nova_qcache.engine.boots import Boots
from nova_qcache.engine.host import Host
from nova_qcache.model.key import CacheKey
from nova_qcache.model.plan import Boot
from nova_qcache.model.plan import PlanKind
from tests.unit import builders
from tests.unit.builders import BOOT
from tests.unit.builders import IMAGE

BASE = BOOT[1:]
NOWHERE = exception.InvalidBase(base='x', reason='y', remedy='z')


@pytest.fixture(autouse=True)
def all_levels(caplog):
    caplog.set_level(logging.INFO, logger='nova_qcache.engine.boots')


@pytest.fixture
def on_disk(conf, verifier, launch_start, recorder):
    """What is asked of bases that are real files."""
    return Boots(Host(conf))


@pytest.fixture
def boot(base):
    return (IMAGE, str(base), 'raw')


def recorded(boots, catalog, boot):
    """Make a READY cache of a base that is a real file."""
    generation = boots.plan(Boot(*boot)).generation
    assert generation is not None
    identity = plugins.source(*boot[1:]).identity()
    key = CacheKey(IMAGE, generation)
    builders.ready(catalog, key=key, base=boot[1], base_identity=identity)
    assert boots.plan(Boot(*boot)).kind is PlanKind.PLAY
    return generation


def test_no_cache_of_before_a_write_is_used(on_disk, catalog, boot):
    before = recorded(on_disk, catalog, boot)
    on_disk.announce_write(*boot[1:])
    plan = on_disk.plan(Boot(*boot))
    assert (plan.kind, plan.generation) == (PlanKind.PLAIN, before.next())
    assert 'the base was written since' in plan.reason


def test_every_write_raises_the_generation(on_disk, boot):
    before = on_disk.plan(Boot(*boot)).generation
    for _ in range(3):
        on_disk.announce_write(*boot[1:])
    assert on_disk.plan(Boot(*boot)).generation == before.next().next().next()


def test_a_base_that_is_not_there_yet(on_disk, base, boot):
    base.unlink()
    on_disk.announce_write(*boot[1:])
    base.write_bytes(b'new' * 512)
    assert on_disk.plan(Boot(*boot)).generation.n == 1


KEPT_NOWHERE = {
    'folder': exception.FolderUnfit(path='/base', reason='x', remedy='y'),
    'lock': exception.LockTimeout(name='x', path='y', seconds=1),
    'disk': OSError(5, 'Input/output error'),
    'base': NOWHERE,
}


@pytest.mark.parametrize('error', KEPT_NOWHERE.values(), ids=KEPT_NOWHERE)
def test_a_generation_that_cannot_be_kept_stops_no_write(boots, source, caplog, error):
    with mock.patch.object(
        Generations, 'raise_before_write', autospec=True, side_effect=error
    ) as asked:
        boots.announce_write(*BASE)
        boots.announce_write(*BASE)
    asked.assert_called_with(boots._generations, source)
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING, logging.INFO]
    for entry in caplog.records:
        assert 'memory://base' in entry.getMessage()
        assert str(error) in entry.getMessage()


def test_a_fault_stops_no_write(boots, find_source, caplog):
    find_source.side_effect = ValueError('a plugin')
    boots.announce_write(*BASE)
    assert [entry.levelno for entry in caplog.records] == [logging.ERROR]


def test_a_reference_that_is_none_stops_no_write(conf, verifier):
    for reference in ('', 'relative', '/with\0NUL', 'x://', '/\udcff'):
        Boots(Host(conf)).announce_write(reference, 'raw')
