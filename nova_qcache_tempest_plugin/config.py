# SPDX-License-Identifier: Apache-2.0
"""What tempest.conf says about nova-qcache."""

from oslo_config import cfg

__all__ = ['GROUP', 'OPTS', 'SERVICE_GROUP', 'SERVICE_OPTION']

SERVICE_GROUP = 'service_available'
SERVICE_OPTION = cfg.BoolOpt(
    'qcache',
    default=False,
    help="""
Whether nova-qcache is expected on the compute hosts.

Possible values:

* True, False. With False all of its tests are skipped.
""",
)

GROUP = cfg.OptGroup('qcache', title='Boots from caches of images (nova-qcache)')

OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        'host_command',
        default='',
        help="""
What is put before each command that is to run on a compute host.

The commands are ``nova-qcache`` and ``virsh``. They look, and remove the caches of the tests' own
images.

Possible values:

* A command line, in which ``{host}`` is replaced by the name of the host's nova-compute. Examples:
  ``ssh -o BatchMode=yes root@{host}``, or ``sudo`` where tempest runs on the only compute host.
* Empty: nothing of a host is looked at, and tests that need that are skipped.

Related options:

* ``nova_qcache_command``
* ``virsh_command``
* ``host_timeout``
""",
    ),
    cfg.StrOpt(
        'nova_qcache_command',
        default='nova-qcache',
        help="""
How ``nova-qcache`` is called on a compute host.

Possible values:

* A command line. Example: ``/opt/stack/data/venv/bin/nova-qcache --config-file
  /etc/nova/nova-cpu.conf``

Related options:

* ``host_command``
""",
    ),
    cfg.StrOpt(
        'virsh_command',
        default='virsh',
        help="""
How ``virsh`` is called on a compute host.

Possible values:

* A command line. Example: ``virsh --connect qemu:///system``

Related options:

* ``host_command``
""",
    ),
    cfg.IntOpt(
        'host_timeout',
        default=60,
        min=1,
        help="""
How long a command on a compute host may take, in seconds.

Related options:

* ``host_command``
""",
    ),
    cfg.StrOpt(
        'compute_host',
        default='',
        help="""
The compute host on which all servers of the tests boot: a cache is one host's.

Possible values:

* The name of its nova-compute.
* Empty: the first one that is up and enabled.
""",
    ),
    cfg.StrOpt(
        'server_networks',
        default='tenant',
        choices=[
            ('tenant', "the network of the tests' project"),
            ('none', 'no network, for clouds that have none to give'),
        ],
        help="""
Which network the servers of the tests get; none of the tests needs one.
""",
    ),
    cfg.IntOpt(
        'boot_timeout',
        default=300,
        min=1,
        help="""
How long a server may take to boot once it is ACTIVE, in seconds.

Related options:

* ``booted_pattern``
""",
    ),
    cfg.StrOpt(
        'booted_pattern',
        default='login:',
        help="""
What a server's console shows at the end of a boot.

Possible values:

* A regular expression, which is searched for.

Related options:

* ``boot_timeout``
""",
    ),
    cfg.IntOpt(
        'ready_timeout',
        default=1200,
        min=1,
        help="""
How long it may take until the cache of an image is READY after its server has booted, in seconds.

Possible values:

* A number from 1, more than what the compute host has in its ``[qcache] recording_max_seconds``.
""",
    ),
    cfg.IntOpt(
        'record_from_boot',
        default=1,
        min=1,
        help="""
The boot of an image on a host that records its cache.

Possible values:

* What the compute host has in its ``[qcache] record_from_boot``.
""",
    ),
    cfg.IntOpt(
        'servers_at_once',
        default=3,
        min=2,
        help="""
How many servers boot at once from an image without a cache.
""",
    ),
    cfg.IntOpt(
        'deleted_image_timeout',
        default=0,
        min=0,
        help="""
How long the cache of a deleted image that no server stands on may stay, in seconds.

Possible values:

* A number from 1, more than what the compute host has in its ``[image_cache] manager_interval``.
* 0: the host does not ask Glance (its ``[qcache] glance_auth_section`` is empty), so this is not
  tested.

Related options:

* ``host_command``
""",
    ),
]
