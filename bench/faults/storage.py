# SPDX-License-Identifier: Apache-2.0
"""Faults of the storage below the caches: full, or gone with the power of the host."""

from bench.faults.fault import Fault
from bench.faults.fault import Phase
from bench.faults.fault import WITH_GUESTS
from bench.faults.ground import Ground

__all__ = ['FAULTS']

_EVERY_PHASE = tuple(phase for phase in Phase if phase is not Phase.IDLE)


class FillDisk(Fault):
    kind = 'disk-full'
    says = 'somebody fills the file system of the caches, and frees it later'
    phases = _EVERY_PHASE
    grounds = (Ground(disk='ext4'), Ground(disk='tmpfs'), Ground(disk='ext4', base='nbd'))
    lasts = (0.5, 2.0)

    def inject(self) -> int:
        self.scene.disk.fill()
        return 1

    def undo(self) -> list[str]:
        self.scene.disk.free()
        return []


class FillInodes(FillDisk):
    kind = 'inodes-full'
    says = 'the same with its inodes'

    def inject(self) -> int:
        self.scene.disk.fill_inodes()
        return 1


class SwitchOff(Fault):
    kind = 'switch-off'
    says = 'the host loses its power: every process and every byte that was not synced'
    phases = (Phase.BEFORE, *WITH_GUESTS, Phase.IDLE)
    grounds = (Ground(disk='ext4'), Ground(disk='ext4', base='nbd'))
    ends_guests = True

    def inject(self) -> int:
        for guest in self.scene.guests:
            guest.freeze()
        self.scene.disk.lose_power()
        self.scene.clear_host()
        self.scene.end_guests()
        return 1

    def undo(self) -> list[str]:
        return self.scene.disk.come_back()


FAULTS: tuple[type[Fault], ...] = (FillDisk, FillInodes, SwitchOff)
