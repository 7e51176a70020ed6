# SPDX-License-Identifier: Apache-2.0
"""The ``[qcache]`` options; ``conf`` validates their values."""

from oslo_config import cfg

from nova_qcache.options import admission
from nova_qcache.options import boots
from nova_qcache.options import folders
from nova_qcache.options import metrics
from nova_qcache.options import pool
from nova_qcache.options import programs
from nova_qcache.options import recording

__all__ = ['GROUP', 'OPTS']

GROUP = cfg.OptGroup(
    'qcache',
    title='Boot caches of images',
    help='A cache holds the part of an image that its servers read while they boot.',
)

OPTS: list[cfg.Opt] = [
    *folders.OPTS,
    *recording.OPTS,
    *admission.OPTS,
    *boots.OPTS,
    *pool.OPTS,
    *metrics.OPTS,
    *programs.OPTS,
]
