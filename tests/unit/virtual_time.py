# SPDX-License-Identifier: Apache-2.0
"""An event loop whose time passes only when there is nothing else to do.

Seconds of waiting take no time, and a machine that is slow is never late: what a coroutine does
between two waits happens at one moment.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
import selectors
import time
from typing import Any, TypeVar, TypeVarTuple
from unittest import mock

__all__ = ['run']

_MOST_TURNS = 100_000
"""Of a loop; a test takes some thousand. What waits for what does not come would turn for ever,
in no time, and take all memory."""

_T = TypeVar('_T')
_Ts = TypeVarTuple('_Ts')


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run it to its end as :func:`asyncio.run` does; :func:`time.monotonic` follows the loop.

    Its time stands still while a thread of the loop works; other processes it does not know.

    :raises AssertionError: if it does not end
    """
    selector = _Selector(time.monotonic())
    with (
        mock.patch.object(time, 'monotonic', autospec=True, side_effect=lambda: selector.now),
        asyncio.Runner(loop_factory=lambda: _Loop(selector)) as runner,
    ):
        return runner.run(coroutine)


class _Selector(selectors.DefaultSelector):
    def __init__(self, now: float) -> None:
        super().__init__()
        self.now = now
        self.threads = 0
        """So many may still have something to say."""
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._turns += 1
        if self._turns > _MOST_TURNS:
            self._turns = 0  # for what is cancelled now, and has something to end
            raise AssertionError(f'no end after {_MOST_TURNS} turns of the loop')
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None or self.threads:
            return super().select()
        self.now += timeout
        return []


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, selector: _Selector) -> None:
        self._threads_of = selector
        super().__init__(selector)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        future = super().run_in_executor(executor, func, *args)
        self._threads_of.threads += 1
        future.add_done_callback(self._done)
        return future

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._threads_of.threads -= 1

    async def shutdown_default_executor(self, *args: Any) -> None:  # it has a deadline since 3.12
        self._threads_of.threads += 1
        await super().shutdown_default_executor(*args)
