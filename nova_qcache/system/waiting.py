# SPDX-License-Identifier: Apache-2.0
"""Waiting with a deadline, by asking again and again."""

from collections.abc import Callable
import time
from typing import TypeVar

from nova_qcache import exception
from nova_qcache.system.progress import Progress
from nova_qcache.system.progress import silent

__all__ = ['until']

_T = TypeVar('_T')


def until(
    ask: Callable[[], _T | None],
    *,
    what: str,
    seconds: float,
    remedy: str,
    poll_seconds: float,
    progress: Progress = silent,
) -> _T:
    """Return the first answer that is not None.

    :param what: what takes that long, for the error and for who watches
    :param progress: shown how much of the deadline has passed
    :raises DeadlinePassed: if there is none within ``seconds``
    """
    begin = seen = time.monotonic()
    done = progress(what, seconds, 's')
    while True:
        answer = ask()
        if answer is not None:
            return answer
        now = time.monotonic()
        done(now - seen)
        seen = now
        if now - begin >= seconds:
            raise exception.DeadlinePassed(what=what, seconds=seconds, remedy=remedy)
        time.sleep(poll_seconds)
