# SPDX-License-Identifier: Apache-2.0
"""What a fault is, and when it can come."""

import abc
import enum
from typing import ClassVar

from bench.faults.ground import Ground
from bench.faults.scene import Scene

__all__ = ['WITH_GUESTS', 'Fault', 'Phase']


class Phase(enum.Enum):
    """What the host is doing when the fault comes."""

    COLD = 'before the recorder'
    BEFORE = 'before the first guest'
    RECORDING = 'while recording'
    SEALING = 'while sealing'
    SEALED = 'just after the seal'
    PLAYING = 'while playing'
    IDLE = 'between two boots'


WITH_GUESTS = (Phase.RECORDING, Phase.SEALING, Phase.SEALED, Phase.PLAYING)


class Fault(abc.ABC):
    """One fault of one round: :meth:`inject`, and :meth:`undo` after ``seconds``.

    :param scale: of ``seconds``
    """

    kind: ClassVar[str]
    says: ClassVar[str]
    """What it is, for people."""
    phases: ClassVar[tuple[Phase, ...]] = (Phase.BEFORE, *WITH_GUESTS)
    grounds: ClassVar[tuple[Ground, ...]] = (
        Ground(),
        Ground(base='qcow2'),
        Ground(base='nbd'),
        Ground(base='tcp'),
        Ground(quota_mib=16),
    )
    """One of these is what it needs; the first one stands for all."""
    lasts: ClassVar[tuple[float, float]] = (0.0, 0.0)
    """Shortest and longest, in seconds."""
    ends_guests = False
    """The guests go with it."""
    base_is_lost = False
    """What only the base has cannot be read any more, and its errors are the plain chain's."""
    spoils_cache = False
    """A cache may be left that says READY and is not used any more."""

    def __init__(self, scene: Scene, scale: float = 1.0) -> None:
        self.scene = scene
        self.seconds = scale * scene.chance.uniform(*self.lasts)

    @abc.abstractmethod
    def inject(self) -> int:
        """Do it; return how many things it hit: processes, files, file systems."""

    def undo(self) -> list[str]:
        """Take it back where it is one that ends; return what it found to be wrong."""
        return []
