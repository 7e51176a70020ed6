# SPDX-License-Identifier: Apache-2.0
"""Boot one image plainly, recording, and from its cache; measure what the base had to give.

tools/demo.sh calls this.  Four measurements, each with a fresh nbdkit that serves the same raw
disk at the speed of a network, always under the same URI:

plain   overlay <- base
record  overlay <- recorder; the guest stays up until the cache is sealed
play    overlay <- cache <- base
play3   the same with three guests at once
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from types import FrameType
from typing import Any
import uuid

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'tools' / 'guest'))

from block_chains import Chain
from block_chains import nbd_socket
from block_chains import overlay
from block_chains import sealed_cache
from demo_base import BaseServer
from demo_product import end_processes
from demo_product import Product
from demo_progress import progress
from demo_progress import say
from demo_report import as_json
from demo_report import Boot
from demo_report import MIB
from demo_report import picture
from demo_report import table
from qemu_guest import BOOTED
from qemu_guest import Guest
from qemu_guest import GuestError

MEMORY_MIB = 512
KVM_PROBE_S = 15
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Demo:
    """The boots, on one host with one cache.

    :param folder: for overlays, caches and logs.
    :param sockets: a folder with a short path, for all sockets.
    """

    def __init__(self, options: argparse.Namespace, folder: Path, sockets: Path) -> None:
        self.options = options
        self.folder = folder
        self.sockets = sockets
        self.accelerator = 'tcg'
        self.image_id = str(uuid.uuid4())
        self.product = Product(
            options.program,
            cache_path=folder / 'cache',
            run_path=sockets / 'run',
            quota_mib=options.quota,
            idle_s=options.idle,
        )
        self.boots: list[Boot] = []

    @contextlib.contextmanager
    def base(self, name: str) -> Iterator[BaseServer]:
        """Serve the image until the block is left."""
        with BaseServer(
            self.options.image,
            self.sockets / 'base.sock',
            self.folder / f'{name}.log',
            rate=self.options.rate,
            delay_ms=self.options.delay,
        ) as server:
            yield server

    @contextlib.contextmanager
    def booted(
        self, name: str, base: BaseServer, chain: Chain, guests: int = 1
    ) -> Iterator[list[Guest]]:
        """Start guests on `chain`, note the figures at the end of their boot; end them after."""
        with contextlib.ExitStack() as stack:
            started = []
            for number in range(guests):
                disk = self.folder / f'{name}-{number}.qcow2'
                create_overlay(disk, base.uri)
                guest = Guest(
                    f'{name}-{number}',
                    blockdevs=overlay(disk, chain),
                    drive='overlay',
                    accel=self.accelerator,
                    memory_mib=MEMORY_MIB,
                    console_file=self.folder / f'{name}-{number}.console',
                )
                stack.callback(disk.unlink)
                started.append(stack.enter_context(guest))

            def so_far() -> str:
                ready = sum(guest.seen(BOOTED) for guest in started)
                text = f'{base.bytes_read() / MIB:.1f} MiB from the base'
                return text if guests == 1 else f'{text}, {ready} of {guests} up'

            deadline = time.monotonic() + self.options.boot_timeout * guests
            with progress(f'{name}: booting under {self.accelerator}', so_far):
                seconds = max(
                    guest.wait_for(BOOTED, max(0.0, deadline - time.monotonic()))
                    for guest in started
                )
                reads = base.reads()
            self.boots.append(
                Boot(name, guests, seconds, sum(length for _, length in reads), len(reads))
            )
            yield started

    def plain(self) -> None:
        """Boot without a cache, the reference, and keep the order of its reads."""
        with self.base('plain') as base, self.booted('plain', base, self.base_chain()):
            reads = base.reads()
        lines = ['# offset,length of each read of the plain boot, in bytes and in order']
        lines += [f'{offset},{length}' for offset, length in reads]
        self.options.trace.write_text('\n'.join(lines) + '\n')

    def record(self) -> None:
        """Boot through the recorder, wait until the cache is READY, shut the guest down."""
        with self.base('record') as base:
            recorder = self.product.json('record', self.image_id, *self.base_options(base))
            self.plan(base, 'RECORD')
            chain = nbd_socket(recorder['socket'], 'recorder', recorder['export'])
            with self.booted('record', base, chain) as guests:
                with progress('record: waiting for the cache to be sealed'):
                    self.product.wait_ready(self.image_id, self.options.idle + 120)
                with progress('record: shutting the guest down'):
                    guests[0].power_down(timeout_s=120)
            self.note_cache()

    def play(self, name: str, guests: int) -> None:
        """Boot guests from the sealed cache."""
        with self.base(name) as base:
            plan = self.plan(base, 'PLAY')
            chain = sealed_cache(plan['cache'], self.base_chain())
            with self.booted(name, base, chain, guests):
                self.note_cache()

    def plan(self, base: BaseServer, wanted: str) -> dict[str, Any]:
        """Ask nova-qcache how to boot, and insist on the answer."""
        plan = self.product.json('plan', self.image_id, *self.base_options(base))
        if plan['kind'] != wanted:
            raise RuntimeError(f'nova-qcache plans {plan["kind"]}, not {wanted}: {plan["reason"]}')
        return plan

    def note_cache(self) -> None:
        """Complete the figures of the last boot with those of the cache."""
        shown = self.product.json('show', self.image_id)
        self.boots[-1].cache_bytes = shown['cache_bytes']
        self.boots[-1].quota_bytes = shown['quota_bytes']

    def base_chain(self) -> Chain:
        """Return the blockdevs of the base."""
        return nbd_socket(self.sockets / 'base.sock')

    @staticmethod
    def base_options(base: BaseServer) -> list[str]:
        """Return what names the base to nova-qcache."""
        return ['--base', base.uri, '--base-format', 'raw']


def create_overlay(path: Path, base_uri: str) -> None:
    """Create a guest's disk as Nova does: its metadata names the base, never a cache."""
    command = ['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', base_uri, str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)


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


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog='demo.sh', description='Measure boots with nova-qcache.')
    hidden = argparse.SUPPRESS
    for name in ('--image', '--small', '--work'):
        parser.add_argument(name, type=Path, required=True, help=hidden)
    parser.add_argument('--program', default='nova-qcache', help=hidden)
    parser.add_argument('--rate', default='1G', help='network speed, bits per second (1G)')
    parser.add_argument('--delay', type=int, default=0, help='network delay, milliseconds (0)')
    parser.add_argument('--quota', type=int, default=128, help='quota of a cache, MiB (128)')
    parser.add_argument(
        '--idle', type=int, default=15, help='a recording ends after these idle seconds (15)'
    )
    parser.add_argument(
        '--boot-timeout', type=int, default=300, help='deadline of a boot, seconds (300)'
    )
    parser.add_argument('--accel', choices=('auto', 'kvm', 'tcg'), default='auto')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there, too')
    parser.add_argument('--png', type=Path, metavar='FILE', help='the picture (WORK/demo.png)')
    parser.add_argument(
        '--trace', type=Path, metavar='FILE', help='reads of the plain boot (WORK/plain.trace)'
    )
    parser.add_argument('--keep', action='store_true', help='keep caches, consoles and logs')
    options = parser.parse_args(arguments)
    options.png = options.png or options.work / 'demo.png'
    options.trace = options.trace or options.work / 'plain.trace'
    return options


def run(options: argparse.Namespace, folder: Path, sockets: Path) -> None:
    """Run the demo and report; whatever it starts has ended when it returns or raises."""
    demo = Demo(options, folder, sockets)
    try:
        demo.product.text('list')  # fails now rather than after minutes
        demo.accelerator = choose_accelerator(options.accel, options.small)
        demo.plain()
        demo.record()
        demo.play('play', 1)
        demo.play('play3', 3)
        size = options.image.stat().st_size
        print(table(demo.accelerator, options.rate, size, demo.boots))
        if options.json:
            options.json.write_text(as_json(demo.accelerator, options.rate, demo.boots))
        picture(options.png, f'Debian 12 at {options.rate}bit/s, {demo.accelerator}', demo.boots)
        print(f'\nPicture: {options.png}\nReads of the plain boot: {options.trace}')
        print(f'\nnova-qcache list:\n{demo.product.text("list").strip()}')
    finally:
        with contextlib.suppress(RuntimeError, OSError):
            demo.product.text('remove', demo.image_id)


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
    folder = Path(tempfile.mkdtemp(prefix='demo-', dir=options.work))
    sockets = Path(tempfile.mkdtemp(prefix='qcache-demo-'))
    try:
        run(options, folder, sockets)
        return 0
    except (GuestError, RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
        say(f'error: {error}')
        return 1
    except KeyboardInterrupt:
        say('interrupted')
        return 130
    finally:
        end_processes(sockets)
        shutil.rmtree(sockets, ignore_errors=True)
        if options.keep:
            say(f'caches, consoles and logs: {folder}')
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
