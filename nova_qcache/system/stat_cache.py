# SPDX-License-Identifier: Apache-2.0
"""Stat cache: contents of small files that are never written to, but replaced; only new files are
read again."""

from collections.abc import Callable, Set
import os
import pathlib
import time
from typing import Generic, TypeVar

__all__ = ['StatCache']

_SETTLED_NS = 1_000_000_000
"""File systems count time in ticks: a file that was made within the last one may be replaced by
another that looks the same."""

_T = TypeVar('_T')


class StatCache(Generic[_T]):
    def __init__(self, read: Callable[[pathlib.Path], _T]) -> None:
        """:param read: reads one file; what it raises is raised, and not remembered"""
        self._read = read
        self._known: dict[pathlib.Path, tuple[tuple[int, int, int], _T]] = {}
        """Inode, time and size of each file, and its content."""

    def keep(self, paths: Set[pathlib.Path]) -> None:
        """Forget all other files: they are gone."""
        for path in list(self._known):
            if path not in paths:
                self._known.pop(path, None)

    def read(self, path: pathlib.Path) -> _T:
        """Return the present content of a file.

        :raises OSError: if it cannot be looked at, FileNotFoundError if it is not there
        """
        try:
            facts = os.stat(path)
        except OSError:
            self._known.pop(path, None)
            raise
        file = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
        known = self._known.get(path)
        if known is not None and known[0] == file:
            return known[1]
        # Read after the look: what is replaced in between is at worst read once more.
        content = self._read(path)
        if 0 <= facts.st_mtime_ns < time.time_ns() - _SETTLED_NS:
            self._known[path] = (file, content)
        return content
