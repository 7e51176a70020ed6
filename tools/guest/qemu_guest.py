# SPDX-License-Identifier: Apache-2.0
"""One guest under qemu-system-x86_64, for the demo, the benchmarks and the tests.

A :class:`Guest` is a context manager around one qemu process.  It takes the block chain as a list
of ``-blockdev`` dictionaries, a node before its users, and the name of the node that the guest's
virtio disk stands on (block_chains.py makes the usual ones)::

    with Guest(
        'g1',
        blockdevs=overlay('disk.qcow2', raw_file('base.raw')),
        drive='overlay',
        kernel=small / 'vmlinuz',
        initrd=small / 'initrd',
        append='qcache.blocks=0+64,1024+64*4',
    ) as guest:
        seconds = guest.wait_for('QCACHE booted', timeout_s=60)
        hashes = guest.blocks()

Only the standard library is used.  QMP runs over a socket pair and the console over a pipe, so
nothing is left on disk and no path can be too long for a socket.  The guest dies with the thread
that started it (see ``die_with_parent``), even if that was killed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
import re
import select
import socket
import subprocess
import threading
import time
from types import TracebackType
from typing import Any, IO, Self

__all__ = ['BOOTED', 'Guest', 'GuestError']

BOOTED = 'QCACHE booted'
QUIET_KERNEL = 'console=ttyS0 quiet loglevel=4 mitigations=off nokaslr no_timer_check panic=-1'

_BLOCK = re.compile(r'^QCACHE block (\d+) (\d+) ([0-9a-f]{64})\s*$', re.MULTILINE)
_READ_ERROR = re.compile(r'^QCACHE read-error (\d+)\s*$', re.MULTILINE)


class GuestError(Exception):
    """A guest did not do what was asked of it; the message ends with its last console lines."""


class Guest:
    """One qemu process with a virtio disk, its serial console and QMP.

    :param name: appears in error messages and as qemu's ``-name``.
    :param blockdevs: ``-blockdev`` dictionaries, a node before its users.
    :param drive: node name of the guest's disk.
    :param kernel: boot this kernel directly; without it the disk's own boot loader runs.
    :param append: added to a short quiet kernel command line; only with `kernel`.
    :param accel: ``tcg`` or ``kvm``.
    :param memory_mib: memory in MiB.
    :param device_options: more properties of the disk device, e.g. ``{"rerror": "stop"}``.
    :param extra_args: more arguments for qemu.
    :param console_file: also write the console's bytes to this file.
    :param die_with_parent: the kernel kills qemu when the thread that called :meth:`start` ends.
        Turn it off when a guest is started from a short-lived thread.
    """

    def __init__(
        self,
        name: str,
        *,
        blockdevs: Sequence[Mapping[str, Any]],
        drive: str,
        kernel: str | Path | None = None,
        initrd: str | Path | None = None,
        append: str = '',
        accel: str = 'tcg',
        memory_mib: int = 256,
        device_options: Mapping[str, str] | None = None,
        extra_args: Sequence[str] = (),
        console_file: str | Path | None = None,
        die_with_parent: bool = True,
    ) -> None:
        self.name = name
        self.blockdevs = [dict(item) for item in blockdevs]
        self.drive = drive
        self.kernel = kernel
        self.initrd = initrd
        self.append = append
        self.accel = accel
        self.memory_mib = memory_mib
        self.device_options = dict(device_options or {})
        self.extra_args = list(extra_args)
        self.console_file = Path(console_file) if console_file else None
        self.die_with_parent = die_with_parent
        self.events: list[dict[str, Any]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._qmp: _Qmp | None = None
        self._console = bytearray()
        self._marks: list[tuple[int, float]] = []  # (console length, seconds since the start)
        self._changed = threading.Condition()
        self._started = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Return the process id of qemu."""
        return self._running().pid

    @property
    def returncode(self) -> int | None:
        """Return qemu's exit status, or None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def command(self, qmp_fd: int) -> list[str]:
        """Return qemu's command line; `qmp_fd` is the inherited end of the QMP socket pair."""
        device = {'driver': 'virtio-blk-pci', 'drive': self.drive, 'bootindex': 1}
        device.update(self.device_options)
        args = ['setpriv', '--pdeathsig', 'KILL', '--'] if self.die_with_parent else []
        args += ['qemu-system-x86_64', '-name', self.name, '-no-user-config', '-nodefaults']
        args += ['-machine', 'pc', '-accel', self.accel, '-m', f'{self.memory_mib}M', '-smp', '1']
        args += ['-display', 'none', '-no-reboot', '-device', 'virtio-rng-pci']
        args += ['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console']
        args += ['-chardev', f'socket,id=qmp,fd={qmp_fd}', '-mon', 'chardev=qmp,mode=control']
        for item in self.blockdevs:
            args += ['-blockdev', json.dumps(item)]
        args += ['-device', json.dumps(device)]
        if self.kernel:
            args += ['-kernel', str(self.kernel), '-append', f'{QUIET_KERNEL} {self.append}']
        if self.initrd:
            args += ['-initrd', str(self.initrd)]
        return args + self.extra_args

    def start(self) -> None:
        """Start qemu and return once its QMP answers (two minutes at most)."""
        if self._process is not None:
            raise GuestError(f'guest {self.name} was started already')
        ours, theirs = socket.socketpair()
        try:
            self._started = time.monotonic()
            self._process = subprocess.Popen(
                self.command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a ctrl-C at the terminal is ours to handle
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._read_console, args=(self._process.stdout,), name=f'console-{self.name}'
        )
        self._reader.daemon = True
        self._reader.start()
        self._qmp = _Qmp(ours, self.events)
        try:
            self._qmp.negotiate(timeout_s=120)
        except (OSError, ValueError) as error:
            self.stop()
            raise self._error(f'qemu did not start ({error})') from error
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout_s: float = 60) -> None:
        """End qemu at once, as if the power were cut; harmless if it ended before."""
        if self._qmp is not None:
            self._qmp.close()
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout_s)
        if self._reader is not None:
            self._reader.join(timeout_s)

    def power_down(self, timeout_s: float) -> float:
        """Press the guest's power button and wait for qemu's exit; return the seconds it took."""
        begun = time.monotonic()
        self.qmp('system_powerdown')
        self.wait_exit(timeout_s)
        return time.monotonic() - begun

    def wait_exit(self, timeout_s: float) -> int:
        """Wait until qemu has ended, e.g. by the guest's own power-off; return its status."""
        try:
            return self._running().wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self._error(f'still runs after {timeout_s:g} s') from None

    def wait_for(self, text: str, timeout_s: float) -> float:
        """Wait until `text` is on the console.

        :param timeout_s: seconds from now.
        :returns: seconds from the start of qemu to the first appearance of `text`.
        :raises GuestError: on time-out, or at once if qemu ends without having printed it.
        """
        wanted = text.encode()
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                at = self._console.find(wanted)
                if at >= 0:
                    end = at + len(wanted)
                    return next(seconds for length, seconds in self._marks if length >= end)
                if self._reader is None or not self._reader.is_alive():
                    raise self._error(f'qemu ended (status {self.returncode}) before {text!r}')
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._error(f'no {text!r} on the console within {timeout_s:.0f} s')
                self._changed.wait(min(left, 0.5))

    def seen(self, text: str) -> bool:
        """Return whether `text` is on the console by now."""
        return text in self.console()

    def console(self) -> str:
        """Return all that the guest (and qemu) has printed so far, with plain line ends."""
        with self._changed:
            return self._console.decode(errors='replace').replace('\r\n', '\n')

    def blocks(self) -> list[tuple[int, int, str]]:
        """Return what the small guest has read so far: (offset KiB, length KiB, sha256)."""
        return [(int(a), int(b), c) for a, b, c in _BLOCK.findall(self.console())]

    def read_errors(self) -> list[int]:
        """Return the offsets in KiB at which the small guest saw an I/O error."""
        return [int(offset) for offset in _READ_ERROR.findall(self.console())]

    def qmp(self, execute: str, timeout_s: float = 30, **arguments: Any) -> Any:
        """Run one QMP command and return its result; events that pass by land in `events`."""
        if self._qmp is None:
            raise GuestError(f'guest {self.name} was not started')
        args = {key.replace('_', '-'): value for key, value in arguments.items()}
        try:
            return self._qmp.execute(execute, args, timeout_s)
        except (OSError, ValueError) as error:
            raise self._error(f'QMP {execute}: {error}') from error

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise GuestError(f'guest {self.name} was not started')
        return self._process

    def _error(self, what: str) -> GuestError:
        tail = '\n'.join(self.console().splitlines()[-25:])
        return GuestError(f'guest {self.name}: {what}; its console ends with:\n{tail}')

    def _read_console(self, pipe: IO[bytes]) -> None:
        copy = self.console_file.open('wb', buffering=0) if self.console_file else None
        try:
            while data := pipe.read1(65536):  # type: ignore[attr-defined]
                with self._changed:
                    self._console += data
                    self._marks.append((len(self._console), time.monotonic() - self._started))
                    self._changed.notify_all()
                if copy:
                    copy.write(data)
        finally:
            pipe.close()
            if copy:
                copy.close()


class _Qmp:
    """A synchronous QMP connection over a connected socket; every call has a deadline."""

    def __init__(self, sock: socket.socket, events: list[dict[str, Any]]) -> None:
        self._sock = sock
        self._events = events
        self._buffer = b''
        self._lock = threading.Lock()

    def close(self) -> None:
        self._sock.close()

    def negotiate(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        self._receive(deadline)  # the greeting
        self.execute('qmp_capabilities', {}, timeout_s)

    def execute(self, command: str, arguments: Mapping[str, Any], timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        with self._lock:
            request = {'execute': command, 'arguments': dict(arguments)}
            self._sock.sendall(json.dumps(request).encode() + b'\n')
            while True:
                reply = self._receive(deadline)
                if 'event' in reply:
                    self._events.append(reply)
                elif 'error' in reply:
                    raise ValueError(reply['error'].get('desc', 'unknown error'))
                elif 'return' in reply:
                    return reply['return']

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b'\n' not in self._buffer:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._sock], [], [], left)[0]:
                raise TimeoutError('no answer in time')
            data = self._sock.recv(65536)
            if not data:
                raise ConnectionError('qemu closed the connection')
            self._buffer += data
        line, self._buffer = self._buffer.split(b'\n', 1)
        reply: dict[str, Any] = json.loads(line)
        return reply
