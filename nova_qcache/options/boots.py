# SPDX-License-Identifier: Apache-2.0
"""Options for boots: time-outs, leases, and the keeper."""

from oslo_config import cfg

__all__ = ['OPTS']

OPTS: list[cfg.Opt] = [
    cfg.IntOpt(
        'plan_lease_seconds',
        default=300,
        help="""
Lifetime of the lease taken when a boot is planned, in seconds.

While the lease lasts, the recorder waits for its first guest, and the cache is not removed.

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
Time that reads wait for an unreachable NBD base before they fail, in seconds.

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
Time that a boot waits for a new recorder before it goes on without a cache, in seconds.

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
Time to wait for a lock that another process of nova-qcache holds, in seconds.

Possible values:

* A number from 1. Most locks are held for milliseconds; some while something is written to the
  disk, or libvirt is asked. A boot that does not get a lock in time uses no cache.

Related options:

* ``start_timeout_seconds``
""",
    ),
    cfg.BoolOpt(
        'start_keeper',
        default=True,
        help="""
Start the keeper, ``nova-qcache-keeper``, whenever it is needed.

The keeper does what must not wait for nova-compute. It restarts recorders and daemons that died
under running guests, resumes guests that libvirt paused meanwhile, removes chains from the saved
state of guests that were saved by others than Nova, and compares caches with bases that look
changed. It ends by itself when there is nothing to do.

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
