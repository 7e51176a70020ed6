# SPDX-License-Identifier: Apache-2.0
"""Faults of the base: away for a while, or for good."""

from bench.faults.fault import Fault
from bench.faults.fault import Phase
from bench.faults.fault import WITH_GUESTS
from bench.faults.ground import Ground

__all__ = ['FAULTS']


class Away(Fault):
    kind = 'base-away'
    says = 'the server of an NBD base ends, and is started again'
    phases = WITH_GUESTS
    grounds = (Ground(base='nbd'), Ground(base='tcp'), Ground(base='nbd', quota_mib=16))
    lasts = (2.0, 4.0)

    def inject(self) -> int:
        assert self.scene.base.server is not None
        self.scene.base.server.stop()
        return 1

    def undo(self) -> list[str]:
        assert self.scene.base.server is not None
        self.scene.base.server.start()
        return []


class Hangs(Fault):
    kind = 'base-hangs'
    says = 'the server of a base, NBD or a FUSE mount, answers nothing for a while'
    phases = WITH_GUESTS
    grounds = (Ground(base='fuse'), Ground(base='nbd'))
    lasts = (2.0, 4.0)

    def inject(self) -> int:
        self.scene.base.hang()
        return 1

    def undo(self) -> list[str]:
        self.scene.base.go_on()
        return []


class Gone(Fault):
    kind = 'base-gone'
    says = 'the server of an NBD base ends for good; what is cached is read on'
    phases = (Phase.RECORDING, Phase.SEALED, Phase.PLAYING)
    grounds = (Ground(base='nbd', reconnect_seconds=2),)
    lasts = (3.0, 5.0)
    base_is_lost = True

    def inject(self) -> int:
        assert self.scene.base.server is not None
        self.scene.base.server.stop()
        return 1

    def bring_back(self) -> None:
        """For the next boot, once everybody has gone."""
        assert self.scene.base.server is not None
        self.scene.base.server.start()


FAULTS: tuple[type[Fault], ...] = (Away, Hangs, Gone)
