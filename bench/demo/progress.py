# SPDX-License-Identifier: Apache-2.0
"""A line of progress on stderr while something takes its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import sys
import threading
import time

__all__ = ['progress', 'say']

_LINE_S = 15  # between two lines where stderr is no terminal, in seconds


def say(text: str) -> None:
    """Print one line on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(label: str, detail: Callable[[], str] = str) -> Iterator[None]:
    """Show `label`, the seconds so far and what `detail` returns, until the block is left."""
    begun = time.monotonic()
    stop = threading.Event()
    terminal = sys.stderr.isatty()

    def line() -> str:
        return f'{time.monotonic() - begun:4.0f} s  {label} {detail()}'.rstrip()

    def show() -> None:
        waited = 0.0
        while not stop.wait(0.5):
            waited += 0.5
            if terminal:
                print(f'\r\033[K{line()}', end='', file=sys.stderr, flush=True)
            elif waited % _LINE_S == 0.5:
                say(line())

    thread = threading.Thread(target=show, name='progress', daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if terminal:
            print('\r\033[K', end='', file=sys.stderr, flush=True)
    say(f'{line()}: done')
