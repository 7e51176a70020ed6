# SPDX-License-Identifier: Apache-2.0
"""Bytes that the servers of bases have sent, as the kernel's NFS client counts them.

No other file system counts what it has read from its server. The counter is the mount's: all that
is read through it counts, whoever reads, from the time when it was mounted.
"""

from collections.abc import Iterable
import logging
import os
import pathlib
import re

__all__ = ['bytes_from_servers', 'parse']

LOG = logging.getLogger(__name__)

_MOUNTSTATS = pathlib.Path('/proc/self/mountstats')
_MOUNT = re.compile(
    r'(?:no device|device \S+) mounted on (?P<point>\S+) with fstype (?P<type>\S+)'
)
_ESCAPED = re.compile(r'\\([0-7]{3})')
_FROM_SERVER = 4
"""Place in the line "bytes:" (NFSIOS_SERVERREADBYTES of Linux' nfs_iostat.h)."""


def bytes_from_servers(bases: Iterable[str]) -> dict[str, int]:
    """Return, for each NFS mount that holds a base, the bytes that its server has sent.

    The bases are not touched, since a look at a server that is away would hang; so a symbolic
    link on the way to one is not followed.

    :param bases: references of bases; those that are no paths are on no mount
    """
    paths = {base for base in bases if base.startswith('/')}
    if not paths:
        return {}
    try:
        mounts = parse(_MOUNTSTATS.read_text(errors='backslashreplace'))
    except OSError as e:
        LOG.info('Failed to read the counters of NFS mounts; leaving them out: %s', e)
        return {}
    # Bases lie together: what is above them is gone through once.
    points = {path for path in paths if path in mounts}
    folders = {os.path.dirname(path) for path in paths - points}
    points |= {_mount_point(folder, mounts) for folder in folders}
    counted = ((point, mounts.get(point)) for point in sorted(points))
    return {point: count for point, count in counted if count is not None}


def parse(text: str) -> dict[str, int | None]:
    """Read ``/proc/self/mountstats``: all mount points, with the bytes from the server where they
    are counted. Of two mounts at one place the later one hides the other."""
    found: dict[str, int | None] = {}
    point, is_nfs = '', False
    for line in text.splitlines():
        if match := _MOUNT.match(line):
            point = _ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), match['point'])
            is_nfs = match['type'] in ('nfs', 'nfs4')
            found[point] = None
            continue
        words = line.split()
        if is_nfs and words[:1] == ['bytes:']:
            counters = words[1:]
            if len(counters) > _FROM_SERVER and counters[_FROM_SERVER].isdecimal():
                found[point] = int(counters[_FROM_SERVER])
    return found


def _mount_point(folder: str, mounts: dict[str, int | None]) -> str:
    """Return the mount that a folder is on, going by names alone."""
    while folder not in mounts and folder != (above := os.path.dirname(folder)):
        folder = above
    return folder
