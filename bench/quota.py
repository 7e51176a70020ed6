# SPDX-License-Identifier: Apache-2.0
"""Is the quota hard, and do guests never notice?

8 guests with 16 reads of 1 MiB in flight each read a disk through a recorder whose quota is a
fraction of it, so that the quota is crossed at full speed; every read is compared with the base.
Meanwhile the size and the allocated bytes of the cache file are sampled as fast as it goes (its
length never shrinks, so its last sample is exact). Then the sealed cache is played and compared.

crossing      as it is
stopped       the recorder is stopped (SIGSTOP) before the reads: only the kernel's limit is left
full          the cache is on a tmpfs that has not one free byte once the quota is reserved
unreserved    the same, but 8 MiB are free and the reservation is taken away, so that writes of the
              cache fail from then on
guests        120 guests stay connected at the same time
"""

import argparse
from collections.abc import Iterator
import contextlib
import os
import pathlib
import select
import signal
import subprocess
import sys
import threading
import time

import figures
from figures import Figure
import nbd_tools
import rig

from nova_qcache.exception import QcacheError
from nova_qcache.model.plan import Plan
from nova_qcache.model.states import State

SEAL_SECONDS = 60
BURST = ('--clients', 8, '--depth', 16, '--size', rig.MIB)


class Sampler:
    """Watches a file, whatever its name becomes, in a thread."""

    def __init__(self, path: pathlib.Path) -> None:
        self._fd = os.open(path, os.O_PATH)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.size = self.allocated = self.samples = 0
        self.gap = 0.0
        """The longest time between two samples, in seconds."""

    def __enter__(self) -> 'Sampler':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._fd)

    def _run(self) -> None:
        last = time.perf_counter()
        while not self._stop.is_set():
            facts = os.fstat(self._fd)
            self.size = max(self.size, facts.st_size)
            self.allocated = max(self.allocated, facts.st_blocks * 512)
            now = time.perf_counter()
            self.gap = max(self.gap, now - last)
            last = now
            self.samples += 1
            time.sleep(0.0002)


@contextlib.contextmanager
def tmpfs(folder: pathlib.Path, size: int) -> Iterator[pathlib.Path]:
    folder.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', f'size={size},mode=755', 'qcache-bench', str(folder)]
    subprocess.run(command, check=True)
    try:
        yield folder
    finally:
        subprocess.run(['umount', '--lazy', str(folder)], check=True)


def fill(folder: pathlib.Path, but: int = 0) -> None:
    """Leave no free byte, or so many."""
    facts = os.statvfs(folder)
    command = ['fallocate', '--length', str(facts.f_bfree * facts.f_frsize - but)]
    subprocess.run([*command, str(folder / 'filler')], check=True)
    facts = os.statvfs(folder)
    if facts.f_bfree * facts.f_frsize != but:
        raise rig.BenchError(f'{facts.f_bfree} blocks of {folder} are free')


class Quota:
    def __init__(self, args: argparse.Namespace, where: rig.Folders) -> None:
        self.args = args
        self.where = where
        self.quota = args.quota * rig.MIB
        self.base = where.data / 'base.raw'
        rig.make_disk(self.base, 5 * self.quota, [(0, 5 * self.quota)])

    def site(self, name: str, **options: object) -> rig.Site:
        if self.args.cluster_size:
            options['cluster_size'] = self.args.cluster_size
        return rig.Site(self.where, name, quota=self.args.quota, **options)

    def summary(self, found: list[Figure]) -> list[Figure]:
        def most(name: str) -> float:
            return max(figure.value for figure in found if figure.name == name)

        return [
            Figure('quota: largest size of a file', most('largest size'), 'bytes', self.quota),
            Figure(
                'quota: allocation beyond it',
                max(0, most('largest allocation') - self.quota),
                'bytes',
                note='the file system counts blocks of its own tables, too',
            ),
            Figure('quota: reads with errors', most('errors'), '', 0),
            Figure('quota: reads with wrong bytes', most('wrong reads'), '', 0),
        ]

    def burst(
        self, name: str, site: rig.Site, *, stopped: bool = False, unreserved: bool = False
    ) -> list[Figure]:
        plan = site.manager.boots.record(rig.image_id(), str(self.base), 'raw')
        path = site.paths.recording(site.key(plan))
        if unreserved:
            os.truncate(path, path.stat().st_size)
            fill(site.cache_path, 8 * rig.MIB)
        elif site.cache_path.is_mount():
            fill(site.cache_path)
        recorder = site.client(plan).status().pid
        with Sampler(path) as sampler:
            if stopped:
                os.kill(recorder, signal.SIGSTOP)
            try:
                counts = nbd_tools.load(
                    nbd_tools.uri(plan.socket), self.base, *BURST, '--bytes', 2 * self.quota
                )
            finally:
                os.kill(recorder, signal.SIGCONT)
            reached = path.stat().st_size if path.exists() else 0
            if unreserved:  # it never reaches its quota
                with contextlib.suppress(QcacheError):
                    site.manager.seal(plan.image_id, wait_seconds=SEAL_SECONDS)
            state = self.end(site, plan)
        result = [
            Figure('largest size', sampler.size, '', self.quota),
            Figure('largest allocation', sampler.allocated, ''),
            Figure('MiB read', counts['bytes'] // rig.MIB, ''),
            Figure('errors', counts['errors'], '', 0),
            Figure('wrong reads', counts['wrong'], '', 0),
            Figure('samples', sampler.samples, ''),
            Figure('longest gap ms', 1000 * sampler.gap, ''),
            Figure('not READY', int(state is not State.READY), '', None if unreserved else 0),
        ]
        if stopped:
            result.append(Figure('size while stopped', reached, ''))
        if state is State.READY:
            result += self.played(site, plan)
            site.manager.remove(plan.image_id, force=True)
        return [figure.of(name) for figure in result]

    def end(self, site: rig.Site, plan: Plan) -> State:
        """Wait until the recording has become something; all guests are gone."""
        deadline = time.monotonic() + SEAL_SECONDS
        while time.monotonic() < deadline:
            views = site.manager.caches(plan.image_id)
            if not views or views[-1].record is None:
                return State.COLD
            if views[-1].record.state is not State.RECORDING:
                return views[-1].record.state
            time.sleep(0.05)
        raise rig.BenchError(f'nothing has become of the recording in {SEAL_SECONDS} s')

    def played(self, site: rig.Site, plan: Plan) -> list[Figure]:
        cache = nbd_tools.chain(nbd_tools.file_node(site.sealed(plan)), 'base')
        below = {**nbd_tools.raw(nbd_tools.file_node(self.base)), 'node-name': 'base'}
        with nbd_tools.export(self.where, below, cache) as uri:
            counts = nbd_tools.load(uri, self.base, *BURST)
        return [
            Figure('sealed size', site.sealed(plan).stat().st_size, '', self.quota),
            Figure('wrong when played', counts['wrong'] + counts['errors'], '', 0),
        ]

    def guests(self, name: str, count: int) -> list[Figure]:
        site = self.site(name)
        plan = site.manager.boots.record(rig.image_id(), str(self.base), 'raw')
        load = nbd_tools.start_load(
            nbd_tools.uri(plan.socket),
            self.base,
            *('--clients', count, '--depth', 1, '--size', 65536, '--bytes', rig.MIB),
            *('--hold', 3600),
        )
        try:
            assert load.stderr is not None
            if not select.select([load.stderr], [], [], 300)[0]:
                raise rig.BenchError(f'{count} guests have not read in 300 s')
            load.stderr.readline()  # "holding"
            connected = site.client(plan).status().guests
            nbd_tools.connect(plan.socket)  # one more
            load.send_signal(signal.SIGTERM)
        except BaseException:
            load.kill()
            raise
        counts = nbd_tools.finish_load(load)
        site.manager.remove(plan.image_id, force=True)
        result = [
            Figure('connected', connected, ''),
            Figure('not connected', count - connected, '', 0),
            Figure('MiB read', counts['bytes'] // rig.MIB, ''),
            Figure('errors', counts['errors'], '', 0),
            Figure('wrong reads', counts['wrong'], '', 0),
        ]
        return [figure.of(name) for figure in result]


def measure(args: argparse.Namespace) -> list[Figure]:
    with rig.folders(args.folder) as where:
        quota = Quota(args, where)
        result = quota.burst('crossing', quota.site('crossing'))
        result += quota.burst('stopped', quota.site('stopped'), stopped=True)
        if os.geteuid() == 0:
            for name in ('full', 'unreserved'):
                room = quota.quota + 16 * rig.MIB
                with tmpfs(where.data / name, room) as cache_path:
                    site = quota.site(name, cache_path=cache_path, min_free=0)
                    result += quota.burst(name, site, unreserved=name == 'unreserved')
        else:
            print('Only root can mount a tmpfs: "full" and "unreserved" are left out.')
        result += quota.guests('guests', args.guests)
        return [*quota.summary(result), *result]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quota', type=int, default=100, metavar='MIB', help='quota (100)')
    parser.add_argument('--cluster-size', type=int, metavar='BYTES', help='(as configured)')
    parser.add_argument('--guests', type=int, default=120, help='connected guests (120)')
    return figures.run(parser, measure)


if __name__ == '__main__':
    sys.exit(main())
