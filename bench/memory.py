# SPDX-License-Identifier: Apache-2.0
"""Resident memory of a recorder and its daemon while 8 guests read through them.

The sum of RSS, and of PSS (which divides shared pages among their users), of both processes from
/proc/PID/smaps_rollup, sampled all the time; the figures are the largest of each run. Every run
has a new recorder, and its guests read what holds data. What is in flight is qemu's own: its NBD
server has a buffer for each request, so guests x depth x size is the least that a run can take.
"""

import argparse
from collections.abc import Sequence
import pathlib
import subprocess
import sys
import time

import figures
from figures import Figure
import nbd_tools
import rig

BAR_MIB = 150
QUOTA_MIB = 512
LARGE = 40 * rig.GIB
RUNS = (
    ('1 x 128 KiB', 1, 131072),
    ('4 x 128 KiB', 4, 131072),
    ('16 x 128 KiB', 16, 131072),
    ('16 x 1 MiB', 16, rig.MIB),
)
"""Depth and size of the requests of each guest."""


def resident(pid: int) -> dict[str, int]:
    """Rss and Pss of a process, in bytes; nothing of one that has ended."""
    try:
        text = pathlib.Path(f'/proc/{pid}/smaps_rollup').read_text()
    except OSError:
        return {'Rss': 0, 'Pss': 0}
    rows = (line.split() for line in text.splitlines()[1:])
    return {row[0].rstrip(':'): int(row[1]) * 1024 for row in rows if row[0] in ('Rss:', 'Pss:')}


class Peak:
    """The largest sums seen."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self.rss = self.pss = self.samples = 0
        self.parts: tuple[int, ...] = ()

    def sample(self) -> None:
        found = [resident(pid) for pid in self._pids]
        self.samples += 1
        self.pss = max(self.pss, sum(each['Pss'] for each in found))
        rss = tuple(each['Rss'] for each in found)
        if sum(rss) > self.rss:
            self.rss, self.parts = sum(rss), rss

    def watch(self, load: 'subprocess.Popen[str]') -> None:
        while load.poll() is None:
            self.sample()
            time.sleep(0.01)


def run(
    where: rig.Folders, name: str, base: pathlib.Path, clients: int, depth: int, size: int
) -> list[Figure]:
    site = rig.Site(where, f'r{abs(hash(name)) % 10**6}', quota=QUOTA_MIB)
    plan = site.manager.boots.record(rig.image_id(), str(base), 'raw')
    status = site.client(plan).status()
    peak = Peak((status.pid, status.daemon_pid))
    peak.sample()
    idle = peak.rss
    load = nbd_tools.start_load(
        nbd_tools.uri(plan.socket),
        base,
        *('--clients', clients, '--depth', depth, '--size', size, '--data-only'),
        *('--bytes', 3 * QUOTA_MIB * rig.MIB // 2 // clients),
    )
    try:
        peak.watch(load)
    finally:
        counts = nbd_tools.finish_load(load)
    if counts['errors'] or counts['wrong']:
        raise rig.BenchError(f'{name}: {counts}')
    time.sleep(1)
    after = sum(resident(pid)['Rss'] for pid in (status.pid, status.daemon_pid))
    site.manager.remove(plan.image_id, force=True)
    result = [
        Figure('RSS MiB', peak.rss / rig.MIB, '', BAR_MIB),
        Figure('PSS MiB', peak.pss / rig.MIB, ''),
        Figure('recorder MiB', peak.parts[0] / rig.MIB, ''),
        Figure('daemon MiB', peak.parts[1] / rig.MIB, ''),
        Figure('idle MiB', idle / rig.MIB, ''),
        Figure('1 s after MiB', after / rig.MIB, ''),
        Figure('in flight MiB', clients * depth * size / rig.MIB, ''),
        Figure('samples', peak.samples, ''),
    ]
    return [figure.of(name) for figure in result]


def measure(args: argparse.Namespace) -> list[Figure]:
    result = []
    with rig.folders(args.folder) as where:
        small = where.data / 'small.raw'
        rig.make_disk(small, rig.GIB, [(0, rig.GIB)])
        large = where.data / 'large.raw'
        # A stretch of data here and there, so that tables of the whole disk are in use.
        step = LARGE // 640
        rig.make_disk(large, LARGE, [(at, 2 * rig.MIB) for at in range(0, LARGE, step)])
        for size_name, base in (('1 GiB', small), ('40 GiB', large)):
            for shape, depth, size in RUNS:
                name = f'{size_name}, {args.clients} x {shape}'
                result += run(where, name, base, args.clients, depth, size)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--clients', type=int, default=8, help='guests (8)')
    return figures.run(parser, measure)


if __name__ == '__main__':
    sys.exit(main())
