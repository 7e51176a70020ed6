# SPDX-License-Identifier: Apache-2.0
"""The domains of this host's libvirt, as the XML documents that speak of files.

A domain has up to three: the one it runs with, the one it starts with next time, and the one in
the memory image of a managed save.
"""

from collections.abc import Callable, Iterator
import contextlib
import importlib
from typing import Any

from nova_qcache import exception

__all__ = ['Document', 'LibvirtDomains']

Document = tuple[str, str]
"""Whose it is, in words for an operator, and the XML."""


class LibvirtDomains:
    def __init__(self, uri: str, connect: Callable[[], Any] | None = None) -> None:
        """:param connect: gives a connection that is somebody else's, in place of one by URI"""
        self._uri = uri
        self._connect = connect

    def documents(self) -> Iterator[Document]:
        """Yield all documents of all domains.

        :raises DomainsUnknown: if libvirt does not tell
        """
        with self._connection() as (libvirt, connection):
            for domain in self._asked(libvirt, lambda: connection.listAllDomains(0)):
                yield from self._of_one(libvirt, domain)

    def _of_one(self, libvirt: Any, domain: Any) -> Iterator[Document]:
        def xml(what: str, ask: Callable[[], str]) -> Iterator[Document]:
            try:
                yield f'{what} {domain.name()}', ask()
            except libvirt.libvirtError as e:
                # It may have ended between two questions; what is no more uses nothing.
                if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise self._unknown(str(e)) from e

        yield from xml('domain', lambda: domain.XMLDesc(0))
        if self._asked(libvirt, domain.isPersistent):
            inactive = libvirt.VIR_DOMAIN_XML_INACTIVE
            yield from xml('definition of domain', lambda: domain.XMLDesc(inactive))
        if self._asked(libvirt, lambda: domain.hasManagedSaveImage(0)):
            yield from xml('saved domain', lambda: domain.managedSaveGetXMLDesc(0))

    @contextlib.contextmanager
    def _connection(self) -> Iterator[tuple[Any, Any]]:
        try:
            libvirt = importlib.import_module('libvirt')
        except ImportError as e:
            raise self._unknown('this Python has no module libvirt') from e
        if self._connect is not None:
            try:
                connection = self._connect()
            except Exception as e:  # its owner's errors are its owner's
                raise self._unknown(str(e)) from e
            yield libvirt, connection
            return
        # Or it prints each error to stderr, also those that are none here. In nova-compute, whose
        # connection it is, Nova has a handler of its own.
        libvirt.registerErrorHandler(lambda context, error: None, None)
        connection = self._asked(libvirt, lambda: libvirt.openReadOnly(self._uri))
        try:
            yield libvirt, connection
        finally:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    def _asked(self, libvirt: Any, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except libvirt.libvirtError as e:
            if e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return 0
            raise self._unknown(str(e)) from e

    def _unknown(self, reason: str) -> exception.DomainsUnknown:
        return exception.DomainsUnknown(uri=self._uri, reason=reason)
