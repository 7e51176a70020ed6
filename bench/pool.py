# SPDX-License-Identifier: Apache-2.0
"""What the number of caches on a host costs: a plan, and the periodic run over all of them.

``plan``: one Boots.plan() of a READY cache, with 5,000 caches on the host and with 5, by turns
in one process; and what a boot of an image without a cache does before its recorder starts: the
preview, admission, and Pool.room() where there is room. What a boot waits for is the wall clock,
"on a processor" what its thread has used of one. Two things do grow with the caches and have no
bar: for a moment after the folder has changed each plan lists it, and where there is no room what
is known of all caches says which one goes.

``run``: Maintenance.run() over the 5,000, with a metrics file and without Glance: as the first one
of a process, which reads every counter, and later. What is left of dead processes has been cleared
away before, as nova-compute does at its start, which reads every record. The steps of a run are
the debug log's; one of them reads ``scrub_mib`` of the sealed files, however many there are. Only
the first 4 KiB of each are data, so that costs no disk.
"""

import argparse
from collections.abc import Callable
import dataclasses
import functools
import hashlib
import logging
import pathlib
import statistics
import sys
import time

import figures
from figures import Figure
import rig

from nova_qcache.cache import plugins
from nova_qcache.cache import pool
from nova_qcache.cache import sealed_file
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.leases import Leases
from nova_qcache.cache.pins import Pins
from nova_qcache.cache.pool import Pool
from nova_qcache.cache.usage import Usage
from nova_qcache.engine import maintenance
from nova_qcache.engine.admission import Admission
from nova_qcache.engine.manager import Manager
from nova_qcache.model import record
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.model.plan import Boot
from nova_qcache.model.plan import Plan
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.source import BaseIdentity
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import State
from nova_qcache.stats import counters
from nova_qcache.stats.counters import Counters

FEW = 5
RATIO_BAR = 1.25  # the same, and noise
RUN_BAR_SECONDS = 2
CACHE_BYTES = 64 * rig.MIB
QUOTA = 512 * rig.MIB
DATA = b'\xff' * 4096
DIGEST = 'sha256:' + hashlib.sha256(DATA + bytes(CACHE_BYTES - len(DATA))).hexdigest()
IN_USE = 200  # images that instances of the host stand on
DAY = 24 * 3600
EVICTIONS = 3
LOCK_SECONDS = 10
SETTLED_SECONDS = 1.5  # a folder that changed just now is listed each time
AUDIT_EVERY = 1_000_000  # looked at by each plan, and never due


@dataclasses.dataclass
class Spent:
    """Milliseconds of one kind of work, each time that it was done."""

    wall: list[float] = dataclasses.field(default_factory=list)
    processor: list[float] = dataclasses.field(default_factory=list)

    def time(self, work: Callable[[], object]) -> None:
        wall, processor = time.perf_counter(), time.thread_time()
        work()
        self.processor.append(1000 * (time.thread_time() - processor))
        self.wall.append(1000 * (time.perf_counter() - wall))


class Host:
    """A host with so many READY caches, made without qemu, and the first of them to boot from."""

    def __init__(self, where: rig.Folders, base: pathlib.Path, count: int) -> None:
        self.site = rig.Site(
            where,
            f'pool-{count}',
            audit_every=AUDIT_EVERY,
            quota=QUOTA // rig.MIB,
            min_free=0,
            metrics_file=where.data / f'pool-{count}.prom',
            instances_path=where.data / 'instances',
        )
        self.base = base
        self.cold = CacheKey(rig.image_id(), Generation.first_of_new_epoch())
        self.catalog = Catalog(self.site.paths, LOCK_SECONDS)
        self.admission = Admission(self.catalog.counter_store, 2)
        usage = Usage(
            self.site.paths, Leases(self.site.paths.leases, 60), where.data / 'instances', None
        )
        self._pool_with = functools.partial(
            Pool,
            self.catalog,
            Pins(self.site.paths, LOCK_SECONDS),
            usage,
            plugins.eviction_policy('value'),
            reservations=Leases(self.site.paths.reservations, 60),
            lock_seconds=LOCK_SECONDS,
        )
        self.pool = self._pool_with(limits=pool.limits(self.site.conf, self.site.cache_path))
        self.images = [self._make_cache(base if not number else None) for number in range(count)]

    def plan(self) -> None:
        plan = self.site.manager.boots.plan(Boot(self.images[0], str(self.base), 'raw'))
        if plan.kind is not PlanKind.PLAY:
            raise rig.BenchError(f'the plan is {plan.kind.value}: {plan.reason}')

    def admit(self) -> None:
        """What a boot of an image without a cache costs until its recorder is started."""
        plan = self._result_for(self.cold.image_id)
        refusal = self.admission.refusal(Boot(self.cold.image_id, '', 'raw'))
        if plan.kind is not PlanKind.RECORD or refusal is None:
            raise rig.BenchError(f'the plan is {plan.kind.value}: {plan.reason}')
        with self.pool.room(self.cold, QUOTA):
            pass

    def _result_for(self, image_id: str) -> Plan:
        boot = Boot(image_id, str(self.base), 'raw')
        source = plugins.source(boot.base, boot.base_format)
        return self.site.manager.boots._lookup.find(boot, source).plan

    def full_pool(self) -> Pool:
        """One that has room for a recording once the least cache has gone."""
        budget = self.catalog.directory.allocated() + QUOTA - 1
        return self._pool_with(limits=pool.Limits(budget, 0, 1))

    def make_room(self, full: Pool) -> None:
        with full.room(self.cold, QUOTA):
            pass

    def change_folder(self) -> None:
        """As a recording that begins or ends does."""
        path = self.site.cache_path / '.changed'
        path.touch()
        path.unlink()

    def _make_cache(self, base: pathlib.Path | None) -> str:
        image_id = rig.image_id()
        reference, generation = f'/bases/{image_id}', Generation.first_of_new_epoch()
        identity = BaseIdentity(size=4 * rig.GIB, inode=1, mtime_ns=1)
        if base is not None:
            reference, facts = str(base), base.stat()
            identity = BaseIdentity(facts.st_size, facts.st_ino, facts.st_mtime_ns)
            generation = self._result_for(image_id).generation or generation
        key, paths, now = CacheKey(image_id, generation), self.site.paths, time.time()
        with paths.sealed(key).open('wb') as file:
            file.write(DATA)
            file.truncate(CACHE_BYTES)
        made = CacheRecord(
            key=key,
            state=State.READY,
            base=reference,
            base_format='raw',
            base_identity=identity,
            virtual_size=4 * rig.GIB,
            quota=QUOTA,
            cluster_size=16384,
            extended_l2=False,
            created_at=now - 2 * DAY,
            image_hashes=('md5:' + 32 * '0',),
            sealed=sealed_file.describe(
                paths.sealed(key), DIGEST, FinishReason.IDLE, now - 2 * DAY
            ),
        )
        paths.record(key).write_bytes(record.dumps(made))
        (paths.statistics / f'{image_id}.json').write_bytes(counters.dumps(_counted(now)))
        return image_id


def _counted(now: float) -> Counters:
    return Counters(
        boots=40,
        plays=37,
        records=1,
        audits=1,
        plain={'not-yet': 1},
        recordings=1,
        recorded_bytes=CACHE_BYTES,
        recording_seconds=20.5,
        audited_bytes=CACHE_BYTES,
        missed_bytes=rig.MIB,
        saved_bytes=37 * CACHE_BYTES,
        verifications={'intact': 3},
        boot_bytes=CACHE_BYTES,
        last_boot_at=now - DAY / 4,
        last_used_at=now - DAY / 4,
    )


class Steps(logging.Handler):
    """What the periodic run says of its steps in its debug log, in milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: dict[str, list[float]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno > logging.DEBUG:
            raise rig.BenchError(record.getMessage())
        step, seconds = record.args
        self.spent.setdefault(step, []).append(1000 * seconds)


def plans(few: Host, many: Host, times: int) -> list[Figure]:
    result: list[Figure] = []
    for name, work in (('plan: READY cache', Host.plan), ('until a recorder', Host.admit)):
        spent = {host: Spent() for host in (few, many)}
        for host in spent:
            work(host)
        for _ in range(times):
            for host, its in spent.items():
                its.time(functools.partial(work, host))
        result += _compared(name, spent[few], spent[many], len(many.images))
    return result


def listings(few: Host, many: Host, times: int) -> list[Figure]:
    result = []
    for host in (few, many):
        spent = Spent()
        for _ in range(times):
            host.change_folder()
            spent.time(host.plan)
        name = f'plan: the folder of {len(host.images):,} has just changed'
        result.append(Figure.median(name, spent.wall, 'ms'))
    return result


def evictions(few: Host, many: Host, times: int) -> list[Figure]:
    result = []
    for host in (few, many):
        spent, before = Spent(), len(host.catalog.keys())
        for _ in range(times):
            spent.time(functools.partial(host.make_room, host.full_pool()))
        if len(host.catalog.keys()) != before - times:
            raise rig.BenchError('it was not one cache each time that went')
        name = f'room for a recording, one of {len(host.images):,} goes'
        result.append(Figure.median(name, spent.wall, 'ms'))
    return result


def _compared(name: str, few: Spent, many: Spent, count: int) -> list[Figure]:
    result = [
        Figure.median(f'{name}, {FEW} caches', few.wall, 'ms'),
        Figure.median(f'{name}, {count:,} caches', many.wall, 'ms'),
    ]
    for kind, ours, theirs in (
        ('wall clock', many.wall, few.wall),
        ('on a processor', many.processor, few.processor),
    ):
        ratio = statistics.median(ours) / statistics.median(theirs)
        result.append(Figure(f'  {count:,} against {FEW}, {kind}', ratio, '', RATIO_BAR))
    return result


def runs(many: Host, times: int) -> list[Figure]:
    used = many.images[:IN_USE]
    sweep = Spent()
    kinds = {'first run of a process': Spent(), 'later run': Spent()}
    steps = {kind: Steps() for kind in kinds}
    log = logging.getLogger(maintenance.__name__)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    for _ in range(times):
        manager = Manager(many.site.conf)
        sweep.time(manager.clean_up)
        for kind, spent in kinds.items():
            log.addHandler(steps[kind])
            spent.time(functools.partial(manager.maintenance.run, used, DAY))
            log.removeHandler(steps[kind])
    seconds = [each / 1000 for each in sweep.wall]
    result = [Figure.median(f'sweep at the start, {len(many.images):,} caches', seconds, 's')]
    for kind, spent in kinds.items():
        for name, samples, bar in (
            (f'{kind}, {len(many.images):,} caches', spent.wall, RUN_BAR_SECONDS),
            ('  on a processor', spent.processor, None),
        ):
            result.append(Figure.median(name, [each / 1000 for each in samples], 's', bar))
        for step, samples in steps[kind].spent.items():
            result.append(Figure.median(f'  of it, {step}', samples, 'ms'))
    return result


def measure(args: argparse.Namespace) -> list[Figure]:
    with rig.folders(args.folder) as where:
        base = where.data / 'base.raw'
        rig.make_disk(base, 4 * rig.GIB, [(0, rig.MIB)])
        few, many = (Host(where, base, count) for count in (FEW, args.caches))
        time.sleep(SETTLED_SECONDS)
        return [
            *plans(few, many, args.plans),
            *listings(few, many, max(1, args.plans // 10)),
            *runs(many, args.n),
            *evictions(few, many, EVICTIONS),  # last: what they remove may be what boots
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('-n', type=int, default=3, help='periodic runs of each kind (3)')
    parser.add_argument('--plans', type=int, default=400, help='plans of each kind (400)')
    parser.add_argument('--caches', type=int, default=5000, help='caches of the host (5000)')
    return figures.run(parser, measure)


if __name__ == '__main__':
    sys.exit(main())
