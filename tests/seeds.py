# SPDX-License-Identifier: Apache-2.0
"""The seed of what tests do at random.

It is the same in every run, so that a run which fails does so again. A longer search sets
``QCACHE_SEED`` to another number; a test that fails then says which.
"""

import os

__all__ = ['VARIABLE', 'explore', 'seed']

VARIABLE = 'QCACHE_SEED'
_ALWAYS = 34


def explore() -> bool:
    """Return whether a longer search was asked for."""
    return VARIABLE in os.environ


def seed() -> int:
    """Return the number that everything random in the tests begins with.

    :raises ValueError: if what was asked for is no number
    """
    return int(os.environ.get(VARIABLE, _ALWAYS))
