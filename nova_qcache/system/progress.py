# SPDX-License-Identifier: Apache-2.0
"""Progress of long work, for whoever waits for it."""

from collections.abc import Callable
from typing import Protocol

__all__ = ['Done', 'Progress', 'ignore', 'silent']

Done = Callable[[float], object]
"""Called with how much was done since its last call."""


class Progress(Protocol):
    def __call__(self, what: str, total: float, unit: str = 'B') -> Done:
        """Begin to show one piece of work.

        :param what: a few words for a person
        :param total: how much there is to do
        :param unit: ``B`` for bytes, ``s`` for seconds of a deadline
        """


def ignore(done: float) -> None:
    """Tell nobody."""


def silent(what: str, total: float, unit: str = 'B') -> Done:
    """A Progress for callers with nobody to tell."""
    return ignore
