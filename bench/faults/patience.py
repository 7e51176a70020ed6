# SPDX-License-Identifier: Apache-2.0
"""Waiting for the host and its guests, each time with a deadline; what does not come is noted."""

import contextlib
import time

from bench.faults.guest import Guest
from bench.faults.row import Row
from bench.faults.scene import Scene
from nova_qcache import exception
from nova_qcache.system import control
from tests.functional.waiting import PATIENCE

__all__ = ['Patience']


class Patience:
    def __init__(self, scene: Scene, row: Row) -> None:
        self._scene, self._row = scene, row

    def reads(self, count: int, *guests: Guest) -> None:
        """Wait until each guest has been answered that often."""
        for guest in guests or self._scene.guests:
            deadline = time.monotonic() + PATIENCE
            while sum(guest.facts()['answered'].values()) < count:
                if time.monotonic() > deadline:
                    raise AssertionError(f'a guest does not read: {guest.facts()}')
                time.sleep(0.05)

    def progress(self, guest: Guest, kind: str | None = None) -> None:
        """Wait until a guest goes on: no read of before is waiting, and new ones are answered."""
        now = time.monotonic()
        deadline = now + self._scene.reconnect_seconds + PATIENCE
        before = _answers(guest, kind)
        while True:
            since = guest.facts()['waiting_since']
            goes_on = kind is not None or since is None or since > now
            if goes_on and _answers(guest, kind) >= before + 10:
                return
            if time.monotonic() > deadline:
                self._row.guest_errors += 1
                self._row.notes.append(f'a guest does not go on: {guest.facts()}')
                return
            time.sleep(0.05)

    def state(self, state: str, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._scene.state != state:
            if time.monotonic() > deadline:
                raise AssertionError(f'{what}: {self._scene.record()} {self._scene.recorder()}')
            time.sleep(0.02)

    def end_of_seal(self) -> None:
        """Wait until nothing is recorded any more; a seal may fail, and the cache be dropped."""
        deadline = time.monotonic() + PATIENCE
        scene = self._scene
        while True:
            status = scene.recorder()
            phase = status.phase.value if status is not None else ''
            if phase not in ('starting', 'recording', 'sealing'):
                return
            if phase == 'recording':
                scene.ask_to_seal()  # it was not there yet when it was asked
            if time.monotonic() > deadline:
                self._row.problems.append(f'a seal does not end: {status}')
                return
            time.sleep(0.05)

    def recorder(self) -> None:
        """Wait until somebody sees to the daemon of those who read through it."""
        scene = self._scene
        began = time.monotonic()
        while any(guest.plan['kind'] == 'RECORD' for guest in scene.guests):
            if scene.running('recorder'):
                break
            if time.monotonic() - began > PATIENCE:
                self._row.problems.append('guests read through a daemon that has no recorder')
                break
            time.sleep(0.05)
        self._row.recorder_back_s = round(time.monotonic() - began, 2)

    def departure(self) -> None:
        """Wait until the recorder has left, which is told that nobody comes."""
        scene = self._scene
        deadline = time.monotonic() + PATIENCE
        while scene.running('recorder', 'daemon'):
            for path in (scene.site.run_path / 'control').glob('*.ctl'):
                with contextlib.suppress(exception.RecorderUnreachable):
                    control.RecorderClient(path).leave()
            if time.monotonic() > deadline:
                left = [
                    ' '.join(each.cmdline())[:80] for each in scene.running('recorder', 'daemon')
                ]
                self._row.problems.append(f'a recorder does not leave: {left} {scene.recorder()}')
                return
            time.sleep(0.1)


def _answers(guest: Guest, kind: str | None) -> int:
    answered: dict[str, int] = guest.facts()['answered']
    return answered[kind] if kind else sum(answered.values())
