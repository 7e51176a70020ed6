# SPDX-License-Identifier: Apache-2.0
"""The life of a cache, with crashes between any two system calls: what boots read is the base.

The records, counters, leases and files are real, and so are the steps that change them. Only qemu
is left out: a cache is the beginning of its base, copied piece by piece.

Who writes a base is taken to do as Nova does: it announces the write, makes the new file aside and
renames it; nobody records or compares between the two. Its bytes are on disk at once.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import functools
import itertools
import logging
import random
import shutil
from unittest import mock

from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize
from hypothesis.stateful import invariant
from hypothesis.stateful import precondition
from hypothesis.stateful import rule
from hypothesis.stateful import RuleBasedStateMachine
from hypothesis.stateful import run_state_machine_as_test
import pytest

from nova_qcache import exception
from nova_qcache.engine.lookup import Lookup
from nova_qcache.engine.lookup import LookupResult
from nova_qcache.model import states
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from nova_qcache.system import locks
from tests.unit import builders
from tests.unit.builders import IMAGE
from tests.unit.sites import memory_folder
from tests.unit.sites import Site
from tests.unit.sites import sound
from tests.unit.syscalls import kill
from tests.unit.syscalls import Killed
from tests.unit.syscalls import Syscalls

CONSUMERS = ('one-server', 'another-server')
PIECE = 4
"""Bytes that a guest's read brings into a cache."""

has_recorder = precondition(lambda self: self.recorders)
has_ready = precondition(lambda self: State.READY in self.seen.values())
has_cache = precondition(lambda self: self.seen)
has_lease = precondition(lambda self: self.leased)

calls = st.integers(0, 20) | st.integers(0, 60)
cuts = st.none() | calls
"""At which system call the process of a step ends; many steps have fewer, and end in peace."""


class LifeCycle(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.end = contextlib.ExitStack()
        # Before names are counted: what other runs have there now would be counted as well.
        folder = self.end.enter_context(memory_folder())
        # Names that are random would sort in another order each time, and no run be repeatable.
        numbers = itertools.count()
        for name in ('secrets.token_hex', 'tempfile._RandomNameSequence.__next__'):
            made = mock.patch(name, lambda *_: f'{next(numbers):012x}')
            self.end.enter_context(made)
        self.site = Site(folder / 'site')
        self.disk = self.site.disk()
        self.versions = itertools.count()
        self.recorders: dict[CacheKey, contextlib.ExitStack] = {}
        """Those that live, by what they fill; each holds its lock."""
        self.leased: dict[str, CacheKey] = {}
        """What boots were told to use and nobody has taken away by force."""
        self.read: set[CacheKey] = set()
        """What guests that run read: nobody takes that away, but by force."""
        self.contents: dict[Generation, bytes] = {}
        """The one content that the base had in each generation that anybody has seen."""
        self.seen: dict[CacheKey, State] = {}

    def teardown(self) -> None:
        self.become_ready_again()
        self.kill_recorders()
        self.end.close()

    # -- how a step is made

    def run(self, step: Callable[[], object], cut: int | None = None) -> bool:
        """Return whether a step came to its end; ``cut`` is where its process is killed."""
        with Syscalls(self.site.folder, cut, kill, self.watch):
            try:
                step()
            except Killed:
                return False
        return True

    def watch(self, name: str, path: str) -> None:
        self.disk.watch(name, path)
        if name == 'rename' and path.endswith('base.part'):
            self.disk.watch('fsync', str(self.site.base))
            self.disk.watch('fsync', str(self.site.base.parent))
        if name in ('rename', 'unlink'):
            self.see_transitions()

    def see_transitions(self) -> None:
        catalog = self.site.catalog
        for key in {*catalog.keys(), *self.seen}:
            record = catalog.load(key)
            before, now = self.seen.get(key, State.COLD), record.state if record else State.COLD
            if now is not before and not is_retagged(record):
                states.require_transition(key.image_id, before, now)
            self.seen[key] = now
        self.seen = {key: state for key, state in self.seen.items() if state is not State.COLD}

    def generation(self) -> Generation:
        found: list[Generation] = []
        self.run(lambda: found.append(self.site.generations.settled(self.site.source)))
        return found[0]

    def find(self) -> LookupResult:
        """What a boot would use now."""
        found: list[LookupResult] = []
        lookup = Lookup(self.site.catalog, self.site.generations)
        self.run(lambda: found.append(lookup.find(builders.boot(), self.site.source)))
        return found[0]

    def record(self, key: CacheKey) -> CacheRecord:
        identity = self.site.source.identity()
        return builders.record(key=key, base=str(self.site.base), base_identity=identity)

    def in_state(self, state: State) -> list[CacheRecord]:
        records = map(self.site.catalog.load, self.site.catalog.keys())
        return [record for record in records if record is not None and record.state is state]

    def kill_recorders(self) -> None:
        for stack in self.recorders.values():
            stack.close()
        self.recorders.clear()

    # -- what happens

    @initialize()
    def first_download(self) -> None:
        self.site.base.write_bytes(self.new_content())
        self.disk.settle()

    def new_content(self) -> bytes:
        return (b'%04d' % next(self.versions)) * 8

    @rule(cut=cuts, again=st.booleans())
    def write_base(self, cut: int | None, again: bool) -> None:
        """Download it, the same bytes or others."""
        base = self.site.base
        content = base.read_bytes() if again else self.new_content()
        aside = base.parent / 'base.part'

        def write() -> None:
            self.site.generations.raise_before_write(self.site.source)
            aside.write_bytes(content)
            aside.rename(base)

        self.run(write, cut)

    @rule(cut=cuts)
    def begin(self, cut: int | None) -> None:
        """A boot that found nothing to play starts a recorder."""
        plan = self.find().plan
        key = plan.key
        if key is None or plan.kind is not PlanKind.RECORD or key in self.recorders:
            return
        catalog, record = self.site.catalog, self.record(key)

        def start() -> None:
            stack.enter_context(locks.recorder(catalog.paths.locks, key))
            found = catalog.load(key)
            if found is None or found.state is State.RECORDING:
                catalog.discard(key)
                catalog.begin(record)
                catalog.paths.recording(key).write_bytes(b'')
                self.recorders[key] = stack.pop_all()

        with contextlib.ExitStack() as stack:
            self.run(start, cut)

    @has_recorder
    @rule(pieces=st.integers(1, 3))
    def fill(self, pieces: int) -> None:
        for key in self.recorders:
            path = self.site.paths.recording(key)
            if path.exists():
                had = path.read_bytes()
                more = self.site.base.read_bytes()[len(had) : len(had) + pieces * PIECE]
                self.run(functools.partial(path.write_bytes, had + more))

    @has_recorder
    @rule(cut=cuts)
    def seal(self, cut: int | None) -> None:
        for key, stack in list(self.recorders.items()):
            record = self.site.catalog.load(key) or self.record(key)
            with contextlib.suppress(exception.CacheBroken, exception.WrongState):
                self.run(functools.partial(self.site.seal_all, record), cut)
            del self.recorders[key]
            stack.close()

    @has_recorder
    @rule()
    def kill_all_recorders(self) -> None:
        self.kill_recorders()

    @rule()
    def adopt(self) -> None:
        """New recorders find the daemons of those that were killed."""
        for record in self.in_state(State.RECORDING):
            if record.key not in self.recorders:
                stack = contextlib.ExitStack()
                stack.enter_context(locks.recorder(self.site.paths.locks, record.key))
                self.recorders[record.key] = stack

    @has_ready
    @rule(cut=cuts)
    def verify(self, cut: int | None) -> None:
        """Compare what is READY with the base, and act on the answer."""
        catalog, generations, source = self.site.catalog, self.site.generations, self.site.source
        base = self.site.base.read_bytes()
        for record in self.in_state(State.READY):
            content, generation = catalog.paths.sealed(record.key).read_bytes(), self.generation()

            def act(record: CacheRecord, generation: Generation, is_equal: bool) -> None:
                proved = dataclasses.replace(record, base_identity=source.identity())
                if not is_equal:
                    if record.key.generation == generation:
                        generations.raise_before_write(source)
                    catalog.retire(record, 'differs')
                elif record.key.generation == generation:
                    catalog.refresh(proved)
                else:
                    try:
                        catalog.retag(proved, generation)
                    except exception.WrongState:
                        catalog.retire(record, 'recorded again')

            is_equal = base.startswith(content)
            self.run(functools.partial(act, record, generation, is_equal), cut)

    @has_ready
    @rule(generator=st.randoms(use_true_random=False), cut=cuts)
    def damage(self, generator: random.Random, cut: int | None) -> None:
        """A cache is found to be damaged."""
        record = generator.choice(self.in_state(State.READY))
        damaged = Staleness.DAMAGED
        self.run(lambda: self.site.catalog.retire(record, 'its digest is another', damaged), cut)

    @has_ready
    @rule(cut=cuts)
    def retire_older(self, cut: int | None) -> None:
        generation = self.generation()
        for record in self.in_state(State.READY):
            if record.key.generation != generation:
                self.run(functools.partial(self.site.catalog.retire, record, 'older'), cut)

    @has_ready
    @rule(cut=cuts, waits=st.booleans())
    def audit(self, cut: int | None, waits: bool) -> None:
        """What plays is recorded again on top of itself, and takes its place."""
        plan, catalog = self.find().plan, self.site.catalog
        if plan.kind is not PlanKind.PLAY or plan.key is None:
            return
        audited = catalog.load(plan.key)
        assert audited is not None
        key = catalog.next_key(IMAGE, plan.key.generation)
        copy = dataclasses.replace(self.record(key), is_audit=True)

        def start() -> None:
            catalog.begin(copy)
            path = catalog.paths.recording(key)
            path.write_bytes(catalog.paths.sealed(audited.key).read_bytes())
            if waits:
                self.recorders[key] = stack.pop_all()
                return
            self.site.seal_all(copy)
            catalog.retire(audited, 'it was recorded again', Staleness.REVISION)

        with contextlib.ExitStack() as stack:
            stack.enter_context(locks.recorder(catalog.paths.locks, key))
            self.run(start, cut)

    @rule(who=st.sampled_from(CONSUMERS))
    def record_and_boot(self, who: str) -> None:
        """The way of a cache on which nothing goes wrong."""
        self.begin(None)
        self.fill(2)
        self.seal(None)
        self.boot(who, None)

    @rule(cut=calls)
    def record_and_die(self, cut: int) -> None:
        self.begin(None)
        self.fill(1)
        self.seal(cut)

    @has_cache
    @rule(generator=st.randoms(use_true_random=False), cut=cuts)
    def remove_by_force(self, generator: random.Random, cut: int | None) -> None:
        key = self.dismissed(generator)
        self.read.discard(key)
        self.leased = {who: other for who, other in self.leased.items() if other != key}
        self.run(functools.partial(self.site.catalog.discard, key), cut)

    @has_cache
    @rule(generator=st.randoms(use_true_random=False), cut=cuts)
    def remove(self, generator: random.Random, cut: int | None) -> None:
        key = self.dismissed(generator)

        def require_none() -> None:
            if key in self.read or any(lease.key == key for lease in self.site.leases.active()):
                raise exception.CacheInUse(path='', reason='it is leased', remedy='Wait')

        with contextlib.suppress(exception.CacheInUse):
            self.run(functools.partial(self.site.catalog.discard, key, require_none), cut)

    def dismissed(self, generator: random.Random) -> CacheKey:
        """Choose a cache, and see its recorder off."""
        key = generator.choice(sorted(self.seen))
        if key in self.recorders:
            self.recorders.pop(key).close()
        return key

    @rule(cut=cuts)
    def clean_up(self, cut: int | None) -> None:
        self.run(self.site.clean_up, cut)
        for key in self.recorders:
            assert self.site.catalog.load(key) is not None, 'a recorder that lives is left alone'

    @has_ready
    @rule(who=st.sampled_from(CONSUMERS), cut=cuts)
    def boot(self, who: str, cut: int | None) -> None:
        """What a plan does that ends in a lease."""
        plan, catalog, leases = self.find().plan, self.site.catalog, self.site.leases
        key = plan.key
        if key is None or plan.kind is not PlanKind.PLAY:
            return
        before = self.leased.pop(who, None)
        if self.run(lambda: catalog.lease(key, lambda: leases.take(who, key)), cut):
            self.leased[who] = key
        elif before is not None:
            mine = [lease.key for lease in leases.active() if lease.consumer == who]
            assert set(mine) <= {before, key}
            assert mine, 'one that begins anew has one at any time'

    @has_lease
    @rule(who=st.sampled_from(CONSUMERS), cut=cuts)
    def release(self, who: str, cut: int | None) -> None:
        self.leased.pop(who, None)
        self.run(lambda: self.site.leases.release(who), cut)

    @has_lease
    @rule(who=st.sampled_from(CONSUMERS))
    def run_guest(self, who: str) -> None:
        """The domain of a boot runs, and reads what it was told to use for as long as it does."""
        if who in self.leased:
            self.read.add(self.leased[who])
            self.release(who, None)

    @precondition(lambda self: self.read)
    @rule(generator=st.randoms(use_true_random=False))
    def end_guest(self, generator: random.Random) -> None:
        self.read.remove(generator.choice(sorted(self.read)))

    @rule(generator=st.randoms(use_true_random=False))
    def lose_power(self, generator: random.Random) -> None:
        self.kill_recorders()
        self.disk.leave(self.disk.one_of_them(generator))
        self.disk.settle()
        shutil.rmtree(self.site.paths.leases)
        self.site.paths.leases.mkdir()
        self.leased.clear()
        self.read.clear()
        records = map(self.site.catalog.load, self.site.catalog.keys())
        self.seen = {record.key: record.state for record in records if record is not None}

    @rule()
    def become_ready_again(self) -> None:
        """Whatever lies around, whoever reads it and whoever was killed: when all goes well again,
        few boots are enough for one that plays, and no guest has to end for it."""
        for _ in range(3):
            plan, to_revalidate = (found := self.find()).plan, found.to_revalidate
            if plan.kind is PlanKind.PLAY:
                break
            if to_revalidate is not None:
                self.verify(None)  # the keeper's part
                continue
            assert plan.kind is PlanKind.RECORD, plan.reason
            self.begin(None)
            self.fill(1)
            self.seal(None)
        plan = self.find().plan
        assert plan.kind is PlanKind.PLAY, plan.reason

    # -- what holds at any time

    @invariant()
    def a_generation_has_one_content(self) -> None:
        base = self.site.base.read_bytes()
        assert self.contents.setdefault(self.generation(), base) == base

    @invariant()
    def a_boot_reads_what_is_in_the_base(self) -> None:
        plan = self.find().plan
        if plan.kind is PlanKind.PLAY and plan.key is not None:
            record = sound(self.site.catalog, plan.key)
            assert record is not None
            content = self.site.catalog.require_unchanged(record).read_bytes()
            assert self.site.base.read_bytes().startswith(content)

    @invariant()
    def every_record_can_be_read_and_is_true(self) -> None:
        keys = self.site.catalog.keys()
        for key in keys:
            sound(self.site.catalog, key)

    @invariant()
    def what_is_leased_is_there(self) -> None:
        active = {lease.consumer: lease.key for lease in self.site.leases.active()}
        for who, key in self.leased.items():
            assert active[who] == key
            assert self.site.paths.sealed(key).exists()
        for key in self.read:
            assert self.site.paths.sealed(key).exists()


def is_retagged(record: CacheRecord | None) -> bool:
    """A cache of a new generation begins as READY if its bytes are those of the one before."""
    return record is not None and record.state is State.READY


@pytest.mark.random
@pytest.mark.timeout(1200)  # of work, on a machine that is busy
def test_life_cycle(caplog):
    caplog.set_level(logging.CRITICAL, 'nova_qcache')
    run_state_machine_as_test(
        LifeCycle,
        settings=settings(
            stateful_step_count=40,
            suppress_health_check=list(HealthCheck),
        ),
    )
