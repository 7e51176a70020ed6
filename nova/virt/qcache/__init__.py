# SPDX-License-Identifier: Apache-2.0
"""Where nova-compute finds the driver: it looks below ``nova.virt`` and nowhere else.

This is the only file that nova-qcache adds to Nova's packages.
"""

from nova_qcache.virt import entry

__all__ = ['QcacheDriver']

QcacheDriver = entry.driver_class()
