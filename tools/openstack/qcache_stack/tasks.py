# SPDX-License-Identifier: Apache-2.0
"""Tasks that need each other, each run as soon as what it needs is done."""

from collections.abc import Callable
from concurrent import futures
import time

from qcache_stack import process
from qcache_stack.process import StackError

__all__ = ['Tasks']


class Tasks:
    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._todo: dict[str, tuple[Callable[[], object], set[str]]] = {}

    def add(self, name: str, what: Callable[[], object], *needs: str) -> None:
        self._todo[name] = (what, set(needs))

    def run(self) -> None:
        """Run all.

        :raises StackError: the first error, once what was running then has ended
        """
        unknown = {need for _, needs in self._todo.values() for need in needs} - set(self._todo)
        if unknown:
            raise ValueError(f'nobody does {unknown}')
        done: set[str] = set()
        running: dict[futures.Future[None], str] = {}
        errors: list[BaseException] = []
        process.given_up.clear()
        with futures.ThreadPoolExecutor(len(self._todo) or 1) as pool:
            try:
                while running or (self._todo and not errors):
                    for name in [n for n, (_, needs) in self._todo.items() if needs <= done]:
                        if not errors:
                            running[pool.submit(self._one, name, self._todo.pop(name)[0])] = name
                    if not running:
                        break
                    ended, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
                    for future in ended:
                        name = running.pop(future)
                        error = future.exception()
                        if error is None:
                            done.add(name)
                        else:
                            errors.append(error)
                            process.given_up.set()
            except BaseException:  # an interrupt
                process.given_up.set()
                raise
        if errors:
            raise errors[0]
        if self._todo:
            raise StackError(f'these tasks need each other: {", ".join(self._todo)}')

    def _one(self, name: str, what: Callable[[], object]) -> None:
        began = time.monotonic()
        what()
        self._say(f'{name} ({time.monotonic() - began:.1f} s)')
