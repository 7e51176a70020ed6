# SPDX-License-Identifier: Apache-2.0
"""Options for admission: images worth a cache, and the number of recorders."""

from oslo_config import cfg

__all__ = ['OPTS']

OPTS: list[cfg.Opt] = [
    cfg.IntOpt(
        'record_from_boot',
        default=1,
        help="""
Number of the boot of an image on this host that records its cache: 1 is the first one, 2 the
second one.

Earlier boots use no cache, so an image that is booted only once takes no space.

Possible values:

* A number from 1.

Related options:

* The image property and flavor extra spec ``qcache:policy``: ``always`` records from the first
  boot on, ``never`` not at all.
""",
    ),
    cfg.IntOpt(
        'max_recorders',
        default=8,
        help="""
Maximum number of caches that are recorded on this host at the same time.

Each recording reserves its quota and takes about 70 MiB of memory. Boots of further images use no
cache until one of the recordings is sealed.

Possible values:

* A number from 1.

Related options:

* ``quota``
* ``cache_budget``
""",
    ),
]
