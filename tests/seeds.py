# SPDX-License-Identifier: Apache-2.0
"""The one seed of all random tests: fixed, unless the environment asks for a search."""

import os

_FIXED = 1


def seed() -> int:
    """The seed of the search, ``$QCACHE_SEED``, or the fixed one."""
    return int(os.environ['QCACHE_SEED']) if explore() else _FIXED


def explore() -> bool:
    """Whether ``$QCACHE_SEED`` is set: random tests then try other things, and more of them."""
    return bool(os.environ.get('QCACHE_SEED'))
