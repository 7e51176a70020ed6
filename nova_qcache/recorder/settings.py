# SPDX-License-Identifier: Apache-2.0
"""Settings of one recorder: the options that concern it, as values."""

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
    """Glance's hash of the image's content; empty if unknown."""
    audit: bool = False
    """Record on a copy of the cache that boots play, to measure it."""
    serve_only: bool = False
    """Serve the guests that are there, and record nothing."""
    rerecord_miss_percent: int = 100
    """Miss ratio above which the copy of an audit becomes the next revision, in percent."""
    arguments: tuple[str, ...] = ()
    """With which it can be started again."""
