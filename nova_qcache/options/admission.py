# SPDX-License-Identifier: Apache-2.0
"""Which images are worth a cache, and how many are recorded at a time."""

from oslo_config import cfg

__all__ = ['OPTS']

OPTS: list[cfg.Opt] = [
    cfg.IntOpt(
        'record_from_boot',
        default=1,
        help="""
The boot of an image on this host that records its cache: 1 is the first one, 2 the second one.

Boots before it are plain, so an image that is booted once takes no space.

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
How many caches may be recorded on this host at a time.

Each recording reserves its quota and takes about 70 MiB of memory. Boots of further images are
plain until one of them is sealed.

Possible values:

* A number from 1.

Related options:

* ``quota``
* ``cache_budget``
""",
    ),
]
