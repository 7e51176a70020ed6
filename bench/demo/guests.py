# SPDX-License-Identifier: Apache-2.0
"""Real guests: boots of one image on one host with one cache.

plain   overlay <- base (only where there is KVM)
record  overlay <- recorder; the guest stays up until its cache is sealed
play    overlay <- cache <- base
play3   the same with three guests at once (only where there is KVM)
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import contextlib
from contextlib import AbstractContextManager
from pathlib import Path
import subprocess
import time
from typing import Any
import uuid

from block_chains import Chain
from block_chains import nbd_socket
from block_chains import overlay
from block_chains import sealed_cache
from qemu_guest import BOOTED
from qemu_guest import Guest

from bench.compare import blocks
from bench.compare.network import BaseServer
from bench.compare.scene import Scene
from bench.compare.trace import of_log
from bench.compare.trace import Trace
from bench.demo.product import Product
from bench.demo.progress import progress
from bench.demo.report import Boot
from bench.demo.report import MIB

__all__ = ['Guests']

MEMORY_MIB = 512
SEAL_S = 150


class Guests:
    """:param options: those of the command line."""

    def __init__(
        self, scene: Scene, product: Product, accelerator: str, options: argparse.Namespace
    ) -> None:
        self.scene = scene
        self.product = product
        self.accelerator = accelerator
        self.options = options
        self.image_id = str(uuid.uuid4())
        self.boots: list[Boot] = []
        self.trace = Trace([])
        """What the recording guest read until the end of its boot."""

    def plain(self) -> None:
        """Boot without a cache."""
        with self._base() as base, self._booted('plain', base, self._chain(base)):
            pass

    def record(self) -> Path:
        """Boot through the recorder, seal the cache and return its file.

        Sealed by hand: a guest that is emulated on a busy machine may read nothing for longer than
        any pause that should end a recording.
        """
        with self._base() as base, self.scene.host(base) as host:
            recorder = self.product.json('record', self.image_id, *self._base_options(base))
            self._plan(base, 'RECORD')
            # Between guest and recorder stands what notes each read of the guest.
            socket, log = host.sockets / 'tap', host.folder / 'tap.log'
            command = ['nbdkit', '-f', '-r', '-U', socket, '--filter=log', 'nbd']
            target = [f'socket={recorder["socket"]}', f'export={recorder["export"]}']
            host.wait_for(socket, host.start([*command, *target, f'logfile={log}']))
            with self._booted('record', base, nbd_socket(socket, 'recorder')):
                self.trace = of_log(log.read_text())
                with progress('record: the guest runs on, then the cache is sealed'):
                    time.sleep(self.options.idle)
                    self.product.text('seal', self.image_id, '--wait', timeout_s=SEAL_S)
            self._note_cache()
            return Path(self._plan(base, 'PLAY')['cache'])

    def play(self, name: str, guests: int) -> None:
        """Boot guests from the sealed cache."""
        with self._base() as base:
            cache = self._plan(base, 'PLAY')['cache']
            with self._booted(name, base, sealed_cache(cache, self._chain(base)), guests):
                self._note_cache()

    def _base(self) -> AbstractContextManager[BaseServer]:
        return self.scene.base(self.options.rate, self.options.delay)

    @contextlib.contextmanager
    def _booted(
        self, name: str, base: BaseServer, chain: Chain, guests: int = 1
    ) -> Iterator[None]:
        """Start guests on `chain`, note the figures at the end of their boot; end them after."""
        folder = self.scene.where.data
        with contextlib.ExitStack() as stack:
            started = []
            for number in range(guests):
                disk = folder / f'{name}-{number}.qcow2'
                create_overlay(disk, base.reference(self.scene.export))
                guest = Guest(
                    f'{name}-{number}',
                    blockdevs=overlay(disk, chain),
                    drive='overlay',
                    accel=self.accelerator,
                    memory_mib=MEMORY_MIB,
                    console_file=folder / f'{name}-{number}.console',
                )
                stack.callback(disk.unlink)
                started.append(stack.enter_context(guest))

            def so_far() -> str:
                ready = sum(guest.seen(BOOTED) for guest in started)
                text = f'{base.asked()[1] / MIB:.1f} MiB from the base'
                return text if guests == 1 else f'{text}, {ready} of {guests} up'

            deadline = time.monotonic() + self.options.boot_timeout * guests
            with progress(f'{name}: booting under {self.accelerator}', so_far):
                seconds = max(
                    guest.wait_for(BOOTED, max(0.0, deadline - time.monotonic()))
                    for guest in started
                )
                requests, size = base.asked()
            self.boots.append(Boot(name, guests, seconds, size, requests))
            yield

    def _plan(self, base: BaseServer, wanted: str) -> dict[str, Any]:
        """Ask nova-qcache how to boot, and insist on the answer."""
        plan = self.product.json('plan', self.image_id, *self._base_options(base))
        if plan['kind'] != wanted:
            raise RuntimeError(f'nova-qcache plans {plan["kind"]}, not {wanted}: {plan["reason"]}')
        return plan

    def _note_cache(self) -> None:
        """Complete the figures of the last boot with those of the cache."""
        shown = self.product.json('show', self.image_id)
        self.boots[-1].cache_bytes = shown['cache_bytes']
        self.boots[-1].quota_bytes = shown['quota_bytes']

    def _chain(self, base: BaseServer) -> Chain:
        """Return the blockdevs of the base."""
        return blocks.separate(base.node(self.scene.export), {})

    def _base_options(self, base: BaseServer) -> list[str]:
        """Return what names the base to nova-qcache."""
        return ['--base', base.reference(self.scene.export), '--base-format', 'raw']


def create_overlay(path: Path, base_uri: str) -> None:
    """Create a guest's disk as Nova does: its metadata names the base, never a cache."""
    command = ['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', base_uri, str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)
