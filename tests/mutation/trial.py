# SPDX-License-Identifier: Apache-2.0
"""Run tests in a process of their own, in a copy of the tree.

What the tests import and is not of this project is imported once, here: a fork of this process has
it. A run then takes a few tenths of a second instead of seconds.
"""

from collections.abc import Collection, Generator
import contextlib
import dataclasses
import gc
import importlib
import json
import os
import pathlib
import resource
import signal
import sys
import threading
import time
import types
import warnings

import pytest

__all__ = ['Result', 'end_with_what_runs', 'preload', 'reached', 'run']

_PROJECT = ('nova_qcache', 'nova.virt.qcache', 'tests', 'conftest', '__main__')
_MODULES = 'mutation-modules.json'
_REACHED = 'mutation-reached.json'
_PASSED, _INTERRUPTED = 0, 2
_NO_TESTS = 5
_OUT_OF_TIME = 99


@dataclasses.dataclass(frozen=True)
class Result:
    passed: bool
    in_time: bool
    seconds: float
    """Processor time."""
    output: str


def preload(tree: pathlib.Path) -> None:
    """Import what the last run in a tree had imported."""
    for name in json.loads((tree / _MODULES).read_text()):
        if not any(name == own or name.startswith(f'{own}.') for own in _PROJECT):
            # Some modules only look like ones, and some warn of themselves.
            with contextlib.suppress(Exception), warnings.catch_warnings(action='ignore'):
                importlib.import_module(name)
    gc.freeze()


def reached(tree: pathlib.Path) -> dict[str, list[str]]:
    """Return the tests that entered each function of the module when it was last watched."""
    found: dict[str, list[str]] = json.loads((tree / _REACHED).read_text())
    return found


def run(
    tree: pathlib.Path,
    tests: list[str],
    seconds: int,
    wait: float,
    *,
    watched: pathlib.Path | None = None,
    only: Collection[str] | None = None,
) -> Result:
    """Run tests until one fails.

    :param watched: the file of the module whose functions the tests enter
    :param only: the tests that are to run, of those; None: all of them
    :param seconds: of the processor: an endless loop ends by that, however busy the machine is
    :param wait: for how long a run may wait for what does not come
    """
    output = tree / 'mutation-output'
    began = _spent()
    pid = os.fork()
    if not pid:
        try:
            _become(tree, output, seconds)
            watch = _Watch(watched)
            plugins = [watch] if only is None else [_Selection(only)]
            code = int(pytest.main(['-x', '-q', *_OPTIONS, *tests], plugins))
            if watched is not None:
                (tree / _REACHED).write_text(json.dumps(watch.reached))
            (tree / _MODULES).write_text(json.dumps([*sys.modules]))
        except BaseException:
            code = _INTERRUPTED
        os._exit(code)
    _running.append(pid)
    try:
        code = _wait(pid, wait)
    finally:
        _kill_what_runs()
    text = output.read_text(errors='replace')
    if code == _NO_TESTS:
        raise RuntimeError(f'pytest finds no test in {tests}: {text}')
    in_time = code not in (_OUT_OF_TIME, -signal.SIGXCPU)
    return Result(code == _PASSED, in_time, _spent() - began, text)


class _Selection:
    """A plugin of pytest that leaves out all other tests."""

    def __init__(self, only: Collection[str]) -> None:
        self._only = only

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._only]


class _Watch:
    """A plugin of pytest that notes which functions of a file each test enters."""

    def __init__(self, file: pathlib.Path | None) -> None:
        self._file = str(file)
        self.reached: dict[str, list[str]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        names = set()

        def note(frame: types.FrameType, event: str, _: object) -> None:
            if event == 'call' and frame.f_code.co_filename == self._file:
                names.add(frame.f_code.co_qualname.replace('.<locals>', ''))

        sys.setprofile(note)
        threading.setprofile(note)
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            for name in names:
                self.reached.setdefault(name, []).append(item.nodeid)


_OPTIONS = (
    *('-p', 'no:cacheprovider'),
    *('-p', 'no:unraisableexception'),  # it collects garbage for long
    *('-p', '_hypothesis_pytestplugin'),
    *('-p', 'pytest_timeout'),
    '--disable-warnings',
    '--hypothesis-seed=0',
    '--timeout=120',
)


def _become(tree: pathlib.Path, output: pathlib.Path, seconds: int) -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    fd = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ['PYTHONPATH'] = str(tree)
    os.environ['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'
    for name in [*sys.modules]:
        if name.partition('.')[0] in ('nova_qcache', 'tests'):
            del sys.modules[name]
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))


def _wait(pid: int, wait: float) -> int:
    """Return the exit code of a run."""
    until = time.monotonic() + wait
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    _kill_what_runs()
    os.waitpid(pid, 0)
    return _OUT_OF_TIME


_running: list[int] = []
"""The session that runs tests, if there is one now."""


def _kill_what_runs() -> None:
    for pid in _running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    _running.clear()


def end_with_what_runs() -> None:
    """Let SIGTERM end this process at once, and the tests that it runs."""

    def end(*_: object) -> None:
        # Not by an exception: where none can be raised it would be lost.
        _kill_what_runs()
        os._exit(143)

    signal.signal(signal.SIGTERM, end)


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
