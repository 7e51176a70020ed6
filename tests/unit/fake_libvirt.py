# SPDX-License-Identifier: Apache-2.0
"""A module libvirt without libvirt: what the product calls, named as the binding names it."""

from collections.abc import Callable
import dataclasses
import types
from typing import Any

__all__ = ['Connection', 'Domain', 'LibvirtError', 'Snapshot', 'module']

VIR_DOMAIN_XML_INACTIVE = 2
VIR_ERR_NO_DOMAIN = 42
VIR_ERR_NO_DOMAIN_SNAPSHOT = 72
VIR_CONNECT_LIST_DOMAINS_ACTIVE = 1
VIR_CONNECT_LIST_DOMAINS_PAUSED = 32
VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE = 256
VIR_DOMAIN_SAVE_IMAGE_XML_SECURE = 1
VIR_DOMAIN_EVENT_ID_LIFECYCLE = 0
VIR_DOMAIN_PAUSED = 3
VIR_DOMAIN_PAUSED_IOERROR = 5
VIR_DOMAIN_DISK_ERROR_UNSPEC = 1
VIR_DOMAIN_DISK_ERROR_NO_SPACE = 2
VIR_ERR_SYSTEM_ERROR = 38
VIR_ERR_OPERATION_INVALID = 55
VIR_ERR_XML_INTERNAL = 84


class LibvirtError(Exception):
    """The binding's ``libvirtError``; it always carries a message."""

    def __init__(self, message: str, code: int = VIR_ERR_SYSTEM_ERROR) -> None:
        super().__init__(message)
        self._code = code

    def get_error_code(self) -> int:
        return self._code


def gone() -> LibvirtError:
    return LibvirtError('Domain not found', VIR_ERR_NO_DOMAIN)


@dataclasses.dataclass
class Snapshot:
    title: str
    xml: Any

    def getName(self) -> str:
        return self.title

    def getXMLDesc(self, flags: int = 0) -> Any:
        assert flags == 0, 'a read-only connection may ask for nothing secure'
        return _answer(self.xml)


@dataclasses.dataclass
class Domain:
    """A domain and its documents; an exception in place of one is raised."""

    title: str
    live: Any = '<domain/>'
    inactive: Any = None
    saved: Any = None
    why: Any = (1, 1)
    """State and reason."""
    errors: Any = dataclasses.field(default_factory=dict)
    resumed: int = 0
    snapshots: Any = ()
    tells_secrets: bool = False
    define_error: Exception | None = None

    def listAllSnapshots(self, flags: int = 0) -> Any:
        assert flags == 0
        return _answer(self.snapshots)

    def state(self) -> Any:
        return list(_answer(self.why))

    def diskErrors(self) -> Any:
        return _answer(self.errors)

    def UUIDString(self) -> str:
        return f'uuid-of-{self.title}'

    def resume(self) -> None:
        _answer(self.why)
        self.resumed += 1

    def name(self) -> str:
        return self.title

    def XMLDesc(self, flags: int = 0) -> Any:
        assert flags in (0, VIR_DOMAIN_XML_INACTIVE)
        return _answer(self.inactive if flags else self.live)

    def isPersistent(self) -> int:
        if isinstance(self.live, LibvirtError) and self.inactive is None:
            _answer(self.live)
        return int(self.inactive is not None)

    def hasManagedSaveImage(self, flags: int = 0) -> int:
        assert flags == 0
        return int(self.saved is not None)

    def managedSaveGetXMLDesc(self, flags: int = 0) -> Any:
        secure = VIR_DOMAIN_SAVE_IMAGE_XML_SECURE if self.tells_secrets else 0
        assert flags in (0, secure), 'a read-only connection may ask for nothing secure'
        return _answer(self.saved)

    def managedSaveDefineXML(self, xml: str, flags: int = 0) -> int:
        assert flags == 0
        _answer(self.define_error)
        self.saved = xml
        return 0


@dataclasses.dataclass
class Connection:
    domains: Any
    is_open: bool = True
    closed: int = 0
    """How often."""
    close_error: Exception | None = None

    writable: bool = False
    callbacks: list[Callable[..., object]] = dataclasses.field(default_factory=list)

    def listAllDomains(self, flags: int = 0) -> Any:
        active, paused = VIR_CONNECT_LIST_DOMAINS_ACTIVE, VIR_CONNECT_LIST_DOMAINS_PAUSED
        assert flags in (0, active, paused, VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)
        assert self.is_open
        return _answer(self.domains)

    def setKeepAlive(self, interval: int, count: int) -> int:
        assert interval * count < 60
        return 0

    def isAlive(self) -> int:
        return int(self.is_open)

    def domainEventRegisterAny(
        self, domain: Any, event: int, callback: Callable[..., object], opaque: Any
    ) -> int:
        assert (domain, event) == (None, VIR_DOMAIN_EVENT_ID_LIFECYCLE)
        self.callbacks.append(callback)
        return len(self.callbacks) - 1

    def domainEventDeregisterAny(self, callback: int) -> int:
        del self.callbacks[callback]
        if self.close_error:
            raise self.close_error
        return 0

    def getLibVersion(self) -> Any:
        return 9_002_001

    def lookupByUUIDString(self, uuid: str) -> Any:
        assert self.writable, 'a read-only connection resumes nobody'
        found = [each for each in self.domains if each.UUIDString() == uuid]
        return found[0] if found else _answer(gone())

    def close(self) -> int:
        self.is_open = False
        self.closed += 1
        if self.close_error:
            raise self.close_error
        return 0


def module(connection: Any) -> types.ModuleType:
    """Make the module; ``opened`` are the URIs that were opened, ``handlers`` those of errors."""
    made: Any = types.ModuleType('libvirt')
    made.libvirtError = LibvirtError
    made.VIR_DOMAIN_XML_INACTIVE = VIR_DOMAIN_XML_INACTIVE
    made.VIR_ERR_NO_DOMAIN = VIR_ERR_NO_DOMAIN
    made.VIR_ERR_NO_DOMAIN_SNAPSHOT = VIR_ERR_NO_DOMAIN_SNAPSHOT
    made.VIR_CONNECT_LIST_DOMAINS_ACTIVE = VIR_CONNECT_LIST_DOMAINS_ACTIVE
    made.VIR_CONNECT_LIST_DOMAINS_PAUSED = VIR_CONNECT_LIST_DOMAINS_PAUSED
    made.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE = VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE
    made.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE = VIR_DOMAIN_SAVE_IMAGE_XML_SECURE
    made.VIR_DOMAIN_EVENT_ID_LIFECYCLE = VIR_DOMAIN_EVENT_ID_LIFECYCLE
    made.VIR_ERR_OPERATION_INVALID = VIR_ERR_OPERATION_INVALID
    made.VIR_DOMAIN_PAUSED = VIR_DOMAIN_PAUSED
    made.VIR_DOMAIN_PAUSED_IOERROR = VIR_DOMAIN_PAUSED_IOERROR
    made.VIR_DOMAIN_DISK_ERROR_NO_SPACE = VIR_DOMAIN_DISK_ERROR_NO_SPACE
    made.opened = []
    made.handlers = []

    def open_read_only(uri: str | None = None) -> Any:
        made.opened.append(uri)
        connection.is_open = True
        return _answer(connection)

    def register_error_handler(handler: Any, context: Any) -> int:
        made.handlers.append(handler)
        return 1

    def open_to_write(uri: str | None = None) -> Any:
        connection.writable = True
        return open_read_only(uri)

    made.openReadOnly = open_read_only
    made.open = open_to_write
    made.registerErrorHandler = register_error_handler
    result: types.ModuleType = made
    return result


def _answer(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value
