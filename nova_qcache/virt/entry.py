# SPDX-License-Identifier: Apache-2.0
"""The driver that nova-compute loads for ``compute_driver = qcache.QcacheDriver``."""

from nova.virt.libvirt import driver as libvirt_driver
from oslo_log import log as logging

from nova_qcache.virt import compatibility

__all__ = ['driver_class']

LOG = logging.getLogger(__name__)


def driver_class() -> type[libvirt_driver.LibvirtDriver]:
    """Return our driver, or stock Nova's after an error in the log if this Nova does not fit."""
    moved = list(compatibility.moved())
    if not moved:
        try:
            from nova_qcache.virt import driver
        except Exception as e:  # whatever an unknown Nova lets the import do
            moved = [str(e)]
        else:
            return driver.QcacheDriver
    LOG.error(
        'nova-qcache does not support this Nova; all instances boot without a cache: '
        '%s. Upgrade nova-qcache, or set [DEFAULT] compute_driver = libvirt.LibvirtDriver.',
        '; '.join(moved),
    )
    stock: type[libvirt_driver.LibvirtDriver] = libvirt_driver.LibvirtDriver
    return stock
