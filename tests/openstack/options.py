# SPDX-License-Identifier: Apache-2.0
"""Options of nova-compute that tests want, and as few restarts for them as possible."""

from collections.abc import Mapping
from typing import Any

import pytest
from qcache_stack.stack import Stack

from tests.openstack.compute import ComputeHost

__all__ = ['MARK', 'NovaOptions', 'marked', 'order']

MARK = 'options'
"""``pytest.mark.options(SECTION={NAME: VALUE}, ...)``: what nova-compute has from the beginning of
the test, fixtures included, beside the settings of the session."""

Sections = Mapping[str, Mapping[str, Any]]


def marked(item: pytest.Item) -> Sections:
    """Return the options of a test's marker; without one, there are none."""
    mark = item.get_closest_marker(MARK)
    return dict(mark.kwargs) if mark else {}


def order(items: list[pytest.Item]) -> None:
    """Put tests with the same options next to each other, and those without any first."""
    items.sort(key=lambda item: repr(marked(item)) if marked(item) else '')


class NovaOptions:
    """What nova-compute runs with."""

    def __init__(self, stack: Stack, present: Sections | None) -> None:
        """:param present: None if it is not known"""
        self._stack = stack
        self._host = ComputeHost(stack)
        self._present = present

    def ensure(self, **sections: Mapping[str, Any]) -> None:
        """Restart nova-compute with these options and no others, unless it has just them."""
        if sections == self._present:
            return
        self._present = None
        self._host.end_keepers()  # each goes by the options that it was started with
        # It is killed, since a decent end takes ten seconds.
        self._stack.restart('nova-compute', kill=True, config=sections)
        self._present = sections
