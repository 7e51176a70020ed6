# SPDX-License-Identifier: Apache-2.0
"""Nova's image backends with a root disk that asks for a plan.

Everything else is stock: what Nova writes on disk, and what the overlay's metadata says.
"""

from collections.abc import Callable
import re
from typing import Any

from lxml import etree
from nova.virt.libvirt import config as vconfig
from nova.virt.libvirt import imagebackend
from oslo_log import log as logging

from nova_qcache.model.plan import Plan
from nova_qcache.virt import chain
from nova_qcache.virt.planner import Planner

__all__ = ['Backend', 'ChainedDisk', 'Qcow2']

LOG = logging.getLogger(__name__)

_BASE_NAME = re.compile(r'[0-9a-f]{40}')
"""Name of the base of an image in Nova's image cache; swap and ephemeral disks have other
names."""


class ChainedDisk(vconfig.LibvirtConfigGuestDisk):  # type: ignore[misc]
    """A disk of a domain's XML with the chain of a plan below its overlay."""

    plan: Plan
    reconnect_seconds: int

    @classmethod
    def around(
        cls, disk: vconfig.LibvirtConfigGuestDisk, plan: Plan, reconnect_seconds: int
    ) -> 'ChainedDisk':
        """Return the disk that stock Nova made, with the chain."""
        chained = cls()
        chained.__dict__.update(disk.__dict__)
        chained.plan = plan
        chained.reconnect_seconds = reconnect_seconds
        return chained

    def format_dom(self) -> etree._Element:
        disk = super().format_dom()
        try:
            chain.add(disk, self.plan, self.reconnect_seconds)
        except Exception:  # a name that is no XML, for one
            LOG.exception('Unexpected error; disk %s boots without a cache', self.source_path)
            return super().format_dom()
        return disk


class Qcow2(imagebackend.Qcow2):  # type: ignore[misc]
    _planner: Planner | None = None
    _instance: Any = None
    _disk_name = ''

    def use_planner(self, planner: Planner, instance: Any, disk_name: str) -> None:
        """Make it ask for plans; until then it is stock."""
        self._planner = planner
        self._instance = instance
        self._disk_name = disk_name

    def plan(self, extra_specs: dict[str, str]) -> Plan | None:
        """Return what the disk is to stand on, None for its base."""
        if self._planner is None:
            return None
        return self._planner.plan(
            self._instance, self._disk_name, self.path, self.disk_info_mapping or {}, extra_specs
        )

    def libvirt_info(
        self,
        cache_mode: str,
        extra_specs: dict[str, str],
        boot_order: Any = None,
        disk_unit: Any = None,
    ) -> vconfig.LibvirtConfigGuestDisk:
        disk = super().libvirt_info(
            cache_mode, extra_specs, boot_order=boot_order, disk_unit=disk_unit
        )
        plan = self.plan(extra_specs)
        if plan is None or self._planner is None:
            return disk
        return ChainedDisk.around(disk, plan, self._planner.reconnect_seconds)

    def cache(
        self, fetch_func: Callable[..., Any], filename: str, *args: Any, **kwargs: Any
    ) -> Any:
        planner = self._planner
        if planner is None or not _BASE_NAME.fullmatch(filename):
            return super().cache(fetch_func, filename, *args, **kwargs)

        def announced(target: str, *args: Any, **kwargs: Any) -> Any:
            with planner.writing(target):
                return fetch_func(*args, target=target, **kwargs)

        return super().cache(announced, filename, *args, **kwargs)


class Backend(imagebackend.Backend):  # type: ignore[misc]
    def __init__(self, use_cow: bool, planner: Planner) -> None:
        super().__init__(use_cow)
        self._planner = planner
        for name, backend in list(self.BACKEND.items()):
            if backend is imagebackend.Qcow2:
                self.BACKEND[name] = Qcow2

    def by_name(
        self,
        instance: Any,
        name: str,
        image_type: str | None = None,
        disk_info_mapping: Any = None,
    ) -> imagebackend.Image:
        image = super().by_name(instance, name, image_type, disk_info_mapping)
        if isinstance(image, Qcow2):
            image.use_planner(self._planner, instance, name)
        return image
