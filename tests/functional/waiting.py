# SPDX-License-Identifier: Apache-2.0
"""Waiting for something to become true, with a deadline and a name."""

from collections.abc import Callable
import time
from typing import TypeVar

__all__ = ['PATIENCE', 'until']

PATIENCE = 300.0
"""Seconds after which whatever was waited for does not come any more. It is far longer than any of
it takes on a busy machine, and a test that passes never waits for so long."""

Found = TypeVar('Found')


def until(
    look: Callable[[], Found], what: str, seconds: float = PATIENCE, pause: float = 0.05
) -> Found:
    """Call ``look`` until it returns something true, and return that.

    :raises AssertionError: naming ``what``, if it does not within ``seconds``
    """
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f'{what}: not within {seconds} s'
        time.sleep(pause)
