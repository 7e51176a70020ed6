# SPDX-License-Identifier: Apache-2.0
"""How long a boot waits for nova-qcache: for a new recorder, and for the plan of a READY cache.

``start``: from Boots.record() of an image that was never seen, as nova-compute calls it, until a
guest has read its first sector over the recorder's socket. The start of the recorder's process and
of its daemon is in it. Everything is in the page cache. ``plan``: one Boots.plan() of a READY
cache of 76 MiB, in process, after its base was touched, as Nova does at every boot. "On a
processor" is what recorder, daemon and their tools have used until then; the rest is waiting, also
for other processes.
"""

import argparse
import pathlib
import subprocess
import sys
import time

import figures
from figures import Figure
from nbd_tools import connect
from nbd_tools import load
from nbd_tools import uri
import rig

from nova_qcache.model.plan import Boot

START_BAR_MS = 500
PLAN_BAR_MS = 5
CACHE_MIB = 76  # what a boot reads


def starts(site: rig.Site, base: pathlib.Path, times: int) -> list[Figure]:
    whole: list[float] = []
    served: list[float] = []
    processor: list[float] = []
    for turn in range(times + 1):
        image_id = rig.image_id()
        began = time.perf_counter()
        plan = site.manager.boots.record(image_id, str(base), 'raw')
        serves = time.perf_counter()
        connect(plan.socket)
        if turn:  # the first one warms the page cache
            whole.append(1000 * (time.perf_counter() - began))
            served.append(1000 * (serves - began))
            status = site.client(plan).status()
            used = rig.processor_seconds(status.pid) + rig.processor_seconds(status.daemon_pid)
            processor.append(1000 * used)
        site.manager.remove(image_id, force=True)
    return [
        Figure.median('start: recorder to first read', whole, 'ms', START_BAR_MS),
        Figure.median('  of it, Manager.record()', served, 'ms'),
        Figure.median('  of it, on a processor', processor, 'ms'),
    ]


def imports(times: int) -> list[Figure]:
    """What the recorder's Python does before the first line of its main()."""
    samples: dict[str, list[float]] = {'pass': [], 'import nova_qcache.cmd.recorder': []}
    for _ in range(times + 1):
        for code, spent in samples.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, '-c', code], check=True)
            spent.append(1000 * (time.perf_counter() - began))
    bare, whole = (spent[1:] for spent in samples.values())
    pure = [one - other for one, other in zip(whole, bare, strict=True)]
    return [
        Figure.median('  of it, starting Python', bare, 'ms'),
        Figure.median('  of it, importing', pure, 'ms'),
    ]


def plans(site: rig.Site, base: pathlib.Path, times: int) -> list[Figure]:
    image_id = rig.image_id()
    plan = site.manager.boots.record(image_id, str(base), 'raw')
    size = CACHE_MIB * rig.MIB
    load(uri(plan.socket), base, '--clients', 1, '--order', 'sequential', '--bytes', size)
    site.manager.seal(image_id, wait_seconds=60)
    spent = []
    for _ in range(times + 1):
        base.touch()
        began = time.perf_counter()
        plan = site.manager.boots.plan(Boot(image_id, str(base), 'raw'))
        spent.append(1000 * (time.perf_counter() - began))
        if plan.kind.value != 'PLAY':
            raise rig.BenchError(f'the plan is {plan.kind.value}: {plan.reason}')
    site.manager.remove(image_id, force=True)
    return [Figure.median('plan: READY cache', spent[1:], 'ms', PLAN_BAR_MS)]


def measure(args: argparse.Namespace) -> list[Figure]:
    with rig.folders(args.folder) as where:
        base = where.data / 'base.raw'
        rig.make_disk(base, 4 * rig.GIB, [(0, 128 * rig.MIB)])
        site = rig.Site(where, 'start')
        return [
            *starts(site, base, args.n),
            *imports(args.n),
            *plans(site, base, args.plans),
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('-n', type=int, default=20, help='starts (20)')
    parser.add_argument('--plans', type=int, default=200, help='plans (200)')
    return figures.run(parser, measure)


if __name__ == '__main__':
    sys.exit(main())
