# SPDX-License-Identifier: Apache-2.0
"""Faults of processes: killed, told to end, stopped."""

import signal

import psutil

from bench.faults import ground
from bench.faults.fault import Fault
from bench.faults.fault import Phase

__all__ = ['FAULTS']


class KillDaemon(Fault):
    kind = 'kill-daemon'
    says = "kill -9 of a recorder's qemu-storage-daemon"

    def inject(self) -> int:
        return self.scene.kill('daemon')


class KillRecorder(Fault):
    kind = 'kill-recorder'
    says = 'kill -9 of a recorder'

    def inject(self) -> int:
        return self.scene.kill('recorder')


class KillBoth(Fault):
    kind = 'kill-both'
    says = 'kill -9 of a recorder and its daemon, in either order'

    def inject(self) -> int:
        roles = ['daemon', 'recorder']
        self.scene.chance.shuffle(roles)
        return self.scene.kill(*roles)


class KillAll(Fault):
    kind = 'kill-all'
    says = 'kill -9 of recorder, daemon and nova-compute'

    def inject(self) -> int:
        self.scene.end_compute()
        return self.scene.kill('recorder', 'daemon')


class KillKeeper(Fault):
    kind = 'kill-keeper'
    says = 'kill -9 of the keeper'

    def inject(self) -> int:
        return self.scene.kill('keeper')


class TellRecorder(Fault):
    kind = 'term-recorder'
    says = 'SIGTERM to a recorder'
    lasts = (2.5, 3.5)  # it bides its guests' leaving for 2 s

    def inject(self) -> int:
        found = self.scene.running('recorder')
        ground.signal_all(found, signal.SIGTERM)
        return len(found)


class _Stop(Fault):
    lasts = (2.0, 5.0)
    roles: tuple[str, ...]

    def inject(self) -> int:
        self._stopped: list[psutil.Process] = self.scene.running(*self.roles)
        ground.signal_all(self._stopped, signal.SIGSTOP)
        return len(self._stopped)

    def undo(self) -> list[str]:
        ground.signal_all(self._stopped, signal.SIGCONT)
        return []


class StopDaemon(_Stop):
    kind = 'stop-daemon'
    says = 'SIGSTOP of the daemon for some seconds'
    roles = ('daemon',)


class StopRecorder(_Stop):
    kind = 'stop-recorder'
    says = 'SIGSTOP of the recorder for some seconds'
    roles = ('recorder',)


class StopBoth(_Stop):
    kind = 'stop-both'
    says = 'SIGSTOP of recorder and daemon for some seconds'
    roles = ('recorder', 'daemon')


class Nothing(Fault):
    kind = 'nothing'
    says = 'no fault, to see what is lost without one'
    phases = (Phase.RECORDING, Phase.PLAYING)

    def inject(self) -> int:
        return 1


FAULTS: tuple[type[Fault], ...] = (
    KillDaemon,
    KillRecorder,
    KillBoth,
    KillAll,
    KillKeeper,
    TellRecorder,
    StopDaemon,
    StopRecorder,
    StopBoth,
)
