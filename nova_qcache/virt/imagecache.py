# SPDX-License-Identifier: Apache-2.0
"""Nova's image cache manager, whose touching of bases raises no suspicion and whose periodic work
reads some of the caches."""

from typing import Any

from nova.virt.libvirt import imagecache

from nova_qcache.virt.planner import Planner

__all__ = ['ImageCacheManager']


class ImageCacheManager(imagecache.ImageCacheManager):  # type: ignore[misc]
    def __init__(self, planner: Planner | None = None) -> None:
        super().__init__()
        self._planner = planner

    def _mark_in_use(self, img_id: str, base_file: str) -> None:
        if self._planner is None:
            super()._mark_in_use(img_id, base_file)
            return
        with self._planner.touching(base_file):
            super()._mark_in_use(img_id, base_file)

    def update(self, context: Any, all_instances: Any) -> None:
        super().update(context, all_instances)
        if self._planner is not None:
            self._planner.scrub()
