# SPDX-License-Identifier: Apache-2.0
"""How the caches are measured, and where the figures go."""

from oslo_config import cfg

__all__ = ['OPTS']

OPTS: list[cfg.Opt] = [
    cfg.IntOpt(
        'audit_every',
        default=50,
        help="""
Every so many boots that play a cache, one goes through a recorder on a copy of it, so that it is
known what such a boot still reads from the base.

No guest waits for that: the copy is made in the background, and the next boot is audited.

Possible values:

* A number from 1.
* 0: nothing is audited, and no cache is recorded again.

Related options:

* ``rerecord_miss_percent``: what becomes of a cache that misses much.
* ``max_recorders``: an audit is one of them.
""",
    ),
    cfg.IntOpt(
        'rerecord_miss_percent',
        default=10,
        help="""
How much an audited boot may read from the base, in percent of what it reads from its image, before
the audit's copy becomes the next revision of the cache.

Possible values:

* A number from 0 to 100. 100 keeps every cache as it is.

Related options:

* ``audit_every``
""",
    ),
    cfg.StrOpt(
        'metrics_file',
        default='',
        help="""
File for the figures in the format of Prometheus, written whenever Nova's image cache manager runs.

Possible values:

* An absolute path that ends in ``.prom``, in the folder of node_exporter's textfile collector; the
  user of nova-compute must be able to write to that folder.
* Empty: no file.

Related options:

* ``[image_cache] manager_interval``: how often that is.
""",
    ),
]
