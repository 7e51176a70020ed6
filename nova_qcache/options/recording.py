# SPDX-License-Identifier: Apache-2.0
"""Options for recordings."""

from oslo_config import cfg

__all__ = ['OPTS']

OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        'quota',
        default='512MiB',
        help="""
Maximum size of the cache of one image.

The space is reserved when a recording starts, and unused space is given back when it is sealed. A
recording that reaches the quota is sealed as it is: the rest of the image is read from the base. A
Debian 12 server reads about 80 MiB of its image while it boots.

Possible values:

* An amount, such as ``512M``, ``512MiB`` or ``1GB``; without a unit it is MiB. It must fit into
  the free space of ``cache_path`` and have room for the tables of the disk beside what is cached;
  ``nova-qcache check`` tells.

Related options:

* ``cache_path``
* ``cluster_size``
""",
    ),
    cfg.StrOpt(
        'cluster_size',
        default='16KiB',
        help="""
Cluster size of new caches: the unit in which a recording reads from the base and writes
to the cache.

Small clusters make small caches and read little that no guest asked for; large clusters need fewer
requests to the base.

Possible values:

* A power of two from ``4KiB`` to ``2MiB``; without a unit it is bytes. With ``4KiB``, a recording
  that reaches its quota under heavy load may be dropped instead of sealed.

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

* ``cluster_size`` must be 16 KiB or more.
""",
    ),
    cfg.IntOpt(
        'recording_idle_seconds',
        default=60,
        help="""
Time without growth after which a recording is sealed while a guest is connected, in seconds.

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
Time without growth that a recording must have had at least once, in seconds, to be sealed when its
last guest leaves before ``recording_idle_seconds`` have passed.

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
Time after the first guest connected at which a recording is sealed in any case, in seconds.

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
Time that the last guest of a recorder must have been disconnected before it counts as gone, in
seconds.

A hard reboot of a server ends its old guest some seconds before the new one starts.

Possible values:

* A number from 0.

Related options:

* ``plan_lease_seconds``: the same for a guest that has not come yet.
""",
    ),
]
