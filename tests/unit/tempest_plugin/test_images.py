# SPDX-License-Identifier: Apache-2.0
"""What a copy of an image has of the first one."""

from nova_qcache_tempest_plugin import images

SOURCE = {
    "id": "571967d4-6860-4b23-8649-8ffe1f34d7a6",
    "name": "cirros",
    "status": "active",
    "visibility": "public",
    "owner": "3d36bdb9",
    "checksum": "0123",
    "size": 4096,
    "os_hash_algo": "sha512",
    "os_hidden": False,
    "disk_format": "qcow2",
    "container_format": "bare",
    "min_disk": 1,
    "min_ram": 0,
    "hw_disk_bus": "scsi",
    "hw_firmware_type": None,
    "os_distro": "cirros",
    "qcache:policy": "never",
}


def test_hardware_is_kept_and_what_is_glances_is_not():
    assert images.description(SOURCE, "copy", {"qcache:policy": "always"}) == {
        "name": "copy",
        "visibility": "private",
        "disk_format": "qcow2",
        "container_format": "bare",
        "min_disk": 1,
        "min_ram": 0,
        "hw_disk_bus": "scsi",
        "os_distro": "cirros",
        "qcache:policy": "always",
    }


def test_a_policy_is_not_inherited():
    assert "qcache:policy" not in images.description(SOURCE, "copy", {})
