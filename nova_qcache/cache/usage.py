# SPDX-License-Identifier: Apache-2.0
"""Users of a cache, which keep it from being removed.

XML outlives a boot. A cache is in use as long as its file or its recorder's socket is named by a
domain (running, defined or saved) or a snapshot of one, by an ``unrescue.xml`` that Nova keeps for
the end of a rescue, or by a lease of a boot that is on its way.
"""

from collections.abc import Iterator
import os
import pathlib
from typing import Protocol
from xml.etree import ElementTree

from nova_qcache import exception
from nova_qcache.cache.leases import Leases
from nova_qcache.model.key import CacheKey
from nova_qcache.system.libvirt_domains import Document
from nova_qcache.system.paths import Paths

__all__ = ['Domains', 'Usage', 'paths_in']


class Domains(Protocol):
    """Source of the XML of domains."""

    def documents(self) -> Iterator[Document]:
        """:raises DomainsUnknown: if it cannot be told"""


class Usage:
    def __init__(
        self,
        paths: Paths,
        leases: Leases,
        instances: pathlib.Path,
        domains: Domains | None,
    ) -> None:
        """:param instances: Nova's ``instances_path``
        :param domains: None on a host whose guests are not libvirt's
        """
        self._paths = paths
        self._leases = leases
        self._instances = instances
        self._domains = domains

    def users(self, key: CacheKey) -> Iterator[str]:
        """Yield everyone who uses a cache, in words for an operator; the cheap questions come
        first.

        :raises DomainsUnknown: if libvirt does not tell
        """
        for lease in self._leases.active():
            if lease.key == key:
                yield f'the boot of {lease.consumer} that is on its way'
        wanted = self._names(key)
        for whose, text in self._documents():
            if wanted & paths_in(text):
                yield whose

    def in_use(self) -> set[CacheKey]:
        """Return all caches that somebody uses, at the cost of asking for one.

        :raises DomainsUnknown: if libvirt does not tell
        """
        # Leases first: one that ends meanwhile has become a domain, which is asked for then.
        found = {lease.key for lease in self._leases.active()}
        for _, text in self._documents():
            for name in paths_in(text):
                key = CacheKey.from_stem(pathlib.PurePath(name).stem)
                if key is not None and name in self._names(key):
                    found.add(key)
        return found

    def require_none(self, key: CacheKey) -> None:
        """:raises CacheInUse: if somebody uses the cache, or nobody can tell"""
        remedy = 'End or reboot it, delete it if it is a snapshot, or add --force'
        try:
            reason = next((f'{user} names it' for user in self.users(key)), None)
        except exception.DomainsUnknown as e:
            reason, remedy = e.problem_and_remedy()
            remedy = remedy.rstrip('.')
        if reason is not None:
            raise exception.CacheInUse(
                path=str(self._paths.sealed(key)), reason=reason, remedy=remedy
            )

    def _names(self, key: CacheKey) -> set[str]:
        return {str(self._paths.sealed(key)), str(self._paths.nbd_socket(key))}

    def _documents(self) -> Iterator[Document]:
        for name in self._instance_names():
            path = self._instances / name / 'unrescue.xml'
            try:
                yield f'rescued instance {name}', path.read_text()
            except (FileNotFoundError, NotADirectoryError):  # most are not rescued
                continue
            except (OSError, UnicodeDecodeError) as e:
                raise exception.DomainsUnknown(uri=str(path), reason=str(e)) from e
        if self._domains is not None:
            yield from self._domains.documents()

    def _instance_names(self) -> list[str]:
        try:
            return sorted(os.listdir(self._instances))
        except FileNotFoundError:  # no Nova, no rescue
            return []
        except OSError as e:
            raise exception.DomainsUnknown(uri=str(self._instances), reason=str(e)) from e


def paths_in(text: str) -> set[str]:
    """Return all files and sockets that the disks of a domain's XML name, at any depth.

    :raises DomainsUnknown: if it is no XML
    """
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  libvirt or Nova wrote it
    except ElementTree.ParseError as e:
        raise exception.DomainsUnknown(uri='an XML document', reason=str(e)) from e
    found = {source.get('file') for source in root.iterfind('.//disk//source')}
    found |= {host.get('socket') for host in root.iterfind('.//disk//host')}
    return {path for path in found if path}
