# SPDX-License-Identifier: Apache-2.0
"""The engine of a nova-compute whose nova-qcache is off: it does nothing, and has no caches."""

from collections.abc import Collection

from nova_qcache.model.plan import Plan

__all__ = ['DisabledEngine']


class DisabledEngine:
    """Null engine, in place of :class:`nova_qcache.engine.manager.Manager`.

    It plans no boot, and Nova is not asked what a plan would need.
    """

    def __init__(self) -> None:
        self.boots = self.pins = self.maintenance = self

    def keep(self) -> None: ...

    def count(self, plan: Plan) -> None: ...

    def release(self, consumer: str) -> None: ...

    def announce_write(self, base: str, base_format: str) -> None: ...

    def pin(self, image_id: str, until: float, reason: str) -> None: ...

    def run(self, used_images: Collection[str], minimum_age_seconds: float | None) -> None: ...

    def allocated_beside(self, folder: str) -> int:
        return 0
