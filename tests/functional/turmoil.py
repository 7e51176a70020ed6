# SPDX-License-Identifier: Apache-2.0
"""One of the processes of test_concurrency.py: does what callers of the product do, at random.

Usage: turmoil.py CONFIG_FILE TASK, where TASK is JSON (see :class:`Task`); run by the Python and
as the user of the product, with its modules alone. It writes a journal, one JSON object a line,
before and after each operation, and ends with code 1 and a traceback at the first thing that must
not be.
"""

from collections.abc import Callable
import dataclasses
import faulthandler
import hashlib
import json
import logging
import os
import pathlib
import random
import signal
import stat
import subprocess
import sys
import time
from typing import Any

from oslo_config import cfg

from nova_qcache import conf as qcache_conf
from nova_qcache import exception
from nova_qcache.cache import sealed_file
from nova_qcache.cache.catalog import Catalog
from nova_qcache.engine import manager as manager_module
from nova_qcache.engine.manager import Manager
from nova_qcache.model import plan as plan_module
from nova_qcache.model.key import CacheKey
from nova_qcache.model.plan import Boot
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.states import State

_DISTRIBUTION_PYTHON = '/usr/bin/python3'
_PIECE = 1024 * 1024
_PATIENCE = 300
"""Seconds, for whatever one operation waits for."""
_RETIRED = (
    'invalidated by an operator',
    'the base has generation ',
    'it was re-tagged to generation ',
    'it was recorded again as revision ',
)
"""Why a cache may become STALE while a boot has a lease of it: nothing is wrong with it."""


@dataclasses.dataclass(frozen=True)
class Image:
    id: str
    base: str
    by_force: bool
    """Whether it may be removed by force: then what a boot was told to use may go at any time."""


@dataclasses.dataclass(frozen=True)
class Task:
    number: int
    seed: int
    operations: int
    """The least number; they go on until there is a file ``enough``, for ten times as many."""
    images: list[Image]
    folder: str
    """For the journal and copies."""
    guest_client: str


class Broken(Exception):
    """An invariant does not hold."""


def _require(held: bool, *what: object) -> None:
    if not held:
        raise Broken(*what)


class Actor:
    def __init__(self, config: str, task: Task) -> None:
        conf = cfg.ConfigOpts()
        qcache_conf.register_opts(conf)
        conf(['--config-file', config], project='nova')
        self._task = task
        self._random = random.Random(task.seed)
        self._manager = Manager(conf)
        self._catalog = Catalog(self._manager.paths, _PATIENCE)
        self._boots = 0
        self._journal = open(f'{task.folder}/journal-{task.number}', 'w', buffering=1)  # noqa: SIM115
        # What each may raise, as its docstring says. A lock that is not free in time is never
        # right here.
        nothing = (exception.CacheNotFound, exception.CacheNotReady)
        self._ways: list[tuple[int, Callable[[Image], str], tuple[type[Exception], ...]]] = [
            (30, self.boot, ()),
            (4, self.record, (exception.RecorderFailed, exception.WrongState)),
            (10, self.seal, (*nothing, exception.NotSealed, exception.RecorderUnreachable)),
            (4, self.invalidate, (exception.CacheNotFound,)),
            (10, self.remove, (exception.CacheNotFound, exception.CacheInUse)),
            (3, self.verify, nothing),
            (3, self.touch, ()),
            (3, self.look, ()),
            (3, self.clean_up, ()),
        ]

    def run(self) -> None:
        enough = pathlib.Path(self._task.folder, 'enough')
        for number in range(10 * self._task.operations):
            if number >= self._task.operations and enough.exists():
                break
            self._step()
            time.sleep(self._random.uniform(0, 0.2))
        self._note(step='end')

    def _step(self) -> None:
        weights = [weight for weight, _, _ in self._ways]
        ((_, way, allowed),) = self._random.choices(self._ways, weights)
        image = self._random.choice(self._task.images)
        self._note(step='begin', what=way.__name__, image=image.id)
        try:
            came = way(image)
        except exception.QcacheError as e:
            _require(isinstance(e, allowed), f'{way.__name__} raised', repr(e))
            came = type(e).__name__
        self._note(step='done', what=way.__name__, came=came)

    def _note(self, **what: object) -> None:
        self._journal.write(json.dumps({'at': time.monotonic(), **what}) + '\n')

    # -- what callers do; each returns in a word what came of it

    def boot(self, image: Image) -> str:
        self._boots += 1
        consumer = f'instance-{self._task.number}-{self._boots}'
        plan = self._manager.boots.plan(Boot(image.id, image.base, 'raw', consumer=consumer))
        self._manager.boots.count(plan)
        try:
            if plan.kind is plan_module.PlanKind.PLAY:
                return self._play(image, plan)
            if plan.kind is plan_module.PlanKind.RECORD:
                return self._read_while_recording(image, plan)
            return f'PLAIN: {plan.reason}'
        finally:
            self._manager.boots.release(consumer)

    def record(self, image: Image) -> str:
        plan = self._manager.boots.record(image.id, image.base, 'raw', quota='2')
        if plan.kind is plan_module.PlanKind.RECORD and self._random.random() < 0.5:
            return self._read_while_recording(image, plan, leased=False)
        return plan.kind.value

    def seal(self, image: Image) -> str:
        # What waits for READY may find it dropped or removed in the meantime.
        return self._manager.seal(image.id, self._random.choice((0, _PATIENCE))).state

    def invalidate(self, image: Image) -> str:
        with_base = self._random.random() < 0.3
        keys = self._manager.invalidate(image.id, image.base if with_base else None)
        return 'some' if keys else 'none'

    def remove(self, image: Image) -> str:
        force = image.by_force and self._random.random() < 0.5
        self._manager.remove(image.id, force=force)
        return 'by force' if force else 'unused'

    def verify(self, image: Image) -> str:
        before = self._records(image)
        try:
            problems: list[object] = [x for x in self._manager.verify(image.id) if x.problem]
        except exception.ToolError as e:
            problems = [e]
        # There is no difference to find, unless what it looked at has gone meanwhile.
        _require(not problems or self._records(image) != before, problems)
        return 'gone meanwhile' if problems else 'equal'

    def touch(self, image: Image) -> str:
        """As Nova does."""
        os.utime(image.base)
        return 'done'

    def look(self, image: Image) -> str:
        known = {'COLD', 'RECORDING', 'READY', 'STALE', 'DIRTY', 'BROKEN'}
        states = {view.state for view in self._manager.caches()}
        _require(states <= known, states)
        return 'done'

    def clean_up(self, image: Image) -> str:
        return 'some' if self._manager.clean_up() else 'none'

    # -- what must hold

    def _records(self, image: Image) -> dict[CacheKey, CacheRecord | None]:
        return {view.key: view.record for view in self._manager.caches(image.id)}

    def _play(self, image: Image, plan: plan_module.Plan) -> str:
        """Check the cache that a boot may use now and until its lease ends."""
        assert plan.cache is not None
        key = plan.key
        assert key is not None
        _require(plan.cache == str(self._manager.paths.sealed(key)), plan)
        try:
            fd = os.open(plan.cache, os.O_RDONLY)
        except FileNotFoundError:
            _require(image.by_force, 'no such file while it is leased', plan)
            return 'PLAY, removed by force'
        try:
            self._require_sealed(image, key, fd)
            if not image.by_force and self._random.random() < 0.3:
                self._require_content(image, plan.cache)
            time.sleep(self._random.uniform(0, 0.4))
            self._require_sealed(image, key, fd)
        finally:
            os.close(fd)
        return 'PLAY'

    def _require_sealed(self, image: Image, key: CacheKey, fd: int) -> None:
        facts = os.fstat(fd)
        _require(stat.S_IMODE(facts.st_mode) == 0o440, oct(facts.st_mode), key)
        record = self._catalog.load(key)
        if image.by_force and (record is None or record.sealed is None):
            return  # removed by force
        _require(record is not None and record.sealed is not None, key, record)
        assert record is not None
        assert record.sealed is not None
        if image.by_force and record.sealed.inode != facts.st_ino:
            return  # and recorded again
        retired = record.state is State.STALE and record.stale_reason.startswith(_RETIRED)
        _require(record.state is State.READY or retired, record)
        _require(record.key == key and record.base == image.base, record)
        _require(facts.st_ino == record.sealed.inode, 'another file', facts, record)
        found = sealed_file.digest(pathlib.Path(f'/proc/self/fd/{fd}'))
        _require(found == record.sealed.digest, 'its digest is', found, record)
        if not image.by_force:
            self._catalog.require_unchanged(record)

    def _require_content(self, image: Image, cache: str) -> None:
        """Read through the chain of a playing guest and compare with the base."""
        chain = {
            'driver': 'qcow2',
            'file': {'driver': 'file', 'filename': cache},
            'backing': {'driver': 'raw', 'file': {'driver': 'file', 'filename': image.base}},
        }
        copy = pathlib.Path(self._task.folder, f'copy-{self._task.number}')
        command = ['qemu-img', 'convert', '-O', 'raw', f'json:{json.dumps(chain)}', str(copy)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
        _require(done.returncode == 0, done)
        same = copy.read_bytes() == pathlib.Path(image.base).read_bytes()
        _require(same, 'a cache with other content than its base', cache)
        copy.unlink()

    def _read_while_recording(
        self, image: Image, plan: plan_module.Plan, *, leased: bool = True
    ) -> str:
        """Be a guest for a moment: every read must have the bytes of the base."""
        uri = f'nbd+unix:///{plan_module.EXPORT_NAME}?socket={plan.socket}'
        with subprocess.Popen(
            [_DISTRIBUTION_PYTHON, self._task.guest_client, uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as guest:
            try:
                assert guest.stdin is not None
                assert guest.stdout is not None
                greeting = guest.stdout.readline()
                if not greeting.startswith('connected'):
                    _require(image.by_force or not leased, greeting, plan)
                    return 'RECORD, removed'
                for _ in range(self._random.randint(1, 4)):
                    self._read_one(image, guest.stdin, guest.stdout)
                    time.sleep(self._random.uniform(0, 0.5))
            finally:
                guest.kill()
        return 'RECORD'

    def _read_one(self, image: Image, stdin: Any, stdout: Any) -> None:
        size = os.path.getsize(image.base)
        offset = self._random.randrange(0, size - _PIECE, 512)
        length = self._random.randrange(512, _PIECE, 512)
        stdin.write(f'{offset} {length}\n')
        stdin.flush()
        with open(image.base, 'rb') as file:
            file.seek(offset)
            wanted = hashlib.sha256(file.read(length)).hexdigest()
        answer = stdout.readline().strip()
        _require(answer == wanted, f'{length} bytes at {offset}: {answer!r}', image)


class _Alarm(logging.Handler):
    """An exception that the product did not expect of itself is logged with its traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            os.write(2, (logging.Formatter().format(record) + '\n').encode())
            os._exit(1)


def main() -> None:
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    os.nice(5)  # other tests run beside this one
    logging.getLogger('nova_qcache').addHandler(_Alarm())
    manager_module._LEAVE_SECONDS = _PATIENCE
    said = json.loads(sys.argv[2])
    images = [Image(**image) for image in said.pop('images')]
    Actor(sys.argv[1], Task(images=images, **said)).run()


if __name__ == '__main__':
    main()
