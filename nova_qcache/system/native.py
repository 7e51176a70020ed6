# SPDX-License-Identifier: Apache-2.0
"""Calls that the kernel or a library may hold for long, made so that others of this process go on.

Nova 31 and 32 run under eventlet by default: all of nova-compute is then one thread of the system,
and a call that does not know of eventlet stops all of it. Whoever makes one makes it here. In
every other process nothing is different.
"""

from collections.abc import Callable
import importlib
import sys
import threading
from typing import Any, TypeVar

__all__ = ['run', 'within']

_T = TypeVar('_T')


def run(function: Callable[..., _T], *args: Any) -> _T:
    """Return the result of a native call; under eventlet it runs in a thread of its own.

    What is called takes no lock: those of this process are eventlet's.
    """
    if not _is_green():
        return function(*args)
    answer: _T = importlib.import_module('eventlet.tpool').execute(function, *args)
    return answer


def within(seconds: float, function: Callable[[], _T]) -> _T:
    """Return what a function returns in time. One that does not is left behind.

    :param function: under eventlet, one that lets others go on, such as one that calls
        :func:`run`
    :raises TimeoutError: after ``seconds``
    """
    return (_green if _is_green() else _threaded)(seconds, function)


def _is_green() -> bool:
    # Not imported: where Nova has threads, it forbids that.
    patcher = sys.modules.get('eventlet.patcher')
    return patcher is not None and bool(patcher.is_monkey_patched('thread'))


def _green(seconds: float, function: Callable[[], _T]) -> _T:
    timeout = importlib.import_module('eventlet').Timeout
    with timeout(seconds) as mine:
        try:
            return function()
        except timeout as e:
            if e is not mine:
                raise
    raise TimeoutError(f'no answer within {seconds:g} s')


def _threaded(seconds: float, function: Callable[[], _T]) -> _T:
    answers: list[_T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            answers.append(function())
        except BaseException as e:  # it is the caller's
            errors.append(e)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    for error in errors:
        raise error
    if not answers:
        raise TimeoutError(f'no answer within {seconds:g} s')
    return answers[0]
