# SPDX-License-Identifier: Apache-2.0
"""Nova's libvirt driver, with chains through caches in the XML of running domains.

A chain is only in the XML that a domain is running with. What libvirt keeps for the next start,
what is saved with a suspended guest, what Nova keeps for the end of a rescue and what leaves the
host with a live migration is without it. So caches, recorders and this driver may go at any time:
the next start of an instance finds the plain chain.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
from typing import Any

import libvirt
import nova.conf
from nova.virt.libvirt import driver
from nova.virt.libvirt import guest as libvirt_guest
from nova.virt.libvirt import imagecache as nova_imagecache
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

from nova_qcache import conf as qcache_conf
from nova_qcache.system.libvirt_domains import LibvirtDomains
from nova_qcache.system.libvirt_domains import strip_saved
from nova_qcache.virt import chain
from nova_qcache.virt import imagebackend
from nova_qcache.virt import imagecache
from nova_qcache.virt.planner import Planner

__all__ = ['QcacheDriver']

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

qcache_conf.register_opts(CONF)


class QcacheDriver(driver.LibvirtDriver):  # type: ignore[misc]
    def __init__(self, virtapi: Any, read_only: bool = False) -> None:
        super().__init__(virtapi, read_only)
        self._planner = Planner()
        self.image_backend = imagebackend.Backend(CONF.use_cow_images, self._planner)
        self.image_cache_manager = imagecache.ImageCacheManager(self._planner)

    def init_host(self, host: str) -> None:
        super().init_host(host)
        self._planner.start(LibvirtDomains('this nova-compute', self._host.get_connection))

    # -- the start of a domain

    def spawn(
        self,
        context: Any,
        instance: Any,
        image_meta: Any,
        injected_files: Any,
        admin_password: Any,
        allocations: Any,
        network_info: Any = None,
        block_device_info: Any = None,
        power_on: bool = True,
        accel_info: Any = None,
    ) -> None:
        with self._planner.spawning(instance, image_meta), self._start_of(instance):
            super().spawn(
                context,
                instance,
                image_meta,
                injected_files,
                admin_password,
                allocations,
                network_info=network_info,
                block_device_info=block_device_info,
                power_on=power_on,
                accel_info=accel_info,
            )

    @contextlib.contextmanager
    def _start_of(self, instance: Any) -> Iterator[None]:
        """Run a part of a start: if it fails, the plan is released."""
        try:
            yield
        except BaseException:
            self._planner.release(instance)
            raise

    # A spawn is one, and what these do of migrations, resizes and reboots.

    def _hard_reboot(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> Any:
        with self._start_of(instance):
            return super()._hard_reboot(context, instance, *args, **kwargs)

    def _get_guest_xml(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> str:
        with self._start_of(instance):
            xml: str = super()._get_guest_xml(context, instance, *args, **kwargs)
            return xml

    def _create_guest_with_network(
        self, context: Any, xml: str, instance: Any, *args: Any, **kwargs: Any
    ) -> libvirt_guest.Guest:
        with self._start_of(instance):
            return super()._create_guest_with_network(context, xml, instance, *args, **kwargs)

    def _create_guest(
        self,
        context: Any,
        xml: str,
        instance: Any,
        power_on: bool = True,
        pause: bool = False,
        post_xml_callback: Callable[[], None] | None = None,
    ) -> libvirt_guest.Guest:
        create = super()._create_guest
        callback = _CallOnce(post_xml_callback)

        def start(xml: str) -> libvirt_guest.Guest:
            guest = create(
                context,
                xml,
                instance,
                power_on=power_on,
                pause=pause,
                post_xml_callback=callback,
            )
            if power_on or pause:
                self._planner.started(instance)
            return guest

        try:
            plain = _without_chain(xml, instance)
            if plain == xml or not (power_on or pause):
                return start(plain)
            try:
                guest = start(xml)
            except Exception as e:
                LOG.warning(
                    'Guest failed to start with its cache; retrying without it: %s',
                    e,
                    instance=instance,
                )
                self._planner.fall_back(instance)
                return start(plain)
            self._define_plain(instance)
            return guest
        finally:
            self._planner.release(instance)

    def _soft_reboot(self, instance: Any) -> bool:
        with self._chain_for_next_start(instance):
            has_started = bool(super()._soft_reboot(instance))
            if has_started:
                self._planner.started(instance)
            return has_started

    @contextlib.contextmanager
    def _chain_for_next_start(self, instance: Any) -> Iterator[None]:
        """Keep a chain in the persistent domain XML during a soft reboot, which starts what is
        defined there."""
        try:
            try:
                is_planned = self._define_chain(instance)
            except Exception as e:
                is_planned = True  # how far it came is not known
                LOG.warning(
                    'Failed to add a cache for a soft reboot; rebooting without it: %s',
                    e,
                    instance=instance,
                )
                self._planner.fall_back(instance)
            try:
                yield
            finally:
                if is_planned:
                    self._define_plain(instance)
        finally:
            self._planner.release(instance)

    def _define_chain(self, instance: Any) -> bool:
        """Add a chain for the next start of an instance; return whether one was planned."""
        # Making a backend's object for a disk that is not there would leave traces of one.
        if not instance.image_ref or self.image_backend.backend() is not imagebackend.Qcow2:
            return False
        disk: imagebackend.Qcow2 = self.image_backend.by_name(instance, 'disk')
        plan = disk.plan(instance.flavor.extra_specs)
        if plan is None:
            return False
        guest = self._host.get_guest(instance)
        xml = guest.get_xml_desc(dump_inactive=True, dump_sensitive=True)
        self._host.write_instance_config(
            chain.insert(xml, disk.path, plan, self._planner.reconnect_seconds)
        )
        return True

    def _define_plain(self, instance: Any) -> None:
        """Remove the chain from the persistent domain XML."""
        try:
            guest = self._host.get_guest(instance)
            xml = guest.get_xml_desc(dump_inactive=True, dump_sensitive=True)
            if chain.is_in(xml):
                self._host.write_instance_config(chain.strip(xml))
        except Exception as e:
            # It is in use as long as it is named there, so this start and the next are safe.
            LOG.warning(
                'Failed to remove the cache from the persistent domain XML; the cache stays in'
                ' use: %s',
                e,
                instance=instance,
            )

    # -- XML that is kept

    def _get_existing_domain_xml(self, instance: Any, *args: Any, **kwargs: Any) -> str:
        xml = super()._get_existing_domain_xml(instance, *args, **kwargs)
        self._planner.release(instance)  # without a domain Nova makes XML, for which we planned
        return _without_chain(xml, instance)

    def swap_volume(
        self,
        context: Any,
        old_connection_info: Any,
        new_connection_info: Any,
        instance: Any,
        mountpoint: Any,
        resize_to: Any,
    ) -> None:
        try:
            super().swap_volume(
                context,
                old_connection_info,
                new_connection_info,
                instance,
                mountpoint,
                resize_to,
            )
        finally:
            self._define_plain(instance)  # stock Nova defines what is running

    def suspend(self, context: Any, instance: Any) -> None:
        super().suspend(context, instance)
        self._strip_saved(instance)

    def resume(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,
        share_info: Any = None,
    ) -> None:
        self._strip_saved(instance)  # saved by a nova-compute without us, or by one that died
        super().resume(
            context,
            instance,
            network_info,
            block_device_info=block_device_info,
            share_info=share_info,
        )

    def unrescue(self, context: Any, instance: Any) -> None:
        path = os.path.join(libvirt_utils.get_instance_path(instance), 'unrescue.xml')
        try:
            with open(path) as file:
                xml = file.read()
            if chain.is_in(xml):  # kept by a nova-compute without us
                with open(f'{path}.plain', 'w') as file:
                    file.write(chain.strip(xml))
                os.replace(file.name, path)  # never without its content, also on a full disk
        except Exception as e:
            LOG.warning('Failed to rewrite %s; using it unchanged: %s', path, e, instance=instance)
        super().unrescue(context, instance)

    def _strip_saved(self, instance: Any) -> None:
        try:
            strip_saved(libvirt, self._host.get_guest(instance)._domain)
        except Exception as e:
            LOG.warning(
                'Failed to remove the cache from the saved state; the cache stays in use: %s',
                e,
                instance=instance,
            )

    # -- XML that leaves the host

    def _live_migration_operation(
        self,
        context: Any,
        instance: Any,
        dest: str,
        block_migration: bool,
        migrate_data: Any,
        guest: libvirt_guest.Guest,
        device_names: list[str],
    ) -> None:
        super()._live_migration_operation(
            context,
            instance,
            dest,
            block_migration,
            migrate_data,
            _MigratingGuest(guest, instance),
            device_names,
        )

    # -- writes of a base

    def cache_image(self, context: Any, image_id: str) -> bool:
        path = os.path.join(
            self.image_cache_manager.cache_dir, nova_imagecache.get_cache_fname(image_id)
        )
        is_there = os.path.isfile(path)  # then Nova does not write it
        with contextlib.nullcontext() if is_there else self._planner.writing(path):
            is_new = bool(super().cache_image(context, image_id))
        self._planner.precached(image_id)
        return is_new


def _without_chain(xml: str, instance: Any) -> str:
    """Return a domain's XML without our chains, or as it is if that fails."""
    try:
        return chain.strip(xml)
    except Exception as e:
        LOG.warning('Failed to parse the domain XML; using it unchanged: %s', e, instance=instance)
        return xml


class _CallOnce:
    """Calls a callback once, also if a second start calls it again."""

    def __init__(self, callback: Callable[[], None] | None) -> None:
        self._callback = callback

    def __call__(self) -> None:
        if self._callback is not None:
            self._callback()
            self._callback = None


class _MigratingGuest:
    """A guest whose XML leaves the host without a chain of ours: the destination has neither that
    cache nor that recorder."""

    def __init__(self, guest: libvirt_guest.Guest, instance: Any) -> None:
        self._guest = guest
        self._instance = instance

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guest, name)

    def migrate(self, *args: Any, **kwargs: Any) -> Any:
        xml = kwargs.get('destination_xml')
        if xml:
            kwargs['destination_xml'] = _without_chain(xml, self._instance)
        return self._guest.migrate(*args, **kwargs)
