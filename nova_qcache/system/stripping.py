# SPDX-License-Identifier: Apache-2.0
"""Chains of ours in the XML of domains: seen, and taken out.

Without lxml, which only comes with Nova. All else is written as it was read: libvirt wants the
namespaces of metadata declared where they are. But up to Python 3.12 minidom writes line breaks
in attributes as they are, and whoever reads them next sees blanks.
"""

from collections.abc import Iterator
import pathlib
from xml.dom import minidom

from nova_qcache.model.key import CacheKey

__all__ = ['ON_READ_ERROR', 'is_in', 'strip']

ON_READ_ERROR = 'rerror_policy'
"""The attribute of ``<driver>`` that a chain through a recorder comes with; Nova sets none."""

_SUFFIXES = ('.qcow2', '.nbd')


def is_in(xml: str | bytes) -> bool:
    """Return whether a disk stands on a cache or a recorder.

    :raises xml.parsers.expat.ExpatError: if it is no XML
    """
    return any(_disks_of_ours(_parsed(xml)))


def strip(xml: str) -> str:
    """Return a domain's XML without our chains; any other XML comes back as it is.

    :raises xml.parsers.expat.ExpatError: if it is no XML
    """
    document = _parsed(xml)
    found = list(_disks_of_ours(document))
    for disk in found:
        for store in _children(disk, 'backingStore'):
            disk.removeChild(store)
        for driver in _children(disk, 'driver'):
            if driver.hasAttribute(ON_READ_ERROR):
                driver.removeAttribute(ON_READ_ERROR)
    assert document.documentElement is not None
    return document.documentElement.toxml() if found else xml


def _parsed(xml: str | bytes) -> minidom.Document:
    return minidom.parseString(xml)  # noqa: S318  libvirt or Nova wrote it


def _disks_of_ours(document: minidom.Document) -> Iterator[minidom.Element]:
    for disk in document.getElementsByTagName('disk'):
        if any(_is_of_a_cache(path) for path in _paths(disk)):
            yield disk


def _paths(disk: minidom.Element) -> Iterator[str]:
    for store in _children(disk, 'backingStore'):
        for source in store.getElementsByTagName('source'):
            yield source.getAttribute('file')
        for host in store.getElementsByTagName('host'):
            yield host.getAttribute('socket')


def _children(disk: minidom.Element, name: str) -> list[minidom.Element]:
    return [
        child
        for child in disk.childNodes
        if isinstance(child, minidom.Element) and child.tagName == name
    ]


def _is_of_a_cache(path: str) -> bool:
    # By the name alone: the folder may have been another one when the XML was made.
    name = pathlib.PurePath(path)
    return name.suffix in _SUFFIXES and CacheKey.from_stem(name.stem) is not None
