# SPDX-License-Identifier: Apache-2.0
"""Whatever fails or crashes at whichever system call: each record is the old one or the new one.

Each change runs once to see which system calls it makes, and then once for each of them: the call
fails; the process ends at it; the host loses its power before it. What is there then is looked at
as a process does that starts afterwards, and the change is made again, which has to succeed.
"""

from collections.abc import Callable
import dataclasses
import errno
import functools
import os
import pathlib
import traceback
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache import sealed_file
from nova_qcache.model.key import CacheKey
from nova_qcache.model.source import BaseIdentity
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import Staleness
from nova_qcache.system import files
from tests.unit import builders
from tests.unit.builders import KEY
from tests.unit.sites import CONTENT
from tests.unit.sites import memory_folder
from tests.unit.sites import NEXT
from tests.unit.sites import Site
from tests.unit.syscalls import end_process
from tests.unit.syscalls import fail
from tests.unit.syscalls import kill
from tests.unit.syscalls import KILLED
from tests.unit.syscalls import Killed
from tests.unit.syscalls import Syscalls

OTHER = CacheKey(builders.OTHER_IMAGE, builders.GENERATION)
ONE = 'one-server'
IDENTITY = BaseIdentity(4096, 8, 9)
OLD, NEW = b'old', b'new and longer'
NUMBERS = (errno.EIO, errno.ENOSPC)


@dataclasses.dataclass(frozen=True)
class Change:
    """Something that changes what is on disk."""

    prepare: Callable[[Site], object]
    act: Callable[[Site], object]
    look: Callable[[Site], str]
    """What is there, in few words."""
    between: tuple[str, ...] = ()
    """What may be there half-way, beside the old and the new."""
    is_new: Callable[[str], bool] | None = None
    """Whether that is the new; what it is after an undisturbed run by default."""
    survives_power_loss: bool = True
    waits: bool = True
    """Whether it is on disk when it is over; if not, a power loss may take it back."""
    may_shrug: bool = False
    """Whether it may return as if all were well when it was not."""


def nothing(site: Site) -> None:
    pass


def text_of(site: Site) -> str:
    path = site.paths.record(KEY)
    return path.read_text() if path.exists() else ''


def replace(site: Site) -> None:
    files.replace_atomically(site.paths.record(KEY), NEW, 0o640)


def write_old(site: Site) -> None:
    site.paths.record(KEY).write_bytes(OLD)


def seal(site: Site) -> object:
    """Seal a file that is complete and synced, whatever its name is by now."""
    path = site.paths.recording(KEY)
    path = path if path.exists() else site.paths.sealed(KEY)
    facts = sealed_file.describe(path, sealed_file.digest(path), FinishReason.IDLE)
    return site.catalog.seal(builders.record(), facts)


def rename_a_recording(site: Site) -> None:
    """A recorder was killed while it sealed."""
    site.warm()
    site.paths.recording(KEY).rename(site.paths.sealed(KEY))


def begin(site: Site) -> None:
    site.catalog.begin(builders.record())


def fill_and_seal(site: Site) -> None:
    """All that a recorder does about its file."""
    site.paths.recording(KEY).write_bytes(CONTENT)
    site.seal_all(builders.record())


def retire(site: Site) -> None:
    record = site.catalog.load(KEY)
    assert record is not None
    site.catalog.retire(record, 'differs')


def retire_written(site: Site) -> None:
    record = site.catalog.load(KEY)
    if record is not None:
        site.catalog.retire(record, 'differs', Staleness.WRITTEN)


def refresh(site: Site) -> None:
    record = site.catalog.load(KEY)
    assert record is not None
    site.catalog.refresh(dataclasses.replace(record, base_identity=IDENTITY))


def retag(site: Site) -> None:
    record = site.catalog.load(KEY)
    assert record is not None
    try:
        site.catalog.retag(record, NEXT.generation)
    except exception.WrongState:
        # It was broken off between the two records. The old one is of no use to a boot by then,
        # and whoever begins a recording retires what is old.
        site.catalog.retire(record, 'old')


def both_caches(site: Site) -> str:
    """Of both generations; the reason names a random epoch."""
    return f'{site.cache(KEY)[:5]} {site.cache(NEXT)[:5]}'


def make_stale(site: Site) -> None:
    site.ready()
    retire(site)


def lose_a_record(site: Site) -> None:
    site.ready()
    site.paths.record(KEY).unlink()


def discard(site: Site) -> None:
    site.catalog.discard(KEY)


def cache_and_files(site: Site) -> str:
    """For a discard, which is over only when the files are gone as well."""
    return f'{site.cache()}: {site.file_of_a_cache()}'.strip(': ')


def begin_to_count(site: Site) -> None:
    site.before = site.generations.current(site.source)


def count_for_this_host(site: Site) -> None:
    site.use_storage_without_files()
    begin_to_count(site)


def raise_generation(site: Site) -> None:
    seen = site.before
    raised = site.generations.raise_before_write(site.source)
    assert site.generations.current(site.source) == raised
    assert raised != seen
    assert seen is None or raised.epoch != seen.epoch or raised.n > seen.n


def ask_generation(site: Site) -> None:
    assert site.generations.current(site.source) == site.generations.current(site.source)


def take(key: CacheKey, site: Site) -> None:
    site.leases.take(ONE, key)


take_one = functools.partial(take, KEY)
take_other = functools.partial(take, OTHER)
discarding = Change(
    nothing, discard, cache_and_files, ('COLD: .qcow2', 'COLD: .recording'), waits=False
)
counting = Change(begin_to_count, raise_generation, Site.generation, is_new='new'.__eq__)

CHANGES = {
    'a new file': Change(nothing, replace, text_of),
    'a replaced file': Change(write_old, replace, text_of),
    'begin': Change(nothing, Site.warm, Site.cache, waits=False),
    'seal': Change(Site.warm, seal, Site.cache),
    'seal again': Change(rename_a_recording, seal, Site.cache),
    'fill, check and seal': Change(begin, fill_and_seal, Site.cache),
    'retire': Change(Site.ready, retire, Site.cache),
    'retire one of a generation of before': Change(
        Site.ready,
        retire_written,
        Site.cache,
        is_new=lambda cache: cache.startswith(('STALE', 'COLD')),  # no boot uses it
        waits=False,
    ),
    'refresh': Change(Site.ready, refresh, Site.cache),
    'carry over': Change(Site.ready, retag, both_caches, ('READY READY',)),
    'discard RECORDING': dataclasses.replace(discarding, prepare=Site.warm),
    'discard a recording': dataclasses.replace(
        discarding,
        prepare=Site.warm,
        act=lambda site: site.catalog.discard_recording(KEY),
        between=(*discarding.between, 'RECORDING 7: .json'),
    ),
    'discard READY': dataclasses.replace(discarding, prepare=Site.ready),
    'discard STALE': dataclasses.replace(discarding, prepare=make_stale),
    'discard what lost its record': dataclasses.replace(discarding, prepare=lose_a_record),
    'first question': Change(
        nothing, ask_generation, Site.generation, is_new='new'.__eq__, waits=False
    ),
    'first rise': dataclasses.replace(counting, prepare=nothing),
    'rise': counting,
    'rise on this host alone': dataclasses.replace(counting, prepare=count_for_this_host),
    'take': Change(nothing, take_one, Site.leased, survives_power_loss=False),
    'take anew': Change(
        take_one,
        take_other,
        Site.leased,
        ('KEY OTHER',),
        is_new=lambda leased: 'OTHER' in leased,  # the one before may last to its end
        survives_power_loss=False,
    ),
    'release': Change(
        take_one,
        lambda site: site.leases.release(ONE),
        Site.leased,
        survives_power_loss=False,
        may_shrug=True,
    ),
}
EACH = pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)


@pytest.fixture(autouse=True)
def nothing_is_remembered():
    """Or else what is looked at twice, and so how many calls there are, would be a matter of
    milliseconds."""
    with mock.patch('time.time_ns', lambda: 0):
        yield


@pytest.fixture
def folder():
    with memory_folder() as made:
        yield made


class Runs:
    """Runs one change in sites of their own."""

    def __init__(self, folder: pathlib.Path, change: Change) -> None:
        self._folder = folder
        self._change = change
        site = self.site()
        self._old = '' if change.look is Site.generation else change.look(site)
        site = self.site()
        with Syscalls(site.folder) as calls:
            change.act(site)
        self.names = calls.names
        self._new = change.look(site)
        assert self._new != self._old
        # Since Python 3.13 a glob looks by calls that are not seen here.
        assert self.names, 'it does something'

    def site(self) -> Site:
        site = Site(self._folder / str(len(os.listdir(self._folder))))
        self._change.prepare(site)
        return site

    def is_new(self, view: str) -> bool:
        return self._change.is_new(view) if self._change.is_new else view == self._new

    def require_old_or_new(self, site: Site, *, is_over: bool, rebooted: bool = False) -> None:
        """Look; then do it again, or clear away and do all of it again.

        :param rebooted: no recorder has lived on: whatever was RECORDING is dirty
        """
        view = self._change.look(site)
        if is_over:
            assert self.is_new(view), f'it is over and still {view}'
        allowed = ('old', self._old, self._new, *self._change.between)
        assert view in allowed or self.is_new(view), f'neither old nor new: {view}'
        if self._change.look is Site.generation:
            site.before = site.generations.current(site.source)  # seen, so it may not come again
        if self.is_new(view) and self._change.act is Site.warm:
            site.clean_up()
            assert self._change.look(site) == self._old
        if rebooted and view.startswith('RECORDING'):
            site.clean_up()
            assert site.cache() == 'COLD'
            if self._old != 'COLD':
                self._change.prepare(site)
        if self._change.look is Site.generation or not self.is_new(self._change.look(site)):
            self._change.act(site)
        assert self.is_new(self._change.look(site)) or self._change.act is ask_generation
        site.clean_up()


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize('number', NUMBERS, ids=errno.errorcode.get)
def test_a_call_that_fails(folder, change, number):
    runs = Runs(folder, change)
    for at, name in enumerate(runs.names):
        site = runs.site()
        is_over = not change.may_shrug
        with Syscalls(site.folder, at, fail(number)) as calls:
            try:
                change.act(site)
            except (exception.QcacheError, OSError):
                is_over = False
        assert calls.names[at] == name
        assert site.leftovers() == [], f'after {name}, call {at}'
        runs.require_old_or_new(site, is_over=is_over)


def in_a_child(site: Site, change: Change, at: int) -> int:
    """Return the exit status of a process that makes the change and ends at a call."""
    pid = os.fork()
    if pid == 0:
        try:
            with Syscalls(site.folder, at, end_process):
                change.act(site)
        except BaseException:
            traceback.print_exc()
        os._exit(1)  # whatever comes, pytest has no business here
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def shape(site: Site) -> list[str]:
    """What there is, without what is random or a time."""
    found = []
    for path in site.folder.rglob('*'):
        if path.is_file():
            text = path.read_bytes()
            what = 'empty' if not text else 'whole' if text.endswith((b'}', b'}\n')) else 'bytes'
            found.append(f'{path.parent.name}/{path.name[:9]} {what}')
    return sorted(found)


@EACH
def test_a_process_that_ends(folder, change):
    runs = Runs(folder, change)
    for at in range(len(runs.names)):
        site, twin = runs.site(), runs.site()
        assert in_a_child(site, change, at) == KILLED
        assert len(site.leftovers()) <= 1
        with Syscalls(twin.folder, at, kill), pytest.raises(Killed):
            change.act(twin)
        assert shape(site) == shape(twin), 'what other tests do in place of a child is the same'
        runs.require_old_or_new(site, is_over=False)


@pytest.mark.parametrize(
    'change',
    [change for change in CHANGES.values() if change.survives_power_loss],
    ids=[name for name, change in CHANGES.items() if change.survives_power_loss],
)
def test_a_power_loss(folder, change):
    """Before each call of a change, and after the last."""
    runs = Runs(folder, change)
    site = runs.site()
    disk = site.disk()
    possible = [disk.outcomes()]

    def watch(name: str, path: str) -> None:
        disk.watch(name, path)
        possible.append(disk.outcomes())

    with Syscalls(site.folder, after=watch):
        change.act(site)
    before, tried = site.before, set()
    for at, outcomes in enumerate(possible):
        is_over = change.waits and at == len(possible) - 1
        for outcome in outcomes:
            if (outcome, is_over) not in tried:
                tried.add((outcome, is_over))
                disk.leave(outcome)
                site.before = before
                runs.require_old_or_new(site, is_over=is_over, rebooted=True)
    assert len(tried) > 1, 'it makes a difference'


@pytest.mark.parametrize('name', ['begin', 'rise'])
def test_what_a_crash_leaves_is_cleared_away(folder, name):
    """By a cleanup, or by whoever does the same again."""
    change = CHANGES[name]
    runs = Runs(folder, change)
    left = []
    for at in range(len(runs.names)):
        site = runs.site()
        with Syscalls(site.folder, at, kill), pytest.raises(Killed):
            change.act(site)
        site.clean_up()
        change.act(site)
        left += site.leftovers()
    assert left == []
