# SPDX-License-Identifier: Apache-2.0
"""Changes of a base's times that are explained: Nova sets the mtime of a base at each boot.

What a base looked like right before and right after Nova's own touch is remembered, so that the
next plan need not compare content because of it. Only in memory: after a restart of nova-compute
the first play of an image compares a sample again. A write to the base while Nova makes an overlay
on it, which is when it touches it, is not noticed by times.
"""

import collections
from collections.abc import Iterator
import contextlib
import threading

from nova_qcache.source import BaseIdentity
from nova_qcache.source import Source

__all__ = ['Touches']

_LONGEST_CHAIN = 64


class Touches:
    def __init__(self) -> None:
        self._chains: dict[str, collections.deque[BaseIdentity]] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def touching(self, source: Source) -> Iterator[None]:
        """Around a touch: if the base looks as it did after the last one, the chain goes on."""
        before = _identity(source)
        yield
        after = _identity(source)
        with self._lock:
            if before is None or after is None or before.suspicion(after).is_about_content:
                self._chains.pop(source.reference, None)
                return
            chain = self._chains.get(source.reference)
            if chain is None or chain[-1] != before:
                chain = collections.deque([before], _LONGEST_CHAIN)
                self._chains[source.reference] = chain
            chain.append(after)

    def explain(self, source: Source, then: BaseIdentity, now: BaseIdentity) -> bool:
        """Return whether nothing but touches lies between two looks of a base."""
        with self._lock:
            chain = self._chains.get(source.reference)
            if chain is None or chain[-1] != now or then not in chain:
                return False
            while chain[0] != then:  # older looks are of no use to anybody
                chain.popleft()
            return True


def _identity(source: Source) -> BaseIdentity | None:
    try:
        return source.identity()
    except Exception:  # a plugin's, too: Nova's touch goes on
        return None
