# SPDX-License-Identifier: Apache-2.0
"""Planner: plans for the instances of Nova.

One planner lives in a nova-compute. Until it is started, and if it cannot be, every boot is plain.
"""

from collections.abc import Collection, Iterator, Mapping
import contextlib
import dataclasses
import time
from typing import Any

import nova.conf
from oslo_config import cfg
from oslo_log import log as logging

from nova_qcache import exception
from nova_qcache.engine.disabled import DisabledEngine
from nova_qcache.engine.manager import Manager
from nova_qcache.model.plan import Cause
from nova_qcache.model.plan import Plan
from nova_qcache.model.plan import PlanKind
from nova_qcache.system import confinement
from nova_qcache.system import process_survival
from nova_qcache.system.libvirt_domains import LibvirtDomains
from nova_qcache.virt import eligibility

__all__ = ['Planner']

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

_RECONNECT_SINCE = (9, 2, 0)
"""Version of libvirt that knows <reconnect> in the source of an NBD disk."""


class Planner:
    def __init__(self) -> None:
        self.reconnect_seconds = 0
        self._engine: Manager | DisabledEngine = DisabledEngine()
        self._no_recording: str | None = None
        self._images: dict[str, Any] = {}
        self._planned: dict[str, Plan] = {}
        """Plans of root disks, until their instances have started."""

    def start(self, domains: LibvirtDomains) -> None:
        """Begin to plan; a configuration or folder that makes no sense is one error in the log,
        and boots are plain. Never raises."""
        try:
            self._start(domains)
        except (exception.QcacheError, cfg.Error, OSError) as e:
            LOG.error('nova-qcache is off, and all instances boot without a cache: %s', e)
        except Exception as e:  # nova-compute serves its instances also with a fault of ours
            LOG.exception('nova-qcache is off, and all instances boot without a cache: %s', e)

    def _start(self, domains: LibvirtDomains) -> None:
        manager = Manager(CONF, domains)
        self._no_recording = (
            confinement.problem(manager.paths.guests) or process_survival.problem()
        )
        if self._no_recording:
            LOG.warning('nova-qcache cannot record on this host: %s', self._no_recording)
        try:
            if domains.version() >= _RECONNECT_SINCE:
                self.reconnect_seconds = CONF.qcache.base_reconnect_seconds
        except exception.DomainsUnknown as e:
            LOG.warning(
                'Failed to ask libvirt for its version; using no <reconnect>: %s',
                e.attributes['reason'],
            )
        try:
            manager.clean_up()
        except (exception.QcacheError, OSError) as e:
            LOG.warning('Failed to clean up after dead processes: %s', e)
        manager.boots.keep()
        self._engine = manager
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
        engine = self._engine
        if isinstance(engine, DisabledEngine):  # nobody asks Nova for anything then
            return None
        if disk_name == eligibility.ROOT_DISK:
            self._planned.pop(instance.uuid, None)  # of a start that never came
        try:
            boot = eligibility.boot(
                instance,
                disk_name,
                path,
                mapping,
                extra_specs,
                image_meta=self._images.get(instance.uuid),
                no_recording=self._no_recording,
            )
            if isinstance(boot, eligibility.Refusal):
                LOG.info('Disk %s boots without a cache: %s', path, boot.reason, instance=instance)
                if disk_name == eligibility.ROOT_DISK:
                    self.release(instance)  # of an earlier plan
                    image_id = instance.image_ref or ''
                    self._planned[instance.uuid] = Plan(
                        PlanKind.PLAIN, boot.reason, image_id, '', '', cause=boot.cause
                    )
                return None
            plan = engine.boots.plan(boot)
            LOG.info(
                'Image %s: %s, %s', plan.image_id, plan.kind.value, plan.reason, instance=instance
            )
            self._planned[instance.uuid] = plan
            if plan.kind is PlanKind.PLAIN:
                return None
            engine.boots.keep()  # as long as it runs, somebody may save it
            return plan
        except Exception:  # the first invariant: not even a fault of ours fails a boot
            LOG.exception(
                'Unexpected error; disk %s boots without a cache', path, instance=instance
            )
            return None

    def fall_back(self, instance: Any) -> None:
        """Note that the domain of an instance failed to start with its plan, and starts without
        it."""
        plan = self._planned.get(instance.uuid)
        if plan is not None:
            self._planned[instance.uuid] = dataclasses.replace(
                plan, kind=PlanKind.PLAIN, is_audit=False, cause=Cause.FALLBACK
            )

    def started(self, instance: Any) -> None:
        """Note that the domain of an instance has started: its boot counts, if it had a plan.
        Never raises."""
        plan = self._planned.pop(instance.uuid, None)
        if plan is not None:
            with _quietly():
                self._engine.boots.count(plan)

    def release(self, instance: Any) -> None:
        """Release the plan of an instance whose domain runs, or will not. Never raises."""
        self._planned.pop(instance.uuid, None)
        with _quietly():
            self._engine.boots.release(instance.uuid)

    @contextlib.contextmanager
    def spawning(self, instance: Any, image_meta: Any) -> Iterator[None]:
        """Keep what Glance says of its image while a new instance is made."""
        self._images[instance.uuid] = image_meta
        try:
            yield
        finally:
            self._images.pop(instance.uuid, None)

    @contextlib.contextmanager
    def writing(self, base: str) -> Iterator[None]:
        """Announce a write before and after Nova writes a base: no existing cache serves what is
        there afterwards, nor one that was made or compared meanwhile."""
        self._engine.boots.announce_write(base, 'raw')
        try:
            yield
        finally:
            self._engine.boots.announce_write(base, 'raw')

    def precached(self, image_id: str) -> None:
        """Pin a precached image: its cache stays for as long as Nova keeps its base unused."""
        grace = CONF.image_cache.remove_unused_original_minimum_age_seconds
        try:
            self._engine.pins.pin(image_id, time.time() + grace, 'precached')
        except Exception as e:
            LOG.warning('Failed to pin precached image %s: %s', image_id, e)

    def run_maintenance(self, used_images: Collection[str]) -> None:
        """Look after the caches, when Nova looks after its bases.

        :param used_images: of all instances that this host knows of
        """
        minimum_age = None
        if CONF.image_cache.remove_unused_base_images:
            minimum_age = CONF.image_cache.remove_unused_original_minimum_age_seconds
        try:
            self._engine.boots.keep()
            self._engine.maintenance.run(used_images, minimum_age)
        except Exception:  # Nova's periodic work goes on
            LOG.exception('Unexpected error in the periodic run of nova-qcache; Nova goes on')

    def disk_usage(self, beside: str) -> int:
        """Return the bytes that the caches take on the device of a folder."""
        with _quietly(), contextlib.suppress(OSError):  # as stock Nova says nothing
            return self._engine.allocated_beside(beside)
        return 0


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep errors of mere bookkeeping from Nova."""
    try:
        yield
    except Exception:
        LOG.exception('Unexpected error in nova-qcache; Nova goes on')
