# SPDX-License-Identifier: Apache-2.0
"""Options for audits and metrics."""

from oslo_config import cfg

__all__ = ['OPTS']

OPTS: list[cfg.Opt] = [
    cfg.IntOpt(
        'audit_every',
        default=50,
        help="""
Number of boots that play a cache for each boot that is audited. An audited boot reads a copy of
the cache through a recorder, which measures what such a boot still reads from the base.

No guest waits for an audit: the copy is made in the background, and the next boot is audited.

Possible values:

* A number from 1.
* 0: nothing is audited, and no cache is recorded again.

Related options:

* ``rerecord_miss_percent``: the miss ratio above which a cache is recorded again.
* ``max_recorders``: an audit counts as a recorder.
""",
    ),
    cfg.IntOpt(
        'rerecord_miss_percent',
        default=10,
        help="""
Miss ratio above which the copy of an audit becomes the next revision of the cache: bytes that the
audited boot read from the base, in percent of all bytes that it read from its image.

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
File for metrics in the text format of Prometheus, written whenever Nova's image cache manager
runs.

Possible values:

* An absolute path that ends in ``.prom``, in the folder of node_exporter's textfile collector; the
  user of nova-compute must be able to write to that folder.
* Empty: no file.

Related options:

* ``[image_cache] manager_interval``: how often that is.
""",
    ),
]
