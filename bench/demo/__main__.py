# SPDX-License-Identifier: Apache-2.0
"""Show what nova-qcache does; tools/demo.sh calls this.

The story is that of an image: stock Nova's copy of it, one guest that records, one that plays, and
then the reads of that boot through each chain, which is all that a machine without KVM can time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import contextlib
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from types import FrameType

from qemu_guest import BOOTED
from qemu_guest import Guest
from qemu_guest import GuestError

from bench import rig
from bench.compare.network import network
from bench.compare.sample import Sample
from bench.compare.scene import Scene
from bench.demo import picture
from bench.demo import replays
from bench.demo.guests import Guests
from bench.demo.product import Product
from bench.demo.progress import progress
from bench.demo.progress import say
from bench.demo.report import Boot
from bench.demo.report import Findings
from bench.demo.report import MIB
from bench.demo.report import replays_of

KVM_PROBE_S = 10
ROUNDS = 5
SEED = 1  # of the order in each round
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def choose_accelerator(wanted: str, small: Path) -> str:
    """Return ``kvm`` if the small guest really boots under it, else ``tcg``."""
    if wanted != 'auto':
        return wanted
    if not os.access('/dev/kvm', os.R_OK | os.W_OK):
        say('There is no usable /dev/kvm: qemu emulates (tcg).')
        return 'tcg'
    empty = {'driver': 'null-co', 'node-name': 'empty', 'size': MIB, 'read-zeroes': True}
    with progress(f'trying a small guest under KVM for {KVM_PROBE_S} s at most'):
        try:
            with Guest(
                'kvm-probe',
                blockdevs=[empty],
                drive='empty',
                kernel=small / 'vmlinuz',
                initrd=small / 'initrd',
                accel='kvm',
            ) as guest:
                guest.wait_for(BOOTED, KVM_PROBE_S)
                accelerator = 'kvm'
        except GuestError:
            accelerator = 'tcg'
    if accelerator == 'tcg':
        say('It did not boot under KVM: qemu emulates (tcg).')
    return accelerator


def rate(text: str) -> str:
    if not re.fullmatch(r'[1-9]\d*(\.\d+)?[KMG]?', text):
        raise argparse.ArgumentTypeError(
            f'"{text}" is no number of bits per second, as 100M or 1G'
        )
    return text


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog='demo.sh', description='Show what nova-qcache does.')
    hidden = argparse.SUPPRESS
    for name in ('--image', '--small', '--work'):
        parser.add_argument(name, type=Path, required=True, help=hidden)
    parser.add_argument('--program', default='nova-qcache', help=hidden)
    parser.add_argument(
        '--rate', type=rate, default='1G', help='network speed, bits per second (1G)'
    )
    parser.add_argument(
        '--delay', type=int, default=0, help='delay of the requests of real guests, ms (0)'
    )
    parser.add_argument('--quota', type=int, default=128, help='quota of a cache, MiB (128)')
    parser.add_argument(
        '--idle', type=int, default=5, help='the recording guest runs on so long, seconds (5)'
    )
    parser.add_argument(
        '--boot-timeout', type=int, default=900, help='deadline of a boot, seconds (900)'
    )
    parser.add_argument('--accel', choices=('auto', 'kvm', 'tcg'), default='auto')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there, too')
    parser.add_argument('--png', type=Path, metavar='FILE', help='the picture (WORK/demo.png)')
    parser.add_argument(
        '--trace', type=Path, metavar='FILE', help='reads of the boot (WORK/boot.trace)'
    )
    parser.add_argument('--keep', action='store_true', help='keep caches, consoles and logs')
    options = parser.parse_args(arguments)
    options.png = options.png or options.work / 'demo.png'
    options.trace = options.trace or options.work / 'boot.trace'
    return options


def run(options: argparse.Namespace, where: rig.Folders) -> None:
    """Run the demo and report; whatever it starts has ended when it returns or raises."""
    product = Product(
        options.program,
        cache_path=where.data / 'cache',
        run_path=where.sockets / 'run',
        quota_mib=options.quota,
        longest_s=2 * options.boot_timeout,
    )
    product.text('list')  # fails now rather than after minutes
    accelerator = choose_accelerator(options.accel, options.small)
    images = where.data / 'images'
    images.mkdir()
    (images / 'image').symlink_to(options.image.resolve())
    samples: list[Sample] = []
    with network() as link:
        scene = Scene(where, link, images / 'image', samples.append, SEED)
        copy = replays.copied(scene, options.rate)
        guests = Guests(scene, product, accelerator, options)
        try:
            if accelerator == 'kvm':
                guests.plain()
            cache = guests.record()
            guests.play('play', 1)
            if accelerator == 'kvm':
                guests.play('play3', 3)
            guests.trace.write(options.trace)
            traces = replays.traces(guests.trace)
            replays.replay(scene, traces, cache, options.rate, ROUNDS)
            listed = product.text('list').strip()
        finally:
            with contextlib.suppress(RuntimeError, OSError):
                product.text('remove', guests.image_id)
    found = replays_of(samples, traces)
    boots = guests.boots
    if accelerator != 'kvm':
        boots = [Boot('plain', 1, None, *found[0].asked('plain')), *boots]
    findings = Findings(accelerator, options.rate, copy, boots, found)
    print(findings.table())
    if options.json:
        options.json.write_text(findings.as_json())
    picture.draw(findings, options.png)
    print(f'\nPicture: {options.png}\nReads of the recording guest: {options.trace}')
    print(f'\nnova-qcache list:\n{listed}')


def interrupted(number: int, frame: FrameType | None) -> None:
    """Turn the first signal into an exception, so that all is undone, and ignore the others."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Return the exit status."""
    options = parse(arguments)
    for number in SIGNALS:
        signal.signal(number, interrupted)
    options.work.mkdir(parents=True, exist_ok=True)
    where = rig.Folders(
        Path(tempfile.mkdtemp(prefix='demo-', dir=options.work)),
        Path(tempfile.mkdtemp(prefix='qcd-', dir='/tmp')),
    )
    try:
        run(options, where)
        return 0
    except (
        GuestError,
        rig.BenchError,
        RuntimeError,
        OSError,
        ImportError,
        subprocess.SubprocessError,
    ) as error:
        say(f'error: {error}')
        return 1
    except KeyboardInterrupt:
        say('interrupted')
        return 130
    finally:
        rig.end_processes(where.data, where.sockets)
        shutil.rmtree(where.sockets, ignore_errors=True)
        if options.keep:
            say(f'caches, consoles and logs: {where.data}')
        else:
            shutil.rmtree(where.data, ignore_errors=True)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
