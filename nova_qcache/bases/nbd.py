# SPDX-License-Identifier: Apache-2.0
"""A base that is an NBD export, in the URIs of the NBD project's uri.md."""

import hashlib
import os
import urllib.parse

from nova_qcache import exception
from nova_qcache.model.source import BaseIdentity
from nova_qcache.model.source import Node
from nova_qcache.model.source import Source

__all__ = ['NbdSource']

_PORT = '10809'
_OPEN_SECONDS = 5


class NbdSource(Source):
    """``nbd://host[:port]/[export]`` or ``nbd+unix:///[export]?socket=/path``."""

    schemes = ('nbd', 'nbd+unix')
    drivers = ('nbd',)

    def __init__(self, reference: str, base_format: str, *, reconnect_seconds: int = 0) -> None:
        super().__init__(reference, base_format, reconnect_seconds=reconnect_seconds)
        try:
            uri = urllib.parse.urlsplit(reference)
            port = uri.port
        except ValueError as e:
            raise self._invalid(str(e)) from e
        self._export = urllib.parse.unquote(uri.path.removeprefix('/'))
        if uri.scheme == 'nbd+unix':
            paths = urllib.parse.parse_qs(uri.query).get('socket', [])
            if uri.netloc or len(paths) != 1 or not paths[0].startswith('/'):
                raise self._invalid('it names no socket')
            self._server = {'type': 'unix', 'path': paths[0]}
        else:
            if not uri.hostname or uri.query or uri.username or port == 0:
                raise self._invalid('it names no host and port')
            self._server = {'type': 'inet', 'host': uri.hostname, 'port': str(port or _PORT)}

    @property
    def filename(self) -> str:
        return self.reference

    def identity(self) -> BaseIdentity:
        # An export has neither inode nor time, and asking for its size takes a connection: its
        # generation decides.
        return BaseIdentity()

    def protocol_node(self) -> Node:
        node: Node = {'driver': 'nbd', 'server': self._server, 'open-timeout': _OPEN_SECONDS}
        if self._export:
            node['export'] = self._export
        if self.reconnect_seconds:
            node['reconnect-delay'] = self.reconnect_seconds
        return node

    def generation_folder(self) -> None:
        return None

    def generation_name(self) -> str:
        return hashlib.sha256(os.fsencode(self.reference)).hexdigest()

    def _invalid(self, reason: str) -> exception.InvalidBase:
        return exception.InvalidBase(
            base=self.reference,
            reason=reason,
            remedy='Give nbd://host[:port]/export or nbd+unix:///export?socket=/path',
        )
