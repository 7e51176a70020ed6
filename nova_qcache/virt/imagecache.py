# SPDX-License-Identifier: Apache-2.0
"""Nova's image cache manager, whose periodic work looks after the caches as well, and which
reports what they take."""

from typing import Any

import nova.conf
from nova.virt.libvirt import imagecache

from nova_qcache.virt.planner import Planner

__all__ = ['ImageCacheManager']

CONF = nova.conf.CONF


class ImageCacheManager(imagecache.ImageCacheManager):  # type: ignore[misc]
    def __init__(self, planner: Planner | None = None) -> None:
        super().__init__()
        self._planner = planner

    def update(self, context: Any, all_instances: Any) -> None:
        super().update(context, all_instances)
        if self._planner is not None:
            # Not what Nova has listed for itself: that has instances of other hosts with the same
            # bases, too, and nothing at all where there is no folder of bases.
            own = (instance for instance in all_instances if instance.host == CONF.host)
            self._planner.run_maintenance(
                {instance.image_ref for instance in own if instance.image_ref}
            )

    def get_disk_usage(self) -> int:
        """Return what Nova's bases and our caches take of the device of the instances, in bytes;
        Nova reports it to Placement with ``reserve_disk_resource_for_image_cache``."""
        usage = int(super().get_disk_usage())
        if self._planner is None:
            return usage
        return usage + self._planner.disk_usage(CONF.instances_path)
