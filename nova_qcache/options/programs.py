# SPDX-License-Identifier: Apache-2.0
"""Programs and services that are not ours."""

from oslo_config import cfg

__all__ = ['OPTS']

OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        'libvirt_uri',
        default='qemu:///system',
        help="""
URI of the libvirt whose domains use the caches; asked before a cache is removed, and for guests
that wait for a recorder.

The command ``nova-qcache`` and the keeper use it: nova-compute has its own connection.

Possible values:

* A URI that the user of nova-compute may open, for writing too: the keeper resumes guests,
  and takes chains out of what they are saved with.
* Empty: this host has no guests of libvirt.

Related options:

* ``instances_path``
""",
    ),
    cfg.StrOpt(
        'qemu_img',
        default='qemu-img',
        help="""
Path of the program qemu-img.

Possible values:

* A name, looked up in PATH, or a path.

Related options:

* ``qemu_io`` and ``qemu_storage_daemon``, which should be of the same version.
""",
    ),
    cfg.StrOpt(
        'qemu_io',
        default='qemu-io',
        help="""
Path of the program qemu-io, which comes with qemu-img and compares caches with their bases.

Possible values:

* A name, looked up in PATH, or a path.

Related options:

* ``qemu_img``
""",
    ),
    cfg.StrOpt(
        'qemu_storage_daemon',
        default='qemu-storage-daemon',
        help="""
Path of the program qemu-storage-daemon, version 7.0 or newer, which records.

Possible values:

* A name, looked up in PATH, or a path.

Related options:

* ``qemu_img``
""",
    ),
    cfg.StrOpt(
        'glance_auth_section',
        default='',
        help="""
Section of the configuration with the credentials for asking Glance which images are deleted, so
that their caches are removed.

Possible values:

* The name of a section with the options of keystoneauth (``auth_type``, ``auth_url`` and so on),
  whose user has the role admin. One that is there already, such as ``service_user``, will do if
  its user has: nobody else sees all images.
* Empty: Glance is not asked, and caches of deleted images expire like all others.

Related options:

* ``[image_cache] manager_interval``: how often Glance is asked.
* ``[glance] region_name``, ``valid_interfaces`` and ``endpoint_override``: where it is.
""",
    ),
]
