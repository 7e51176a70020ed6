# SPDX-License-Identifier: Apache-2.0
"""``state.json``: all that is known of a stack, for ``down`` and for tests.

It is written before what it names comes into being wherever that is possible, and at once
afterwards elsewhere: whatever ``up`` was doing when it was killed, ``down`` finds what there is.
"""

from collections.abc import Iterator
import contextlib
import fcntl
import json
import pathlib
import threading
import time
from typing import Any

from qcache_stack import ini
from qcache_stack.process import Process
from qcache_stack.process import StackError
from qcache_stack.settings import Layout

__all__ = ['VERSION', 'State']

VERSION = 1
_LOCK_SECONDS = 300


class State:
    """The file, read afresh for each look at it: several programs may change it in turn."""

    _threads = threading.RLock()

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def read(self) -> dict[str, Any]:
        """Return what the file says; nothing at all if there is none."""
        try:
            data: dict[str, Any] = json.loads(self.layout.state.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as e:
            raise StackError(f'{self.layout.state} is damaged: {e}') from e
        if data.get('version') != VERSION:
            raise StackError(f'{self.layout.state} was written by another version of this tool')
        return data

    def write(self, data: dict[str, Any]) -> None:
        text = json.dumps({'version': VERSION, **data}, indent=2) + '\n'
        ini.write(self.layout.state, text, mode=0o600)

    @contextlib.contextmanager
    def change(self) -> Iterator[dict[str, Any]]:
        """Yield what the file says, and write it back."""
        with self._threads:
            data = self.read()
            yield data
            self.write(data)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Let one program at a time start and stop services of this stack.

        :raises StackError: if another one takes too long
        """
        with self.layout.lock.open('a') as lock:
            deadline = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise StackError('another openstack.sh works on this stack') from None
                    time.sleep(0.2)
            yield


def to_process(entry: dict[str, Any]) -> Process | None:
    """Return the process of an entry that has ``pid`` and ``start_time``."""
    if entry.get('pid') is None:
        return None
    return Process(entry['pid'], entry['start_time'])


def logs_of(layout: Layout) -> list[pathlib.Path]:
    return sorted(layout.logs.glob('*.log'))
