# SPDX-License-Identifier: Apache-2.0
"""What the ``[qcache]`` options are; what makes sense of their values is in ``conf``."""

from oslo_config import cfg

__all__ = ['GROUP', 'OPTS']

GROUP = cfg.OptGroup(
    'qcache',
    title='Boot caches of images',
    help='A cache holds the part of an image that its servers read while they boot.',
)

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

* ``quota``: how much of it one image may take.
* ``run_path``: where the sockets are, which are no part of the caches.
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

* ``qemu_group``: who may open the sockets of guests.
""",
    ),
    cfg.IntOpt(
        'quota',
        default=512,
        help="""
How much disk space the cache of one image may take, in MiB.

The space is reserved when a recording starts, and what was not used is given back when it is
sealed. A recording that reaches the quota is sealed as it is: the rest of the image is read from
the base. A Debian 12 server reads about 80 MiB of its image while it boots.

Possible values:

* A number from 1. It must fit into the free space of ``cache_path`` and be a multiple of what the
  cluster size needs for its tables; ``nova-qcache check`` tells.

Related options:

* ``cache_path``
* ``cluster_size``
""",
    ),
    cfg.IntOpt(
        'cluster_size',
        default=16384,
        help="""
Cluster size of new caches, in bytes: the unit in which a recording reads from the base and writes
to the cache.

Small clusters make small caches and read nothing that no guest asked for; large ones make fewer
requests to the base.

Possible values:

* A power of two from 4096 to 2097152. With 4096, a recording that reaches its quota under heavy
  load may be dropped instead of sealed.

Related options:

* ``extended_l2``: copy by subclusters of large clusters.
""",
    ),
    cfg.BoolOpt(
        'extended_l2',
        default=False,
        help="""
Divide each cluster of new caches into 32 subclusters.

Recordings then copy by subcluster where qemu can (qemu 10 does, qemu 7.2 copies whole clusters).

Possible values:

* True, False

Related options:

* ``cluster_size`` must be 16384 or more.
""",
    ),
    cfg.IntOpt(
        'recording_idle_seconds',
        default=60,
        help="""
A recording is sealed when it has not grown for this long while a guest is connected, in seconds.

Possible values:

* A number from 1.

Related options:

* ``recording_max_seconds``: the latest end of a recording.
* ``recording_settle_seconds``: the same for guests that have left.
""",
    ),
    cfg.IntOpt(
        'recording_settle_seconds',
        default=10,
        help="""
How long a recording must have been without growth at some time, in seconds, to be worth keeping
when its last guest leaves before it was idle.

A guest that leaves in the middle of its boot has recorded half a boot. Such a recording is
dropped, and the next boot records again.

Possible values:

* A number from 1 to ``recording_idle_seconds``.

Related options:

* ``recording_idle_seconds``
* ``guest_grace_seconds``
""",
    ),
    cfg.IntOpt(
        'recording_max_seconds',
        default=900,
        help="""
A recording is sealed this long after its first guest connected, whatever happens, in seconds.

Possible values:

* A number from 1.

Related options:

* ``recording_idle_seconds``: the usual end of a recording.
""",
    ),
    cfg.IntOpt(
        'guest_grace_seconds',
        default=30,
        help="""
How long the last guest of a recorder must have been gone before it counts as gone, in seconds.

A hard reboot of a server ends its old guest some seconds before the new one starts.

Possible values:

* A number from 0.

Related options:

* ``plan_lease_seconds``: the same for a guest that has not come yet.
""",
    ),
    cfg.IntOpt(
        'plan_lease_seconds',
        default=300,
        help="""
How long a boot that was told to use a cache may be on its way, in seconds.

That long a recorder waits for its first guest, and a cache is not removed.

Possible values:

* A number from 1. It should be longer than the longest time between Nova's making of a domain's
  XML and the start of that domain.

Related options:

* ``guest_grace_seconds``
""",
    ),
    cfg.IntOpt(
        'base_reconnect_seconds',
        default=300,
        help="""
How long reads wait for an NBD base that went away, in seconds, before they fail.

Possible values:

* A number from 0. 0 fails reads at once, and a guest sees an I/O error.

Related options:

* None. A base that is a file waits as its mount does: use hard mounts.
""",
    ),
    cfg.IntOpt(
        'start_timeout_seconds',
        default=10,
        help="""
How long a boot waits for a new recorder, in seconds, before it goes on without one.

Possible values:

* A number from 1.

Related options:

* ``lock_timeout_seconds``
""",
    ),
    cfg.IntOpt(
        'lock_timeout_seconds',
        default=10,
        help="""
How long to wait for a lock that another process of nova-qcache holds, in seconds.

Possible values:

* A number from 1. The locks are held for milliseconds.

Related options:

* ``start_timeout_seconds``
""",
    ),
    cfg.BoolOpt(
        'start_keeper',
        default=True,
        help="""
Start the keeper, ``nova-qcache-keeper``, whenever there is something to keep.

The keeper sees to what must not wait for nova-compute: a recorder or its daemon that was killed
under running guests is started again, guests that libvirt paused meanwhile go on, and caches whose
base looks changed are compared with it. It ends by itself when there is nothing to do.

Possible values:

* True: recorders and nova-compute start it. One runs on a host at a time.
* False: a service manager runs it. Without one, a guest that reads through a recorder stays paused
  after its recorder was killed, until somebody resumes it.

Related options:

* ``libvirt_uri``: where the keeper finds paused guests.
""",
    ),
    cfg.IntOpt(
        'scrub_mib',
        default=256,
        help="""
How much of the sealed caches each run of Nova's image cache manager reads and compares with what
was sealed, in MiB.

One cache after the other is read; one that is damaged is not used any more.

Possible values:

* A number from 0. 0 reads nothing.

Related options:

* ``[image_cache] manager_interval``: how often that is.
""",
    ),
    cfg.StrOpt(
        'qemu_group',
        default='',
        help="""
Group whose members may read caches and connect to recorders: the one that qemu runs in.

The user of nova-compute must be a member of it.

Possible values:

* The name of a group, such as ``kvm`` or ``libvirt-qemu``.
* Empty: the group of nova-compute's user, which qemu's user must then be a member of.

Related options:

* ``run_path`` and ``cache_path``, whose files get this group.
""",
    ),
    cfg.StrOpt(
        'libvirt_uri',
        default='qemu:///system',
        help="""
The libvirt whose domains use the caches; asked before a cache is removed, and for guests that
wait for a recorder.

The command ``nova-qcache`` and the keeper use it: nova-compute has a connection.

Possible values:

* A URI that the user of nova-compute may open, for writing too: the keeper resumes guests.
* Empty: no guest of this host is libvirt's.

Related options:

* ``instances_path``
""",
    ),
    cfg.StrOpt(
        'instances_path',
        default='',
        help="""
Folder of the instances, where rescued ones keep an ``unrescue.xml``; looked at before a cache is
removed.

Possible values:

* Empty: the value of ``[DEFAULT] instances_path``, as Nova reads it.
* A path, where the configuration that ``nova-qcache`` and the keeper read is not all of Nova's.

Related options:

* ``libvirt_uri``
""",
    ),
    cfg.StrOpt(
        'qemu_img',
        default='qemu-img',
        help="""
The program qemu-img.

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
The program qemu-io, which comes with qemu-img and reads caches and bases when they are compared.

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
The program qemu-storage-daemon, version 7.0 or newer, which records.

Possible values:

* A name, looked up in PATH, or a path.

Related options:

* ``qemu_img``
""",
    ),
]
