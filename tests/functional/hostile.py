# SPDX-License-Identifier: Apache-2.0
"""Images that somebody made to harm the host, or that are plainly broken; and a look at whether
anything beside an image was opened.

They are made by hand where qemu-img would not make them.
"""

import ctypes
import os
import pathlib
import struct
import subprocess
from types import TracebackType
from typing import Self

from tests.functional import bases
from tests.functional import users
from tests.functional import waiting
from tests.functional.site import MIB
from tests.functional.site import Site

__all__ = ['Canary', 'add_extension', 'create', 'make_luks', 'patch', 'read_number']

_CLUSTER = 65536
_HEADER_LENGTH = 100
_LUKS_EXTENSION = 0x0537BE77
_LUKS_SLOTS = 8
_LUKS_SLOT_SECTORS = 512
_LUKS_FIRST_SECTOR = 8


class Canary:
    """A file that no process may open, watched by inotify(7)."""

    _OPENED = 0x00000020

    def __init__(self, site: Site) -> None:
        self.path = bases.make_raw(site, MIB, 'canary')
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._fd >= 0, os.strerror(ctypes.get_errno())
        watched = libc.inotify_add_watch(self._fd, os.fsencode(self.path), self._OPENED)
        assert watched >= 0, os.strerror(ctypes.get_errno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def was_opened(self) -> bool:
        """Return whether somebody has opened it since the last question."""
        try:
            return bool(os.read(self._fd, 65536))
        except BlockingIOError:
            return False


def create(site: Site, name: str, *arguments: str) -> pathlib.Path:
    """Make an image of the product's with qemu-img; the last argument is its size."""
    path = site.bases / name
    command = ['qemu-img', 'create', '-q', *arguments[:-1], str(path), arguments[-1]]
    subprocess.run(command, check=True, timeout=waiting.PATIENCE)
    os.chown(path, users.PRODUCT.uid, users.PRODUCT.gid)
    path.chmod(0o644)
    return path


def patch(path: pathlib.Path, offset: int, layout: str, *values: object) -> None:
    """Write numbers into a file, as :mod:`struct` packs them."""
    with open(path, 'r+b') as file:
        file.seek(offset)
        file.write(struct.pack(layout, *values))


def read_number(path: pathlib.Path, offset: int, layout: str) -> int:
    with open(path, 'rb') as file:
        file.seek(offset)
        number: int = struct.unpack(layout, file.read(struct.calcsize(layout)))[0]
    return number


def add_extension(path: pathlib.Path, kind: int, content: bytes) -> None:
    """Make this the only extension of the header of a qcow2 file."""
    padded = content + bytes(-len(content) % 8)
    where = read_number(path, _HEADER_LENGTH, '>I')
    patch(path, where, f'>II{len(padded)}sII', kind, len(content), padded, 0, 0)


def make_luks(site: Site) -> pathlib.Path:
    """Make a qcow2 file that is encrypted with LUKS, and to which no key fits.

    Not with qemu-img: that measures how fast the machine derives keys, and fails where this is
    quicker than the clock of its CPU time.
    """
    path = create(site, 'luks.qcow2', '-f', 'qcow2', '1M')
    sectors = _LUKS_FIRST_SECTOR + _LUKS_SLOTS * _LUKS_SLOT_SECTORS
    header = struct.pack(
        '>6sH32s32s32sII20s32sI40s',
        *(b'LUKS\xba\xbe', 1, b'aes', b'xts-plain64', b'sha256', sectors, 64),
        *(b'digest', b'salt', 1000, b'00000000-0000-0000-0000-000000000000'),
    )
    for number in range(_LUKS_SLOTS):
        first = _LUKS_FIRST_SECTOR + number * _LUKS_SLOT_SECTORS
        header += struct.pack('>II32sII', 0x0000DEAD, 0, b'', first, 4000)  # an unused slot
    where = -(-path.stat().st_size // _CLUSTER) * _CLUSTER
    with open(path, 'r+b') as file:
        file.seek(where)
        file.write(header.ljust(sectors * 512, b'\0'))
    patch(path, 32, '>I', 2)
    add_extension(path, _LUKS_EXTENSION, struct.pack('>QQ', where, sectors * 512))
    return path
