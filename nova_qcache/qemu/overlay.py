# SPDX-License-Identifier: Apache-2.0
"""The backing file in the qcow2 header of an instance's overlay.

Read from the file itself, in microseconds: ``qemu-img info`` takes tens of milliseconds, and this
is on the way of every boot. A guest writes clusters of its overlay and never this header. The
layout is the one of qemu's docs/interop/qcow2.txt.
"""

import dataclasses
import pathlib
import struct

from nova_qcache import exception

__all__ = ['Backing', 'backing']

_HEADER = struct.Struct('>4sIQI')
_MAGIC = b'QFI\xfb'
_HEADER_LENGTH_AT = 100
_VERSION_2_LENGTH = 72
_EXTENSION = struct.Struct('>II')
_BACKING_FORMAT = 0xE2792ACA
_LONGEST_NAME = 1023
_LARGEST_CLUSTER = 2 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Backing:
    """The base of an overlay as its metadata names it."""

    path: str
    format: str
    """Empty if the overlay does not say; qemu would probe, which nobody should rely on."""


def backing(path: pathlib.Path) -> Backing | None:
    """Return what an overlay stands on, None for an image without a backing file.

    :raises InvalidBase: if the file is no qcow2 image, or cannot be read
    """
    try:
        with open(path, 'rb') as file:
            magic, version, offset, length = _HEADER.unpack(file.read(_HEADER.size))
            if magic != _MAGIC or version < 2:
                raise _unfit(path, 'it is not a qcow2 image')
            if not offset or not length:
                return None
            if length > _LONGEST_NAME:
                raise _unfit(path, f'the name of its backing file has {length} bytes')
            if offset > _LARGEST_CLUSTER:  # the name is in the first cluster
                raise _unfit(path, 'its header is damaged')
            file.seek(offset)
            name = file.read(length).decode()
            if len(name.encode()) < length or '\0' in name:
                raise _unfit(path, 'its header is damaged')
            start = _VERSION_2_LENGTH
            if version >= 3:
                file.seek(_HEADER_LENGTH_AT)
                (start,) = struct.unpack('>I', file.read(4))
            file.seek(start)
            # The extensions end where the name of the backing file begins.
            extensions = file.read(max(offset - start, 0))
        return Backing(name, _format(extensions))
    except OSError as e:
        raise _unfit(path, e.strerror or str(e)) from e
    except (struct.error, ValueError) as e:
        raise _unfit(path, 'its header is damaged') from e


def _format(extensions: bytes) -> str:
    at = 0
    while at + _EXTENSION.size <= len(extensions):
        kind, length = _EXTENSION.unpack_from(extensions, at)
        at += _EXTENSION.size
        if kind == 0:
            break
        if at + length > len(extensions):
            raise ValueError('an extension is longer than the header')
        if kind == _BACKING_FORMAT:
            return extensions[at : at + length].decode(errors='replace')
        at += -(-length // 8) * 8
    return ''


def _unfit(path: pathlib.Path, reason: str) -> exception.InvalidBase:
    return exception.InvalidBase(
        base=str(path), reason=reason, remedy='Its instance boots without a cache'
    )
