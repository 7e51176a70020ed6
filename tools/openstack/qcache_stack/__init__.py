# SPDX-License-Identifier: Apache-2.0
"""A whole OpenStack on one machine, for tests and for curious people.

``tools/openstack.sh`` is the command; tests put ``tools/openstack`` on their path and use
:class:`Stack`. Only the standard library is imported here.

Modules, each of which imports only from those above it: ``process`` (identities, signals),
``settings``, ``ini``, ``state``, ``tasks``, ``rest``; ``service`` (one service), ``host``
(namespace), ``control_conf`` and ``compute_conf`` (files), ``services`` (all of them),
``databases``, ``catalog``, ``plugin``; ``stack`` (access), ``up``, ``down``, ``cli``.
"""

from qcache_stack.process import StackError
from qcache_stack.stack import Stack

__all__ = ['Stack', 'StackError']
