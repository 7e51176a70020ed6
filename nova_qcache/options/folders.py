# SPDX-License-Identifier: Apache-2.0
"""Options for folders, and for the group that may open their files."""

from oslo_config import cfg

__all__ = ['OPTS']

OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        'cache_path',
        default='/var/lib/nova/qcache',
        help="""
Folder of the caches and their records.

It should be on fast local storage of this host with room for the quotas of the images in use. It
must not be Nova's ``_base`` folder, and no two hosts may share it. It belongs to the user that
nova-compute runs as.

Possible values:

* A path. The folder is made if its parent exists.

Related options:

* ``quota``: the space in it that one image may take.
* ``run_path``: the folder of the sockets, which are not part of the caches.
""",
    ),
    cfg.StrOpt(
        'run_path',
        default='/run/nova-qcache',
        help="""
Folder of the sockets of running recorders.

Guests reach a recorder through a socket in ``run_path/guests``; ``run_path/control`` is for
nova-qcache alone.

Possible values:

* A path of not more than 30 bytes or so: a socket's whole path may have 107.

Related options:

* ``qemu_group``: the group that may open the sockets of guests.
""",
    ),
    cfg.StrOpt(
        'qemu_group',
        default='',
        help="""
Group that may read caches and connect to recorders: the group that qemu runs in.

The user of nova-compute must be a member of it.

Possible values:

* The name of a group, such as ``kvm`` or ``libvirt-qemu``.
* Empty: the group of nova-compute's user, which qemu's user must then be a member of.

Related options:

* ``run_path`` and ``cache_path``, whose files get this group.
""",
    ),
    cfg.StrOpt(
        'instances_path',
        default='',
        help="""
Folder of the instances, in which rescued instances keep an ``unrescue.xml``; these files are read
before a cache is removed.

Possible values:

* Empty: the value of ``[DEFAULT] instances_path``, as Nova reads it.
* A path, where the configuration that ``nova-qcache`` and the keeper read is not all of Nova's.

Related options:

* ``libvirt_uri``
""",
    ),
]
