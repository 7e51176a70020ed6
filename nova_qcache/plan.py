# SPDX-License-Identifier: Apache-2.0
"""What one boot is to use."""

import dataclasses
import enum

from nova_qcache import key

__all__ = ['EXPORT_NAME', 'Plan', 'PlanKind']

EXPORT_NAME = 'top'
"""Name of the NBD export that a recorder serves."""


class PlanKind(enum.Enum):
    PLAIN = 'PLAIN'
    """overlay on base; no cache."""
    RECORD = 'RECORD'
    """overlay on a recorder's NBD export."""
    PLAY = 'PLAY'
    """overlay on sealed cache on base."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """One decision; ``reason`` is a clause for the log that says why."""

    kind: PlanKind
    reason: str
    image_id: str
    base: str
    base_format: str
    generation: key.Generation | None = None
    cache: str | None = None
    """Path of the sealed qcow2 file (PLAY)."""
    socket: str | None = None
    """Path of the recorder's NBD socket, whose export is ``EXPORT_NAME`` (RECORD)."""
