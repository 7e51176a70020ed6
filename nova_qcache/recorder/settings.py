# SPDX-License-Identifier: Apache-2.0
"""What one recorder was told: the options that concern it, as values."""

import dataclasses

from nova_qcache.recorder.finish import Limits

__all__ = ['Settings']


@dataclasses.dataclass(frozen=True)
class Settings:
    quota: int
    """Bytes that the cache file may take."""
    cluster_size: int
    extended_l2: bool
    limits: Limits
    storage_daemon: str
    """The program qemu-storage-daemon."""
    qemu_io: str = 'qemu-io'
    """The program that looks which blocks of a base cannot be read."""
    image_hash: str = ''
    """What Glance says of the image's content; empty if nobody knows."""
    audit: bool = False
    """Record on a copy of the cache that boots play, to measure it."""
    serve_only: bool = False
    """Serve the guests that are there, and record nothing."""
    rerecord_miss_percent: int = 100
    """How much an audited boot may miss before the copy becomes the next revision."""
    arguments: tuple[str, ...] = ()
    """With which it can be started again."""
