# SPDX-License-Identifier: Apache-2.0
"""The engine that is off is called as the one that is on."""

import inspect

import pytest

from nova_qcache.cache.pins import Pins
from nova_qcache.engine.boots import Boots
from nova_qcache.engine.disabled import DisabledEngine
from nova_qcache.engine.maintenance import Maintenance
from nova_qcache.engine.manager import Manager

CALLS = {
    Boots.announce_write: ('a base', 'raw'),
    Boots.count: ('a plan',),
    Boots.keep: (),
    Boots.release: ('a consumer',),
    Manager.allocated_beside: ('/',),
    Pins.pin: ('an image', 1.0, 'precached'),
    Maintenance.run: ({'an image'}, None),
}


@pytest.mark.parametrize(
    ('call', 'arguments'), CALLS.items(), ids=[call.__qualname__ for call in CALLS]
)
def test_each_call_does_nothing(call, arguments):
    disabled = DisabledEngine()
    inspect.signature(call).bind(disabled, *arguments)
    part = {
        Boots: disabled.boots,
        Manager: disabled,
        Pins: disabled.pins,
        Maintenance: disabled.maintenance,
    }
    owner = next(each for each in part if getattr(each, call.__name__, None) is call)
    assert not getattr(part[owner], call.__name__)(*arguments)


def test_all_of_it_is_tried():
    own = {name for name, _ in inspect.getmembers(DisabledEngine, inspect.isfunction)} - {
        '__init__'
    }
    assert own == {call.__name__ for call in CALLS}
