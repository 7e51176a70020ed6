# SPDX-License-Identifier: Apache-2.0
"""The domains of this host's libvirt, as the XML documents that speak of files.

A domain has up to three: the one it runs with, the one it starts with next time, and the one in
the memory image of a managed save. Each of its snapshots has those of its time. The others that
libvirt keeps start nothing: those of checkpoints. Files of ``virsh save`` nobody can ask for.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import functools
import importlib
import operator
from typing import Any
from xml.parsers import expat

from nova_qcache import exception
from nova_qcache.system import native
from nova_qcache.system import stripping

__all__ = ['Document', 'LibvirtDomains', 'Paused', 'Saved', 'strip_saved']

_ANSWER_SECONDS = 30
"""Time-out of one question. A libvirt that hangs holds up no lock for longer."""

Document = tuple[str, str]
"""Whose it is, in words for an operator, and the XML."""


@dataclasses.dataclass(frozen=True)
class Paused:
    """A domain that libvirt paused for an I/O error."""

    uuid: str
    name: str
    xml: str
    failed: frozenset[str]
    """Names of the targets (``vda``) of disks with an error other than a lack of space."""
    full: bool
    """True if one of its disks lacks space."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """A domain that was saved with a chain of ours, or with what nobody can read."""

    name: str
    xml: str = ''
    """XML that it was saved with, as far as that is known."""
    error: Exception | None = None
    """Why it names a cache yet; None if it does not any more."""


class LibvirtDomains:
    """Each question is a native call (:mod:`nova_qcache.system.native`) with a deadline.

    Nova's connection makes its own calls so, but not those of the domains in a list.
    """

    def __init__(self, uri: str, connect: Callable[[], Any] | None = None) -> None:
        """:param connect: gives a connection that is somebody else's, in place of one by URI"""
        self._uri = uri
        self._connect = connect
        self._late: list[bool] = []
        """Calls that were given up; emptied when their answer comes after all."""

    def documents(self) -> Iterator[Document]:
        """Yield all documents of all domains.

        :raises DomainsUnknown: if libvirt does not tell
        """
        with self._connection() as (libvirt, connection):
            for domain in self._asked(libvirt, lambda: connection.listAllDomains(0)):
                yield from self._of_one(libvirt, domain)

    def version(self) -> tuple[int, int, int]:
        """Return libvirt's version, by a connection that may resume guests.

        :raises DomainsUnknown: if there is none
        """
        with self._connection(read_only=False) as (libvirt, connection):
            number = self._asked(libvirt, connection.getLibVersion)
        if not isinstance(number, int):
            raise self._unknown(f'its version is {number!r}')
        return number // 1_000_000, number // 1000 % 1000, number % 1000

    def living(self) -> Iterator[Document]:
        """Yield what each running or paused domain runs with.

        :raises DomainsUnknown: if libvirt does not tell
        """
        with self._connection() as (libvirt, connection):
            active = libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
            for domain in self._asked(libvirt, lambda: connection.listAllDomains(active)):
                yield from self._document(libvirt, 'domain', domain, domain.XMLDesc)

    def paused(self) -> list[Paused]:
        """Return the domains that are paused for an I/O error.

        :raises DomainsUnknown: if libvirt does not tell
        """
        with self._connection() as (libvirt, connection):
            flags = libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED
            return [
                found
                for domain in self._asked(libvirt, lambda: connection.listAllDomains(flags))
                if (found := self._asked(libvirt, functools.partial(_paused, libvirt, domain)))
            ]

    def resume(self, uuid: str) -> None:
        """Resume a paused domain; one that has ended meanwhile is left alone.

        :raises DomainsUnknown: if libvirt does not do so
        """
        with self._connection(read_only=False) as (libvirt, connection):
            self._asked(libvirt, lambda: connection.lookupByUUIDString(uuid).resume())

    def strip_saved(self) -> list[Saved]:
        """Remove our chains from all memory images of managed saves; return the domains that had
        one, and those where that failed.

        :raises DomainsUnknown: if libvirt does not tell which there are
        """
        with self._connection(read_only=False) as (libvirt, connection):
            flags = libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE
            return [
                found
                for domain in self._asked(libvirt, lambda: connection.listAllDomains(flags))
                if (found := self._asked(libvirt, functools.partial(_stripped, libvirt, domain)))
            ]

    def _of_one(self, libvirt: Any, domain: Any) -> Iterator[Document]:
        yield from self._document(libvirt, 'domain', domain, domain.XMLDesc)
        if self._asked(libvirt, domain.isPersistent):
            inactive = libvirt.VIR_DOMAIN_XML_INACTIVE
            yield from self._document(
                libvirt, 'definition of domain', domain, domain.XMLDesc, inactive
            )
        if self._asked(libvirt, lambda: domain.hasManagedSaveImage(0)):
            yield from self._document(
                libvirt, 'saved domain', domain, domain.managedSaveGetXMLDesc
            )
        for snapshot in self._asked(libvirt, lambda: domain.listAllSnapshots(0)) or ():
            name = self._asked(libvirt, snapshot.getName)
            yield from self._document(
                libvirt, f'snapshot {name} of domain', domain, snapshot.getXMLDesc
            )

    def _document(
        self, libvirt: Any, what: str, domain: Any, ask: Callable[[int], str], flags: int = 0
    ) -> Iterator[Document]:
        # It may be gone between two questions; what is no more uses nothing.
        found = self._asked(libvirt, lambda: (f'{what} {domain.name()}', ask(flags)))
        if found:
            yield found

    @contextlib.contextmanager
    def _connection(self, *, read_only: bool = True) -> Iterator[tuple[Any, Any]]:
        try:
            libvirt = importlib.import_module('libvirt')
        except ImportError as e:
            raise self._unknown('this Python has no module libvirt') from e
        if self._connect is not None:
            try:
                connection = self._in_time(self._connect, operator.call)
            except exception.DomainsUnknown:
                raise
            except Exception as e:  # its owner's errors are its owner's
                raise self._unknown(str(e)) from e
            yield libvirt, connection
            return
        # Or it prints each error to stderr, also those that are none here. In nova-compute, whose
        # connection it is, Nova has a handler of its own.
        libvirt.registerErrorHandler(lambda context, error: None, None)
        opens = libvirt.openReadOnly if read_only else libvirt.open
        connection = self._asked(libvirt, lambda: opens(self._uri))
        try:
            yield libvirt, connection
        finally:
            if not self._late:  # it would hang likewise
                with contextlib.suppress(libvirt.libvirtError):
                    connection.close()

    def _asked(self, libvirt: Any, ask: Callable[[], Any]) -> Any:
        try:
            return self._in_time(ask, native.run)
        except libvirt.libvirtError as e:
            gone = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT)
            if e.get_error_code() in gone:
                return 0
            raise self._unknown(str(e)) from e

    def _in_time(self, ask: Callable[[], Any], call: Callable[..., Any]) -> Any:
        if self._late:  # one is enough to know that libvirt hangs: each takes a thread
            raise self._unknown('it has not answered an earlier question yet')
        pending = [True]

        def answer() -> Any:
            try:
                return ask()
            finally:
                pending.clear()

        try:
            return native.within(_ANSWER_SECONDS, lambda: call(answer))
        except TimeoutError as e:
            self._late = pending
            raise self._unknown(str(e)) from e

    def _unknown(self, reason: str) -> exception.DomainsUnknown:
        return exception.DomainsUnknown(uri=self._uri, reason=reason)


def strip_saved(libvirt: Any, domain: Any) -> str:
    """Remove our chains from the memory image that a domain would start from; return the XML that
    it was saved with, or nothing if that has no chain.

    :raises libvirtError, xml.parsers.expat.ExpatError: if that fails; the image is as it was
    """
    if not domain.hasManagedSaveImage(0):
        return ''
    # Without secrets it could not be defined again.
    xml: str = domain.managedSaveGetXMLDesc(libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
    plain = stripping.strip(xml)
    if plain == xml:
        return ''
    domain.managedSaveDefineXML(plain, 0)
    return xml


def _stripped(libvirt: Any, domain: Any) -> Saved | None:
    name = domain.name()
    try:
        xml = strip_saved(libvirt, domain)
    except libvirt.libvirtError as e:
        if e.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            return None  # it has gone, or has started
        return Saved(name, _saved_xml(libvirt, domain), e)
    except expat.ExpatError as e:
        return Saved(name, error=e)
    return Saved(name, xml) if xml else None


def _saved_xml(libvirt: Any, domain: Any) -> str:
    with contextlib.suppress(libvirt.libvirtError):
        return str(domain.managedSaveGetXMLDesc(0))
    return ''


def _paused(libvirt: Any, domain: Any) -> Paused | None:
    state, reason = domain.state()
    if (state, reason) != (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR):
        return None
    errors = domain.diskErrors()
    no_space = libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE
    return Paused(
        uuid=domain.UUIDString(),
        name=domain.name(),
        xml=domain.XMLDesc(0),
        failed=frozenset(name for name, error in errors.items() if error != no_space),
        full=no_space in errors.values(),
    )
