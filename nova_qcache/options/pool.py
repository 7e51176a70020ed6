# SPDX-License-Identifier: Apache-2.0
"""What the caches of a host may take together, and how they are looked after."""

from oslo_config import cfg

__all__ = ['OPTS']

OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        'cache_budget',
        default='100%',
        help="""
How much all caches of this host may take together.

A recording counts with its whole quota. Where there is no room for another one, the least valuable
caches that nobody uses are removed; if that does not make enough room, the boot is plain.

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
How much stays free on the file system of ``cache_path``, whoever fills it.

No recording starts that would leave less, and caches that nobody uses are removed when there is
less.

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
Which caches go first when room is needed. Those that no boot can use any more always do; those
that are in use or pinned never do.

Possible values:

* ``value``: those that were unused for longest, weighed by how much traffic of the base they have
  saved for each byte that they take.
* ``lru``: those that were unused for longest.
* The name of a plugin in the namespace ``nova_qcache.eviction_policies``.

Related options:

* ``cache_budget``
""",
    ),
    cfg.IntOpt(
        'revalidate_hours',
        default=24,
        help="""
How often a cache is compared with its base at the most, in hours, while nothing but the times of
the base change.

Nova sets the times of a base at every boot, on each host that shares it, so they say little; boots
play, and none waits. When a boot finds other times than before, and the cache was neither sealed
nor compared within these hours, the keeper compares all that is cached with the base, in the
background. That finds a base that was changed in place without a word. After a restart of the host
the hours begin anew.

Possible values:

* A number from 0. 0 compares nothing for times alone; ``nova-qcache verify`` still does.

Related options:

* ``revalidate_mib_per_second``: how fast the base is read for that.
* ``start_keeper``: who does it.
""",
    ),
    cfg.IntOpt(
        'revalidate_mib_per_second',
        default=8,
        help="""
How much of a base is read in a second at the most when a cache is compared with it because of its
times alone, in MiB.

Comparisons for which boots wait (the base is another file, or was written) and those of
``nova-qcache verify`` are as fast as the base is.

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
How much of the sealed caches each run of Nova's image cache manager reads and compares with what
was sealed.

One cache after the other is read; one that is damaged is not used any more.

Possible values:

* An amount, such as ``256MiB``; without a unit it is MiB. 0 reads nothing.

Related options:

* ``[image_cache] manager_interval``: how often that is.
""",
    ),
]
