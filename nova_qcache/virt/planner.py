# SPDX-License-Identifier: Apache-2.0
"""From an instance of Nova's to a plan.

One planner lives in a nova-compute. Until it is started, and if it cannot be, every boot is plain.
"""

from collections.abc import Iterator, Mapping
import contextlib
import os
import pathlib
from typing import Any

import nova.conf
from oslo_config import cfg
from oslo_log import log as logging

from nova_qcache import confinement
from nova_qcache import exception
from nova_qcache import overlay
from nova_qcache import process_survival
from nova_qcache.manager import Manager
from nova_qcache.plan import Plan
from nova_qcache.plan import PlanKind
from nova_qcache.usage import Domains
from nova_qcache.virt import eligibility

__all__ = ['Planner']

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

_RECONNECT_SINCE = 9_002_000
"""Version of libvirt that knows <reconnect> in the source of an NBD disk."""


class Planner:
    def __init__(self) -> None:
        self.reconnect_seconds = 0
        self._manager: Manager | None = None
        self._obstacle: str | None = None
        self._images: dict[str, Any] = {}

    def start(self, domains: Domains, libvirt_version: int) -> None:
        """Begin to plan; a configuration or folder that makes no sense is one error in the log,
        and boots are plain.

        :param libvirt_version: as libvirt counts it
        """
        try:
            manager = Manager(CONF, domains)
            self._obstacle = (
                confinement.obstacle(manager.paths.guests) or process_survival.obstacle()
            )
        except (exception.QcacheError, cfg.Error, OSError) as e:
            LOG.error('nova-qcache is off, and all instances boot without a cache: %s', e)
            return
        except Exception as e:  # nova-compute serves its instances also with a fault of ours
            LOG.exception('nova-qcache is off, and all instances boot without a cache: %s', e)
            return
        if self._obstacle:
            LOG.warning('nova-qcache records nothing: %s', self._obstacle)
        if libvirt_version >= _RECONNECT_SINCE:
            self.reconnect_seconds = CONF.qcache.base_reconnect_seconds
        try:
            manager.sweep()
        except (exception.QcacheError, OSError) as e:
            LOG.warning('What dead processes left cannot be cleared away: %s', e)
        manager.keep()
        self._manager = manager
        LOG.info('nova-qcache is on: caches are in %s', manager.paths.cache_path)

    def plan(
        self,
        instance: Any,
        disk_name: str,
        path: str,
        mapping: Mapping[str, Any],
        extra_specs: Mapping[str, str],
    ) -> Plan | None:
        """Decide what the disk of an instance stands on; None is the plain chain. Never raises.

        What is planned is kept for the instance until :meth:`release`.

        :param path: of the overlay
        """
        if self._manager is None:
            return None
        try:
            plan = self._decide(self._manager, instance, disk_name, path, mapping, extra_specs)
            if isinstance(plan, str):
                LOG.info('%s boots without a cache: %s', path, plan, instance=instance)
                if disk_name == eligibility.ROOT_DISK:
                    self.release(instance)  # of an earlier plan
                return None
            LOG.info(
                'Image %s: %s, %s', plan.image_id, plan.kind.value, plan.reason, instance=instance
            )
            return plan if plan.kind is not PlanKind.PLAIN else None
        except Exception:  # the first invariant: not even a fault of ours fails a boot
            LOG.exception('The disk %s boots without a cache', path, instance=instance)
            return None

    def release(self, instance: Any) -> None:
        """Say that the domain of an instance runs, or will not."""
        if self._manager is not None:
            self._manager.release(instance.uuid)

    @contextlib.contextmanager
    def touching(self, base: str) -> Iterator[None]:
        """Around Nova's setting of the times of a base."""
        if self._manager is None:
            yield
            return
        with self._manager.touching(base, 'raw'):
            yield

    @contextlib.contextmanager
    def spawning(self, instance: Any, image_meta: Any) -> Iterator[None]:
        """Around the making of a new instance, for which Nova has asked Glance for its image."""
        self._images[instance.uuid] = image_meta
        try:
            yield
        finally:
            self._images.pop(instance.uuid, None)

    @contextlib.contextmanager
    def writing(self, base: str) -> Iterator[None]:
        """Around Nova's writing of a base: no cache of before serves what is there after it, nor
        one that was made or compared meanwhile."""
        self._announce_write(base)
        try:
            yield
        finally:
            self._announce_write(base)

    def _announce_write(self, base: str) -> None:
        if self._manager is not None:
            self._manager.announce_write(base, 'raw')

    def scrub(self) -> None:
        """Read some of the sealed caches and see whether they are what was sealed."""
        if self._manager is None:
            return
        try:
            self._manager.keep()
            self._manager.scrub()
        except Exception:  # Nova's periodic work goes on
            LOG.exception('The caches were not read through')

    def _decide(
        self,
        manager: Manager,
        instance: Any,
        disk_name: str,
        path: str,
        mapping: Mapping[str, Any],
        extra_specs: Mapping[str, str],
    ) -> Plan | str:
        obstacle = eligibility.obstacle(instance, disk_name, mapping, extra_specs)
        if obstacle is not None:
            return obstacle
        try:
            base = overlay.backing(pathlib.Path(path))
        except exception.InvalidBase as e:
            return str(e)
        if base is None:
            return 'it stands on no base'
        image_id = eligibility.image_id(instance, os.path.basename(base.path))
        if image_id is None:
            return f"{base.path} is not the base of the instance's image"
        return manager.plan(
            image_id,
            base.path,
            base.format,
            instance.uuid,
            self._obstacle,
            eligibility.image_hash(self._images.get(instance.uuid), image_id),
        )
