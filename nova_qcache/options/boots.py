# SPDX-License-Identifier: Apache-2.0
"""What a boot may wait for, and what is kept for it."""

from oslo_config import cfg

__all__ = ['OPTS']

OPTS: list[cfg.Opt] = [
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

* A number from 1. Most locks are held for milliseconds; some while something is written to the
  disk, or libvirt is asked. A boot that does not get one in time is plain.

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
under running guests is started again, guests that libvirt paused meanwhile go on, guests that
others than Nova save are saved without a chain, and caches whose base looks changed are compared
with it. It ends by itself when there is nothing to do.

Possible values:

* True: recorders and nova-compute start it. One runs on a host at a time.
* False: a service manager runs it. Without one, a guest that reads through a recorder stays paused
  after its recorder was killed, until somebody resumes it, and one that was saved with
  ``virsh managedsave`` does not start without its cache.

Related options:

* ``libvirt_uri``: where the keeper finds guests that are paused or saved.
""",
    ),
]
