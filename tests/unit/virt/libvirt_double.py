# SPDX-License-Identifier: Apache-2.0
"""One domain of libvirt that keeps its three XML documents apart, below Nova's own Guest."""

import dataclasses
from typing import Any
from unittest import mock

import libvirt
from nova import exception as nova_exception
from nova.virt.libvirt import guest as libvirt_guest
from nova.virt.libvirt import host as libvirt_host

from tests.unit.virt import documents


@dataclasses.dataclass
class FakeDomain:
    """The part of libvirt.virDomain that the driver and stock Nova use here."""

    inactive: str | None = None
    active: str | None = None
    saved: str | None = None
    launch_errors: list[BaseException | None] = dataclasses.field(default_factory=list)
    """One for each start to come; None lets it succeed."""
    starts: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    """The XML and flags of each try."""
    migrations: list[tuple[str, dict[str, Any], int]] = dataclasses.field(default_factory=list)
    shuts_down: bool = True
    next_id: int = 7
    snapshots: list[Any] = dataclasses.field(default_factory=list)

    def name(self) -> str:
        return 'instance-00000001'

    def UUIDString(self) -> str:
        return documents.INSTANCE

    def ID(self) -> int:
        return self.next_id if self.active else -1

    def isActive(self) -> int:
        return int(self.active is not None)

    def isPersistent(self) -> int:
        return int(self.inactive is not None)

    def info(self) -> list[int]:
        state = libvirt.VIR_DOMAIN_RUNNING if self.active else libvirt.VIR_DOMAIN_SHUTOFF
        return [state, 131072, 131072, 1, 1]

    def XMLDesc(self, flags: int = 0) -> str:
        inactive = flags & libvirt.VIR_DOMAIN_XML_INACTIVE or self.active is None
        xml = self.inactive if inactive else self.active
        assert xml is not None
        return xml

    def createWithFlags(self, flags: int = 0) -> int:
        xml = self.saved or self.inactive
        assert xml is not None
        self.starts.append((xml, flags))
        error = self.launch_errors.pop(0) if self.launch_errors else None
        if error is not None:
            raise error
        self.active, self.saved = xml, None
        self.next_id += 1
        return 0

    def shutdown(self) -> int:
        if self.shuts_down:
            self.active = None
        return 0

    def managedSave(self, flags: int = 0) -> int:
        self.active, self.saved = None, self.active
        return 0

    def hasManagedSaveImage(self, flags: int = 0) -> int:
        return int(self.saved is not None)

    def managedSaveGetXMLDesc(self, flags: int = 0) -> str:
        assert self.saved is not None
        return self.saved

    def managedSaveDefineXML(self, dxml: str, flags: int = 0) -> int:
        assert self.saved is not None
        self.saved = dxml
        return 0

    def listAllSnapshots(self, flags: int = 0) -> list[Any]:
        return self.snapshots

    def migrateToURI3(self, dconnuri: str, params: dict[str, Any], flags: int = 0) -> int:
        self.migrations.append((dconnuri, params, flags))
        return 0


def error(message: str, code: int = libvirt.VIR_ERR_INTERNAL_ERROR) -> libvirt.libvirtError:
    made = libvirt.libvirtError(message)
    made.err = (code, libvirt.VIR_FROM_QEMU, message, 2, None, None, None, 0, 0)
    return made


def host(domain: FakeDomain) -> mock.Mock:
    """Nova's host with that domain; it is there once it is defined."""

    def get_guest(instance: Any) -> libvirt_guest.Guest:
        if domain.inactive is None and domain.active is None:
            raise nova_exception.InstanceNotFound(instance_id=instance.uuid)
        return libvirt_guest.Guest(domain)

    def define(xml: str) -> libvirt_guest.Guest:
        domain.inactive = xml
        return libvirt_guest.Guest(domain)

    made: mock.Mock = mock.create_autospec(libvirt_host.Host, instance=True)
    made.get_guest.side_effect = get_guest
    made.write_instance_config.side_effect = define
    return made


def refuse(driver, when, error):
    """Let libvirt refuse to define such a document."""
    define = driver._host.write_instance_config.side_effect

    def may_define(xml):
        if when(xml):
            raise error
        return define(xml)

    driver._host.write_instance_config.side_effect = may_define
