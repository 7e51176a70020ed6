# SPDX-License-Identifier: Apache-2.0
"""Waiting for something to become true, with a deadline and a name."""

from collections.abc import Callable
from typing import TypeVar

from tests.functional import waiting

__all__ = ['PATIENCE_SECONDS', 'until']

Found = TypeVar('Found')

PATIENCE_SECONDS = 900
"""No machine is so busy that anything here takes so long."""


def until(look: Callable[[], Found], what: str) -> Found:
    """Call ``look`` until it returns something true, and return that.

    :raises AssertionError: naming ``what``, if it does not in PATIENCE_SECONDS
    """
    # Nearly all looks are questions to an API, or a command that is started.
    return waiting.until(look, what, PATIENCE_SECONDS, 0.3)
