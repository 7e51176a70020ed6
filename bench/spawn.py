# SPDX-License-Identifier: Apache-2.0
"""Stock Nova and the driver of nova-qcache side by side, on one OpenStack, in one run.

Two figures. What the driver adds to a spawn with a READY cache: the time between two lines of
nova-compute's log, in blocks that take turns. And what a user sees: seconds from "server create"
to the guest's word that it is up, for the first, second and third server of an image whose base
is read at a limited rate. Called by spawn.sh, with the Python of the stack.
"""

import argparse
from collections.abc import Iterator
import contextlib
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tools' / 'openstack'), str(ROOT / 'tools' / 'guest')]

from qcache_stack.stack import Stack  # noqa: E402

from tests.openstack.cloud import Cloud  # noqa: E402
from tests.openstack.cloud import Server  # noqa: E402
from tests.openstack.compute import ComputeHost  # noqa: E402

DRIVERS = ('stock', 'qcache')
BAR_MS = 50
BLOCK = 5
_TIME = r'(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})'
_BEGIN = re.compile(_TIME + r'.*instance: (\S+)\] Creating image\(s\)')
_END = re.compile(_TIME + r'.*instance: (\S+)\] Instance spawned successfully')


def halting_disk(folder: pathlib.Path) -> pathlib.Path:
    """Make a disk whose boot sector halts the processor: a guest that costs the host nothing."""
    sector = bytearray(512)
    sector[:4] = b'\xfa\xf4\xeb\xfc'  # cli; hlt; jmp to the hlt
    entry = bytes([0x80, 0, 2, 0, 0x83, 0, 2, 0]) + (1).to_bytes(4, 'little')
    sector[446:462] = entry + (1024).to_bytes(4, 'little')
    sector[510:] = b'\x55\xaa'
    path = folder / 'halts.raw'
    with open(path, 'wb') as file:
        file.write(sector)
        file.truncate(16 << 20)
    return path


def spawn_ms(log: str, server: Server) -> float:
    """Return the milliseconds that nova-compute's driver took for a server."""
    times = {}
    for name, pattern in (('begin', _BEGIN), ('end', _END)):
        found = [when for when, identity in pattern.findall(log) if identity == server.id]
        times[name] = datetime.datetime.fromisoformat(found[-1])
    return (times['end'] - times['begin']).total_seconds() * 1000


def measure_spawns(cloud: Cloud, host: ComputeHost, image: str, rounds: int) -> dict[str, Any]:
    """Spawn servers of a READY image, the drivers taking turns."""
    found: dict[str, list[float]] = {driver: [] for driver in DRIVERS}
    for block in range(max(1, rounds // BLOCK)):
        for driver in DRIVERS if block % 2 == 0 else reversed(DRIVERS):
            host.stack.restart('nova-compute', driver=driver)
            for number in range(BLOCK + 1):
                server = cloud.boot(image, 'tiny')
                if number:  # the first one after a start pays for what is loaded late
                    assert host.kind(server) == ('PLAY' if driver == 'qcache' else 'PLAIN')
                    found[driver].append(spawn_ms(host.nova_log(), server))
                cloud.end_test()
    medians = {driver: statistics.median(values) for driver, values in found.items()}
    return {
        'spawns_ms': found,
        'median_ms': medians,
        'added_ms': medians['qcache'] - medians['stock'],
        'bar_ms': BAR_MS,
    }


@contextlib.contextmanager
def uploaded(cloud: Cloud, path: pathlib.Path) -> Iterator[str]:
    image = cloud.upload(path)
    try:
        yield image
    finally:
        cloud.end_test()
        cloud.api.image.delete_image(image)


def seconds_to_boot(cloud: Cloud, host: ComputeHost, image: str) -> tuple[float, float]:
    """Return the seconds from create to the guest's word, and the MiB read from the base."""
    bytes_before, begun = host.base_bytes(), time.monotonic()
    server = cloud.boot(image, 'tiny', wait='')
    console = host.instances / server.id / 'console.log'
    while time.monotonic() - begun < 300:
        with contextlib.suppress(OSError):
            if b'QCACHE booted' in console.read_bytes():
                seconds = time.monotonic() - begun
                server.wait_for('ACTIVE')
                return seconds, (host.base_bytes() - bytes_before) / 2**20
        time.sleep(0.02)
    raise TimeoutError(f'server {server.id} has not booted')


def measure_boots(
    cloud: Cloud, host: ComputeHost, disk: pathlib.Path, rounds: int
) -> list[dict[str, Any]]:
    found = []
    for number in range(rounds):
        for driver in DRIVERS if number % 2 == 0 else reversed(DRIVERS):
            host.stack.restart('nova-compute', driver=driver)
            with uploaded(cloud, disk) as image:
                for nth in (1, 2, 3):
                    seconds, mib = seconds_to_boot(cloud, host, image)
                    found.append(
                        {
                            'driver': driver,
                            'server': nth,
                            'seconds': seconds,
                            'base_mib': mib,
                        }
                    )
                    if driver == 'qcache' and nth == 1:
                        host.qcache('seal', '--wait', image)
                cloud.end_test()
                if driver == 'qcache':
                    host.wait_until_clean()
                    host.forget(image)
    return found


def report(result: dict[str, Any]) -> None:
    spawns = result['spawns']
    print(f'\nA spawn with a READY cache, ms (median of {len(spawns["spawns_ms"]["stock"])} each)')
    for driver in DRIVERS:
        values = spawns['spawns_ms'][driver]
        median = spawns['median_ms'][driver]
        print(f'  {driver:8} {median:8.0f}   ({min(values):.0f} to {max(values):.0f})')
    added = spawns['added_ms']
    verdict = 'within' if added <= BAR_MS else 'MISSES'
    print(f'  added    {added:8.0f}   {verdict} the bar of {BAR_MS}')
    print('\nFrom "server create" to the guest\'s word, and MiB read from the base (medians)')
    print('  server        stock             qcache')
    for nth in (1, 2, 3):
        cells = []
        for driver in DRIVERS:
            rows = [
                row for row in result['boots'] if row['server'] == nth and row['driver'] == driver
            ]
            seconds = statistics.median(row['seconds'] for row in rows)
            mib = statistics.median(row['base_mib'] for row in rows)
            cells.append(f'{seconds:6.1f} s {mib:6.1f} MiB')
        print(f'  {nth}       {cells[0]}  {cells[1]}')
    print(f'\nload average {result["load"]}, base at {result["base_rate"]} bytes/s')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--state', required=True)
    parser.add_argument('--spawns', type=int, default=20)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--disks', type=pathlib.Path, required=True)
    parser.add_argument('--json', type=pathlib.Path)
    arguments = parser.parse_args()
    os.environ['QCACHE_OPENSTACK'] = arguments.state
    stack = Stack.load()
    cloud, host = Cloud(stack), ComputeHost(stack)
    try:
        with tempfile.TemporaryDirectory(prefix=f'spawn-{uuid.uuid4().hex[:6]}-') as folder:
            image = cloud.upload(halting_disk(pathlib.Path(folder)))
        stack.restart('nova-compute', driver='qcache')
        cloud.boot(image, 'tiny')
        host.qcache('seal', '--wait', image)
        cloud.end_test()
        result = {
            'spawns': measure_spawns(cloud, host, image, arguments.spawns),
            'boots': measure_boots(cloud, host, arguments.disks / 'calm.raw', arguments.rounds),
            'base_rate': stack.options.base_rate,
            'load': [round(value, 1) for value in os.getloadavg()],
            'machine': platform.uname()._asdict(),
            'qemu': subprocess.check_output(['qemu-img', '--version'], text=True).splitlines()[0],
        }
        host.wait_until_clean()
        host.forget(image)
    finally:
        cloud.end_test()
        cloud.end_session()
    report(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
