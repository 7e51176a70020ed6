# SPDX-License-Identifier: Apache-2.0
"""Division of the quota of a cache file; all in bytes from the start of the file.

::

    0 .......... threshold .. write_limit .. file_limit .. quota
    |  recording |  in flight |  tables     |  the file system's own tables for the file

At the threshold qemu raises an event and the recorder seals. What is in flight by then, or comes
while the recorder is stopped, may fill the file up to the write limit, where the kernel refuses.
By that time qcow2 has given places to tables that it still holds in memory, some beyond the limit:
the last part is theirs, opened when nothing is recorded any more.

One table may lie further out. For each stretch of the file qcow2 keeps a block of reference counts
at the beginning of that stretch, and requests in flight get places far beyond the limit before
they are refused. A limit shortly before such a boundary would leave a block that cannot be
written, and the seal would fail. So limits keep their distance from it. With clusters of 4 KiB,
whose stretches are 128 MiB, that is impossible: a recording under heavy load may then be dropped
at its quota.
"""

__all__ = ['file_limit', 'least', 'threshold', 'write_limit']

_LEAST_OF_FILE_SYSTEM = 16384

_TABLES = 64
"""Clusters kept for tables at the least; most recordings need none of them."""

_IN_FLIGHT = 256 * 1024 * 1024
"""Eight guests with 16 requests of 1 MiB each have half of this in flight."""


def file_limit(quota: int) -> int:
    """Return the length that is reserved, and that the file can reach at all."""
    # ext4 and others count the blocks of a file's extent tree with the file's own.
    return quota - max(quota // 256, _LEAST_OF_FILE_SYSTEM)


def write_limit(quota: int, cluster_size: int) -> int:
    """Return the length that the file can reach while it is recorded."""
    limit = file_limit(quota) - max(quota // 32, min(_TABLES * cluster_size, quota // 4))
    stretch = 8 * cluster_size * cluster_size  # one bit for each cluster, one cluster of bits
    boundary = -(-limit // stretch) * stretch
    if stretch > 2 * _IN_FLIGHT and boundary - limit < _IN_FLIGHT:
        return boundary - _IN_FLIGHT
    return limit


def threshold(quota: int, cluster_size: int) -> int:
    """Return the length at which a recording is sealed."""
    limit = write_limit(quota, cluster_size)
    return limit - limit // 64


def least(empty: int, cluster_size: int) -> int:
    """Return the least quota that is worth it with ``empty`` bytes of tables."""
    return 2 * (empty + 16 * cluster_size)
