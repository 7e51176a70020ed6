# SPDX-License-Identifier: Apache-2.0
"""A base that is a file on a local disk, NFS or any other mount."""

import hashlib
import os
import pathlib
import re
import stat
import urllib.parse

from nova_qcache import exception
from nova_qcache.model.source import BaseIdentity
from nova_qcache.model.source import Node
from nova_qcache.model.source import Source
from nova_qcache.system import files

__all__ = ['FileSource']

_PLAIN_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,199}')


class FileSource(Source):
    """``/path/of/base``, ``file:///path/of/base`` or ``file://localhost/path/of/base``."""

    schemes = ('file',)
    drivers = ('file',)

    def __init__(self, reference: str, base_format: str, *, reconnect_seconds: int = 0) -> None:
        super().__init__(reference, base_format, reconnect_seconds=reconnect_seconds)
        path = reference
        if path.startswith('file://'):
            path = path.removeprefix('file://').removeprefix('localhost')
            path = urllib.parse.unquote(path)
        if not path.startswith('/') or '\0' in path or '\n' in path:
            raise self._invalid(
                'it is not an absolute path', 'Give a path from the root, or a URI'
            )
        self.path = pathlib.Path(path)
        self._direct = False

    @property
    def filename(self) -> str:
        return str(self.path)

    def identity(self) -> BaseIdentity:
        facts = self._stat()
        return BaseIdentity(size=facts.st_size, inode=facts.st_ino, mtime_ns=facts.st_mtime_ns)

    def first_bytes(self, count: int) -> bytes:
        facts = self._stat()
        if facts.st_size == 0:
            raise self._invalid('it is empty', 'Check whether its download has ended')
        try:
            with open(self.path, 'rb') as file:
                return file.read(count)
        except OSError as e:
            raise self._invalid(
                e.strerror or str(e),
                f'Let user {os.geteuid()}, which nova-compute runs as, read it',
            ) from e

    def learn(self) -> None:
        # Past the page cache where that is possible: a base read through it takes memory from
        # guests, and the kernel's read-ahead fetches from remote storage what no guest asked
        # for.
        try:
            self._direct = files.supports_direct_io(self.path)
        except OSError as e:
            raise self._invalid(e.strerror or str(e), 'Check whether it is still there') from e

    def protocol_node(self) -> Node:
        return {'driver': 'file', 'filename': str(self.path), 'cache': {'direct': self._direct}}

    def generation_folder(self) -> pathlib.Path:
        return self.path.parent / '.nova-qcache'

    def generation_name(self) -> str:
        name = self.path.name
        if _PLAIN_NAME.fullmatch(name):
            return name
        return hashlib.sha256(os.fsencode(name)).hexdigest()

    def _stat(self) -> os.stat_result:
        try:
            facts = self.path.stat()
        except OSError as e:
            raise self._invalid(
                e.strerror or str(e), 'Give the path of an image that is there'
            ) from e
        if not stat.S_ISREG(facts.st_mode):
            raise self._invalid('it is not a regular file', 'Give the image file itself')
        return facts

    def _invalid(self, reason: str, remedy: str) -> exception.InvalidBase:
        return exception.InvalidBase(base=self.reference, reason=reason, remedy=remedy)
