# SPDX-License-Identifier: Apache-2.0
"""Sixteen processes that plan, record, seal, invalidate and remove the same images at random.

What each of them does and checks is in turmoil.py. Here: nobody waits for ever, nobody waits for
locks out of order, never do two processes write one recording, and nothing is left at the end.
"""

import collections
from collections.abc import Iterator
import contextlib
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
from typing import Any
import uuid

import psutil
import pytest

from tests import seeds
from tests.functional import bases
from tests.functional import users
from tests.functional import waiting
from tests.functional.refusals import require_nothing_left
from tests.functional.site import MIB
from tests.functional.site import Site
from tests.functional.watching import WriterWatch

_HERE = pathlib.Path(__file__).parent
_PROCESSES = 16
_OPERATIONS = 300 if seeds.explore() else 15
"""Of each process, at least."""
_LONGEST_OPERATION = 4 * waiting.PATIENCE
"""Seconds: the longest waits in one operation are those for a lock, a start, a seal and an end."""
_DUMP_SECONDS = 2


class _EachFileWatch(WriterWatch):
    """Whether two processes ever wrote one recording at one time, also one without a name."""

    pause = 0.02

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self.clashes: list[tuple[str, set[int]]] = []

    def look(self) -> None:
        for name, pids in self._writers().items():
            self.writers |= pids
            if len(pids) > 1:
                # One may have ended before the other began: both must still be there.
                still = pids & self._writers().get(name, set())
                if len(still) > 1:
                    self.clashes.append((name, still))

    def _writers(self) -> dict[str, set[int]]:
        found = collections.defaultdict(set)
        for path in pathlib.Path('/proc').glob('[0-9]*'):
            with contextlib.suppress(OSError):
                if path.stat().st_uid == users.PRODUCT.uid:
                    for name in self._written_by(path):
                        found[name].add(int(path.name))
        return found

    def _written_by(self, process: pathlib.Path) -> Iterator[str]:
        for fd in os.listdir(process / 'fd'):
            with contextlib.suppress(OSError):
                path = os.readlink(process / 'fd' / fd).removesuffix(' (deleted)')
                if path.startswith(f'{self._folder}/') and path.endswith('.recording'):
                    facts = (process / 'fdinfo' / fd).read_text()
                    flags = next(x for x in facts.splitlines() if x.startswith('flags:'))
                    if int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY:
                        yield path


@pytest.fixture
def spied(site: Site) -> pathlib.Path:
    """Have every process of the product say when it waits for a lock out of order."""
    folder = site.make_folder('spy')
    shutil.copyfile(_HERE / 'turmoil_spy.py', folder / 'sitecustomize.py')
    search = [str(folder), site.environment.get('PYTHONPATH', '')]
    site.environment['PYTHONPATH'] = ':'.join(filter(None, search))
    site.environment['QCACHE_TEST_SPY'] = str(folder)
    return folder


class _Actor:
    """One process that runs turmoil.py."""

    def __init__(self, site: Site, task: dict[str, Any]) -> None:
        self.number = task['number']
        self._journal = pathlib.Path(task['folder'], f'journal-{self.number}')
        self._said = site.folder / f'said-{self.number}'
        script = site.folder / 'turmoil.py'
        command = [site.product.python, str(script), str(site.config), json.dumps(task)]
        with open(self._said, 'w') as said:
            self.process = site.start(command, stdout=said, stderr=subprocess.STDOUT)

    def journal(self) -> list[dict[str, Any]]:
        if not self._journal.exists():
            return []
        # The last line may be one that is just being written.
        text = self._journal.read_text().rpartition('\n')[0]
        return [json.loads(line) for line in text.splitlines()]

    def said(self) -> str:
        return f'process {self.number}:\n{self._said.read_text()}'

    def is_stuck(self) -> bool:
        """Return whether its operation takes longer than any may."""
        lines = self.journal()[-1:]
        return any(
            line['step'] == 'begin' and time.monotonic() - line['at'] > _LONGEST_OPERATION
            for line in lines
        )

    def dump(self) -> None:
        """Make it say where each of its threads is."""
        self.process.send_signal(signal.SIGUSR1)


def _holders(site: Site) -> str:
    """Return who holds which lock of the product, a line each."""
    files = [*(site.cache_path / 'locks').iterdir(), *site.bases.glob('.nova-qcache/*')]
    names = {path.stat().st_ino: path.name for path in files}
    lines = []
    for row in pathlib.Path('/proc/locks').read_text().splitlines():
        _, kind, _, _, pid, where, *_ = row.replace('-> ', '').split()
        inode = int(where.rpartition(':')[2])
        if kind == 'POSIX' and inode in names:
            with contextlib.suppress(psutil.NoSuchProcess):
                command = ' '.join(psutil.Process(int(pid)).cmdline())
                lines.append(f'{names[inode]} is held by process {pid}: {command:.200}')
    return '\n'.join(lines) or 'nobody holds a lock'


def _see_to_their_end(site: Site, actors: list[_Actor]) -> None:
    """Wait until all have ended well.

    :raises AssertionError: with what there is to know, as soon as one has not or does not
    """
    running = actors
    while running:
        time.sleep(0.5)
        if not _missing(actors):
            (site.folder / 'turmoil/enough').touch()
        for actor in running:
            code = actor.process.poll()
            assert code in (0, None), f'{actor.said()}\n{_holders(site)}'
        stuck = [actor for actor in running if actor.is_stuck()]
        if stuck:
            for actor in stuck:
                actor.dump()
            time.sleep(_DUMP_SECONDS)
            said = '\n'.join(f'{actor.said()}{actor.journal()[-1]}' for actor in stuck)
            raise AssertionError(f'an operation does not end\n{said}\n{_holders(site)}')
        running = [actor for actor in running if actor.process.poll() is None]


def _task(site: Site, number: int) -> dict[str, Any]:
    return {
        'number': number,
        'seed': seeds.seed() + number,
        'operations': _OPERATIONS,
        'folder': str(site.folder / 'turmoil'),
        'guest_client': str(site.folder / 'guest_client.py'),
    }


def _outcomes(actors: list[_Actor]) -> 'collections.Counter[tuple[str, str]]':
    """Return how often each operation ended in which way."""
    return collections.Counter(
        (line['what'], line['came'].split(':')[0])
        for actor in actors
        for line in actor.journal()
        if line['step'] == 'done'
    )


_MUST_HAPPEN = [
    *(('boot', 'PLAY'), ('boot', 'RECORD'), ('seal', 'READY')),
    *(('invalidate', 'some'), ('remove', 'unused'), ('remove', 'by force')),
    *(('remove', 'CacheInUse'), ('verify', 'equal'), ('clean_up', 'none')),
]
"""What makes the rest worth something: they go on until all of it has come."""


def _missing(actors: list[_Actor]) -> list[tuple[str, str]]:
    counted = _outcomes(actors)
    return [what for what in _MUST_HAPPEN if not counted[what]]


_WRITE = 'import sys, time; f = open(sys.argv[1], "r+b"); print(flush=True); time.sleep(3600)'


def test_the_watch_notices_two_writers(site: Site) -> None:
    """Or else it proves nothing; also of a recording that has lost its name."""
    path = site.cache_path / 'some.recording'
    path.touch()
    os.chown(path, users.PRODUCT.uid, users.PRODUCT.gid)
    with contextlib.ExitStack() as stack:
        for writers in (1, 2):
            process = stack.enter_context(
                site.start(['/usr/bin/python3', '-c', _WRITE, str(path)])
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()
            with _EachFileWatch(site.cache_path) as watch:
                assert len(watch.writers) == writers
            assert bool(watch.clashes) is (writers == 2)
        path.unlink()
        with _EachFileWatch(site.cache_path) as watch:
            assert watch.clashes


@pytest.mark.random
@pytest.mark.timeout(2 * _LONGEST_OPERATION + 60 * _OPERATIONS)
def test_turmoil(site: Site, spied: pathlib.Path) -> None:
    print(f'{seeds.VARIABLE}={seeds.seed()}')
    site.configure(
        quota=4,
        recording_idle_seconds=2,
        recording_settle_seconds=1,
        recording_max_seconds=20,
        guest_grace_seconds=1,
        plan_lease_seconds=120,  # a recorder whose guest never comes has to leave some time
    )
    site.make_folder('turmoil')
    for name in ('turmoil.py', 'guest_client.py'):
        shutil.copyfile(_HERE / name, site.folder / name)
        (site.folder / name).chmod(0o644)
    images: list[dict[str, Any]] = [
        {
            'id': str(uuid.uuid4()),
            'base': str(bases.make_raw(site, 8 * MIB, f'base-{number}.raw')),
            'by_force': number == 2,
        }
        for number in range(3)
    ]
    actors: list[_Actor] = []
    with _EachFileWatch(site.cache_path) as watch:
        try:
            for number in range(_PROCESSES):
                actors.append(_Actor(site, {**_task(site, number), 'images': images}))
            _see_to_their_end(site, actors)
        finally:
            for actor in actors:
                actor.process.kill()
                actor.process.wait()
    counted = _outcomes(actors)
    print('\n'.join(f'{number:5} {what} {came}' for (what, came), number in counted.items()))
    _require_order(spied)
    assert watch.looks > 10
    assert watch.writers
    assert not watch.clashes
    assert not _missing(actors), counted
    _remove_all(site, [image['id'] for image in images])


def _require_order(spied: pathlib.Path) -> None:
    watched = collections.Counter((spied / 'watched').read_text().splitlines())
    assert watched['actor'] == _PROCESSES
    assert watched['recorder'] > 0
    complaints = spied / 'complaints'
    assert not complaints.exists(), complaints.read_text()


def _remove_all(site: Site, image_ids: list[str]) -> None:
    """Nobody uses anything any more: all of it can be removed, and nothing is left."""
    said = {}

    def removed(image_id: str) -> bool:
        done = site.qcache('remove', image_id)
        said[image_id] = done.stderr
        return done.returncode == 0 or 'This host has no cache' in done.stderr

    for image_id in image_ids:
        # The last daemons may be about to end, and have their files open until then.
        waiting.until(functools.partial(removed, image_id), f'the removal ({said})')
    assert not list((site.run_path / 'leases').iterdir())
    site.see_off()  # those whose guests never came, and whose caches were removed by force
    require_nothing_left(site)
