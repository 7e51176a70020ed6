# SPDX-License-Identifier: Apache-2.0
"""Nova compatibility: the interfaces of Nova that this package depends on, checked once when
nova-compute starts.

These are not public interfaces. They have been the same from Nova 31 to 34; should one move, all
instances boot plain and the log says which.
"""

from collections.abc import Iterator
import importlib
import inspect

__all__ = ['moved']

_LIBVIRT = 'nova.virt.libvirt'

_METHODS = {
    'driver.LibvirtDriver.__init__': 'virtapi read_only',
    'driver.LibvirtDriver._create_guest': (
        'context xml instance power_on pause post_xml_callback'
    ),
    'driver.LibvirtDriver._create_guest_with_network': 'context xml instance',
    'driver.LibvirtDriver._get_existing_domain_xml': 'instance network_info',
    'driver.LibvirtDriver._get_guest_xml': 'context instance',
    'driver.LibvirtDriver._hard_reboot': 'context instance network_info share_info',
    'driver.LibvirtDriver._live_migration_operation': (
        'context instance dest block_migration migrate_data guest device_names'
    ),
    'driver.LibvirtDriver._soft_reboot': 'instance',
    'driver.LibvirtDriver.cache_image': 'context image_id',
    'driver.LibvirtDriver.init_host': 'host',
    'driver.LibvirtDriver.resume': 'context instance network_info block_device_info share_info',
    'driver.LibvirtDriver.spawn': (
        'context instance image_meta injected_files admin_password allocations network_info'
        ' block_device_info power_on accel_info'
    ),
    'driver.LibvirtDriver.suspend': 'context instance',
    'driver.LibvirtDriver.swap_volume': (
        'context old_connection_info new_connection_info instance mountpoint resize_to'
    ),
    'driver.LibvirtDriver.unrescue': 'context instance',
    'config.LibvirtConfigGuestDisk.format_dom': '',
    'guest.Guest.get_xml_desc': 'dump_inactive dump_sensitive',
    'guest.Guest.migrate': 'destination migrate_uri migrate_disks destination_xml',
    'host.Host.get_connection': '',
    'host.Host.get_guest': 'instance',
    'host.Host.write_instance_config': 'xml',
    'imagebackend.Backend.__init__': 'use_cow',
    'imagebackend.Backend.by_name': 'instance name image_type disk_info_mapping',
    'imagebackend.Image.cache': 'fetch_func filename',
    'imagebackend.Image.libvirt_info': 'cache_mode extra_specs boot_order disk_unit',
    'imagecache.ImageCacheManager.get_disk_usage': '',
    'imagecache.ImageCacheManager.update': 'context all_instances',
}
"""Methods, and the names of their first parameters after self."""

_FUNCTIONS = {
    'imagecache.get_cache_fname': 'image_id',
    'utils.get_instance_path': 'instance',
}


def moved() -> Iterator[str]:
    """Yield the interfaces of Nova that have changed, one clause each."""
    for name, parameters in {**_METHODS, **_FUNCTIONS}.items():
        try:
            module, *path = name.split('.')
            found = importlib.import_module(f'{_LIBVIRT}.{module}')
            for part in path:
                found = getattr(found, part)
            has = list(inspect.signature(found).parameters)  # type: ignore[arg-type]
        except (ImportError, AttributeError, TypeError, ValueError) as e:
            yield f'{_LIBVIRT}.{name} is missing ({e})'
            continue
        wanted = ['self'] * (name in _METHODS) + parameters.split()
        if has[: len(wanted)] != wanted:
            yield f'{_LIBVIRT}.{name} takes {", ".join(has)}'
