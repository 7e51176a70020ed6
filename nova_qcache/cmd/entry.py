# SPDX-License-Identifier: Apache-2.0
"""Entry points of the programs for people: Ctrl-C ends them without a traceback, also while they
still import modules."""

from collections.abc import Callable
import importlib
import signal
import sys

__all__ = ['nova_qcache', 'nova_qcache_status']


def nova_qcache() -> int:
    return _run('nova_qcache.cmd.shell', 130)


def nova_qcache_status() -> int:
    return _run('nova_qcache.cmd.status', 255)


def _run(module: str, interrupted: int) -> int:
    main = _main_of(module)
    try:
        return main()
    except KeyboardInterrupt:
        print('Interrupted.', file=sys.stderr)
        return interrupted


def _main_of(module: str) -> Callable[[], int]:
    # Nothing has begun that would have to be put in order, and an exception could come up in a
    # destructor, where Python prints it and goes on: the kernel ends the program instead.
    handler = signal.getsignal(signal.SIGINT)
    is_awaited = handler is signal.default_int_handler  # else the caller has it ignored
    if is_awaited:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    main: Callable[[], int] = importlib.import_module(module).main
    if is_awaited:
        signal.signal(signal.SIGINT, handler)
    return main
