# SPDX-License-Identifier: Apache-2.0
"""Chains through caches in the XML of domains.

libvirt takes the ``<backingStore>`` elements of a disk as they stand and does not look at the
overlay's own metadata, which names the base and nothing else. So a chain of ours can be left out
of any XML: the same disk then stands on its base.
"""

from collections.abc import Iterator
import os
import pathlib
import stat

from lxml import etree

from nova_qcache import plan as plan_module
from nova_qcache.key import CacheKey

__all__ = ['add', 'insert', 'is_in', 'strip']

_SUFFIXES = ('.qcow2', '.nbd')
_ON_READ_ERROR = 'rerror_policy'


def add(disk: etree._Element, plan: plan_module.Plan, reconnect_seconds: int = 0) -> None:
    """Let a ``<disk>`` element stand on what a plan says; PLAIN adds nothing.

    :param reconnect_seconds: for how long reads wait for a recorder that went away; only with a
        libvirt that knows ``<reconnect>`` (9.2)
    """
    if plan.kind is plan_module.PlanKind.PLAY:
        assert plan.cache is not None
        cache = _file(disk, 'qcow2', plan.cache)
        etree.SubElement(_file(cache, plan.base_format, plan.base), 'backingStore')
    elif plan.kind is plan_module.PlanKind.RECORD:
        assert plan.socket is not None
        store = etree.SubElement(disk, 'backingStore', type='network')
        etree.SubElement(store, 'format', type='raw')
        source = etree.SubElement(store, 'source', protocol='nbd', name=plan_module.EXPORT_NAME)
        etree.SubElement(source, 'host', transport='unix', socket=plan.socket)
        if reconnect_seconds:
            etree.SubElement(source, 'reconnect', delay=str(reconnect_seconds))
        etree.SubElement(store, 'backingStore')
        # A recorder that went away can come back, and a guest that waits sees no error.
        for driver in disk.iterfind('driver'):
            driver.set(_ON_READ_ERROR, 'stop')


def insert(xml: str, path: str, plan: plan_module.Plan, reconnect_seconds: int = 0) -> str:
    """Return a domain's XML in which the disk with that file stands on what a plan says."""
    root = etree.fromstring(xml)
    for disk in root.iterfind('.//disk'):
        source = disk.find('source')
        if source is not None and source.get('file') == path:
            _remove_from(disk)
            add(disk, plan, reconnect_seconds)
    return _text(root)


def is_in(xml: str) -> bool:
    """Return whether a disk stands on a cache or a recorder."""
    return any(_ours(disk) for disk in etree.fromstring(xml).iterfind('.//disk'))


def strip(xml: str) -> str:
    """Return a domain's XML without our chains; any other XML comes back as it is."""
    root = etree.fromstring(xml)
    found = [disk for disk in root.iterfind('.//disk') if _ours(disk)]
    for disk in found:
        _remove_from(disk)
    return _text(root) if found else xml


def _text(root: etree._Element) -> str:
    text: str = etree.tostring(root, encoding='unicode')
    return text


def _file(parent: etree._Element, its_format: str, path: str) -> etree._Element:
    store = etree.SubElement(parent, 'backingStore', type='file')
    etree.SubElement(store, 'format', type=its_format)
    source = etree.SubElement(store, 'source', file=path)
    if _everybody_reads(path) or parent.tag == 'disk':
        # libvirt would give the file to the user of qemu, who then could change what all share.
        etree.SubElement(source, 'seclabel', model='dac', relabel='no')
    return store


def _everybody_reads(path: str) -> bool:
    """A base that is closed to qemu's user is libvirt's to open, as without us."""
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return True


def _remove_from(disk: etree._Element) -> None:
    for store in disk.findall('backingStore'):
        disk.remove(store)
    for driver in disk.iterfind('driver'):
        driver.attrib.pop(_ON_READ_ERROR, None)  # Nova sets none


def _ours(disk: etree._Element) -> bool:
    return any(_is_of_a_cache(path) for path in _paths(disk))


def _paths(disk: etree._Element) -> Iterator[str]:
    for store in disk.iterfind('backingStore'):
        for source in store.iter('source'):
            yield source.get('file', '')
        for host in store.iter('host'):
            yield host.get('socket', '')


def _is_of_a_cache(path: str) -> bool:
    # By the name alone: the folder may have been another one when the XML was made.
    name = pathlib.PurePath(path)
    return name.suffix in _SUFFIXES and CacheKey.from_stem(name.stem) is not None
