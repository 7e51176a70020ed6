# SPDX-License-Identifier: Apache-2.0
"""Options for the pool: its budget, eviction, revalidation and scrubbing."""

from oslo_config import cfg

__all__ = ['OPTS']

OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        'cache_budget',
        default='100%',
        help="""
Maximum size of all caches of this host together.

A recording counts with its whole quota. If there is no room for another recording, the least
valuable unused caches are evicted; if that does not make enough room, the boot uses no cache.

Possible values:

* A percentage of the file system of ``cache_path``, such as ``20%``, from 1 to 100.
* An amount, such as ``40GiB`` or ``500MB``; without a unit it is bytes. It must have room for one
  ``quota``.

Related options:

* ``min_free``
* ``eviction_policy``
* ``quota``
""",
    ),
    cfg.StrOpt(
        'min_free',
        default='1GiB',
        help="""
Space that nova-qcache leaves free on the file system of ``cache_path``, whatever else fills it.

No recording starts that would leave less, and unused caches are evicted while there is less.

Possible values:

* A percentage of the file system, such as ``5%``, from 0 to 99.
* An amount, such as ``1GiB``; without a unit it is bytes.

Related options:

* ``cache_budget``
""",
    ),
    cfg.StrOpt(
        'eviction_policy',
        default='value',
        help="""
Policy that decides which caches are evicted first when room is needed. STALE caches are always
evicted first; caches in use or pinned never are.

Possible values:

* ``value``: the caches that were unused for longest, weighed by how much traffic of the base they
  have saved for each byte that they take.
* ``lru``: the caches that were unused for longest.
* The name of a plugin in the namespace ``nova_qcache.eviction_policies``.

Related options:

* ``cache_budget``
""",
    ),
    cfg.IntOpt(
        'revalidate_hours',
        default=24,
        help="""
Minimum time between two revalidations of a cache, in hours, while only the times of its base
change.

Nova sets the times of a base at every boot, on each host that shares it, so a boot still plays the
cache. If a boot finds other times than before, and the cache was neither sealed nor revalidated
within these hours, the keeper compares all that is cached with the base, in the background. That
finds a base that was changed in place without an announcement. The hours start again when the host
restarts.

Possible values:

* A number from 0. 0 disables these revalidations; ``nova-qcache verify`` still compares.

Related options:

* ``revalidate_mib_per_second``: the rate at which the base is read for it.
* ``start_keeper``: the keeper does the comparison.
""",
    ),
    cfg.IntOpt(
        'revalidate_mib_per_second',
        default=8,
        help="""
Maximum rate at which a base is read when a cache is revalidated because only the times of the base
changed, in MiB per second.

Revalidations that boots wait for (the base is another file, or was written) and those of
``nova-qcache verify`` are not limited.

Possible values:

* A number from 1.

Related options:

* ``revalidate_hours``
""",
    ),
    cfg.StrOpt(
        'scrub_mib',
        default='256MiB',
        help="""
Amount of sealed caches that each run of Nova's image cache manager scrubs: reads and compares with
their digests.

One cache after the other is read; a damaged one becomes STALE, and no boot uses it again.

Possible values:

* An amount, such as ``256MiB``; without a unit it is MiB. 0 reads nothing.

Related options:

* ``[image_cache] manager_interval``: how often that is.
""",
    ),
]
