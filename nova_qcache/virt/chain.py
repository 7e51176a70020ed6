# SPDX-License-Identifier: Apache-2.0
"""Chains through caches in the XML of domains.

libvirt takes the ``<backingStore>`` elements of a disk as they stand and does not look at the
overlay's own metadata, which names the base and nothing else. So a chain of ours can be left out
of any XML: the same disk then stands on its base.
"""

import os
import stat

from lxml import etree

from nova_qcache.model import plan as plan_module
from nova_qcache.system.stripping import is_in
from nova_qcache.system.stripping import ON_READ_ERROR
from nova_qcache.system.stripping import strip

__all__ = ['add', 'insert', 'is_in', 'strip']


def add(disk: etree._Element, plan: plan_module.Plan, reconnect_seconds: int = 0) -> None:
    """Put the chain of a plan below a ``<disk>`` element; PLAIN adds nothing.

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
        etree.SubElement(store, 'backingStore')
        # A recorder that went away can come back, and a guest that waits sees no error. Where qemu
        # waits for it by itself, errors are the base's, and the guest's as without a cache.
        if reconnect_seconds:
            etree.SubElement(source, 'reconnect', delay=str(reconnect_seconds))
        else:
            for driver in disk.iterfind('driver'):
                driver.set(ON_READ_ERROR, 'stop')


def insert(xml: str, path: str, plan: plan_module.Plan, reconnect_seconds: int = 0) -> str:
    """Return a domain's XML in which the disk with that file stands on what a plan says."""
    root = etree.fromstring(strip(xml))
    for disk in root.iterfind('.//disk'):
        source = disk.find('source')
        if source is not None and source.get('file') == path:
            for store in disk.findall('backingStore'):  # what libvirt has found
                disk.remove(store)
            add(disk, plan, reconnect_seconds)
    return _text(root)


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
