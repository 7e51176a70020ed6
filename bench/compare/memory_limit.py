# SPDX-License-Identifier: Apache-2.0
"""Processes that may keep no more than so much in memory, pages of files included.

A control group of version 1 or 2, whichever is mounted.
"""

import contextlib
import os
import pathlib
import time
import uuid

from bench.rig import BenchError

__all__ = ['Group', 'group']

_ROOTS = (
    (pathlib.Path('/sys/fs/cgroup/memory'), 'memory.limit_in_bytes'),
    (pathlib.Path('/sys/fs/cgroup'), 'memory.max'),
)
_END_SECONDS = 20


class Group:
    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self.prefix = ['sh', '-c', f'echo $$ >{folder}/cgroup.procs && exec "$@"', 'sh']
        """Words before a command that is to be in it."""

    def remove(self) -> None:
        """Its processes must have ended; the kernel may take a moment to notice."""
        deadline = time.monotonic() + _END_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self._folder.rmdir()
                return
            time.sleep(0.1)
        raise BenchError(f'{self._folder} still has processes')


def group(limit: int) -> Group:
    """:param limit: in bytes
    :raises BenchError: if there is no such thing here
    """
    tried = []
    for root, name in _ROOTS:
        folder = root / f'qcache-bench-{uuid.uuid4().hex[:8]}'
        try:
            folder.mkdir()
        except OSError as e:
            tried.append(str(e))
            continue
        if os.access(folder / name, os.W_OK):
            (folder / name).write_text(str(limit))
            return Group(folder)
        folder.rmdir()
        tried.append(f'{root} has no {name}')
    raise BenchError(f'no control group can limit memory: {"; ".join(tried)}')
