# SPDX-License-Identifier: Apache-2.0
"""One guest: the qemu side of a boot, and somebody inside who reads.

:class:`DaemonGuest` is what qemu is under libvirt from 9.2 on: an NBD client with a reconnect
delay below a qcow2 overlay. A qemu-storage-daemon has the very block layer of a qemu and boots in
milliseconds. Another kind of guest has the same methods.
"""

import contextlib
import json
import pathlib
import socket
import subprocess
import time
from typing import Any, Protocol

import psutil

from bench.faults import talk
from tests.functional import users
from tests.functional import waiting
from tests.functional.site import Site

__all__ = ['CLUSTER', 'DaemonGuest', 'Guest', 'Node', 'NotBooted']

CLUSTER = 16384
"""Bytes; in which wrong bytes are counted."""
_PYTHON = '/usr/bin/python3'

Node = dict[str, Any]
"""A block node, as QMP's blockdev-add takes it."""


class NotBooted(Exception):
    """qemu did not open the chain."""


class Guest(Protocol):
    """:meth:`start` and :meth:`wait_until_up` boot it; :meth:`end` ends it at whatever point."""

    plan: dict[str, Any]

    def start(self) -> None: ...

    def wait_until_up(self) -> None:
        """:raises NotBooted: if its chain cannot be opened"""

    def facts(self) -> dict[str, Any]:
        """Return what was counted inside so far; see ``reader``."""

    def keep(self, known: list[Any] | None = None) -> list[Any]:
        """Let what is read again be what was read so far, or this; return it."""

    def freeze(self) -> None:
        """Let nothing inside count from now on: the host loses its power."""

    def end(self) -> None: ...


class DaemonGuest:
    """:param nodes: below the overlay; the last one is the overlay's backing node
    :param size: of the disk, in bytes
    :param first: offsets that are read first
    :param poisoned: an offset at which the overlay itself has other bytes than the base
    """

    def __init__(
        self,
        site: Site,
        name: str,
        plan: dict[str, Any],
        nodes: list[Node],
        reference: pathlib.Path,
        size: int,
        *,
        first: tuple[int, ...] = (),
        poisoned: int | None = None,
    ) -> None:
        self.plan = plan
        self._site, self._name, self._nodes = site, name, nodes
        self._reference, self._size, self._first = reference, size, first
        self._poisoned = poisoned
        self._folder = site.folder / 'vm'
        self._socket = self._folder / f'{name}.sock'
        self._qemu: subprocess.Popen[str] | None = None
        self._reader: talk.Talk | None = None
        self._last: dict[str, Any] = {
            'answered': {'anywhere': 0, 'again': 0},
            'errors': {'anywhere': 0, 'again': 0},
            'said': [],
            'wrong': [],
            'longest': 0.0,
            'waiting_since': None,
        }

    def start(self) -> None:
        overlay = self._folder / f'{self._name}.qcow2'
        options = f'cluster_size={CLUSTER}'
        self._tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, overlay, self._size)
        if self._poisoned is not None:
            write = f'write -P 0xa5 {self._poisoned} {CLUSTER}'
            self._tool('qemu-io', '-f', 'qcow2', '-c', write, overlay)
        file = {'driver': 'file', 'filename': str(overlay), 'read-only': True}
        disk = {'driver': 'qcow2', 'node-name': 'disk', 'read-only': True, 'file': file}
        disk['backing'] = self._nodes[-1]['node-name']
        command = ['qemu-storage-daemon']
        for node in (*self._nodes, disk):
            command += ['--blockdev', json.dumps(node)]
        command += ['--nbd-server', f'addr.type=unix,addr.path={self._socket},max-connections=0']
        command += ['--export', 'type=nbd,id=disk,node-name=disk,name=disk']
        self._qemu = self._site.start(command, **users.GUEST.arguments())

    def _tool(self, *command: object) -> None:
        done = self._site.run([str(word) for word in command], users.GUEST)
        assert done.returncode == 0, done

    def wait_until_up(self) -> None:
        assert self._qemu is not None
        deadline = time.monotonic() + waiting.PATIENCE
        while not self._listens():
            if self._qemu.poll() is not None:
                assert self._qemu.stderr is not None
                raise NotBooted(self._qemu.stderr.read().strip())
            if time.monotonic() > deadline:
                raise NotBooted(f'its chain is not open after {waiting.PATIENCE} s')
            time.sleep(0.02)
        script = talk.readable(self._site, 'reader.py')
        words = [str(self._socket), str(self._reference), self._name, *map(str, self._first)]
        self._reader = talk.Talk(self._site, [_PYTHON, script, *words], users.GUEST)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
            client.connect(str(self._socket))
            return True
        return False

    def facts(self) -> dict[str, Any]:
        if self._reader is not None:
            self._last = self._reader.ask('["facts"]')
        return self._last

    def keep(self, known: list[Any] | None = None) -> list[Any]:
        assert self._reader is not None
        words = ['keep'] if known is None else ['keep', known]
        kept: list[Any] = self._reader.ask(json.dumps(words))['known']
        return kept

    def freeze(self) -> None:
        if self._reader is not None:
            self.facts()
            self._reader.end()
            self._reader = None

    def end(self) -> None:
        with contextlib.suppress(talk.Silent):
            self.freeze()
        if self._reader is not None:
            self._reader.end()
            self._reader = None
        if self._qemu is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(self._qemu.pid).resume()
            self._qemu.kill()
            self._qemu.communicate(timeout=waiting.PATIENCE)
