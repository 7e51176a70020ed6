# SPDX-License-Identifier: Apache-2.0
"""Saved guests: removal of chains from their memory images.

Nova's driver removes the chain from what Nova saves. Others save guests, too: an operator with
``virsh managedsave``, the service libvirt-guests when the host goes off. Such a guest may start
after the host's next boot, when there is no recorder, and no cache that lay on a tmpfs. So the
chain is removed from each memory image as soon as it is seen, and the keeper runs as long as a
guest with a chain does.
"""

from collections import defaultdict
from collections.abc import Iterator
import contextlib
import logging
import math
import pathlib
import threading
import time
from typing import Protocol
from xml.parsers import expat

from nova_qcache import exception
from nova_qcache.cache.leases import Leases
from nova_qcache.cache.usage import paths_in
from nova_qcache.model.key import CacheKey
from nova_qcache.system import control
from nova_qcache.system import stripping
from nova_qcache.system.libvirt_domains import Document
from nova_qcache.system.libvirt_domains import Saved
from nova_qcache.system.log_rate_limit import LogRateLimit
from nova_qcache.system.paths import Paths

__all__ = ['Domains', 'SavedGuests']

LOG = logging.getLogger(__name__)

_EVERY_SECONDS = 10
"""Interval without an event after which all domains are read again. Not longer than the keeper
stays after a lease."""
_LIVING_SECONDS = 5
"""Least time between two readings of the XML of all running domains, however many events there
are."""
_UNKNOWN_SECONDS = 180
"""Time for which chains are assumed to exist until libvirt answers. It may start after
nova-compute."""


class Domains(Protocol):
    """:raises DomainsUnknown: each of these, if libvirt does not tell"""

    def living(self) -> Iterator[Document]: ...

    def strip_saved(self) -> list[Saved]: ...


class Events(Protocol):
    def listen(self) -> None:
        """:raises DomainsUnknown: if libvirt is not there"""


class SavedGuests:
    def __init__(
        self,
        paths: Paths,
        leases: Leases,
        domains: Domains,
        events: Events,
        happened: threading.Event,
    ) -> None:
        """:param happened: what is set at each of the events"""
        self._paths = paths
        self._leases = leases
        self._domains = domains
        self._events = events
        self._happened = happened
        self._has_chains = False
        self._unknown_until = time.monotonic() + _UNKNOWN_SECONDS
        self._log_limit: defaultdict[str, LogRateLimit] = defaultdict(LogRateLimit)

    def is_needed(self) -> bool:
        """Return whether a guest with a chain may be saved, as far as is known: a running one, or
        one whose boot is on its way.

        :raises OSError: if leases cannot be read
        """
        return (
            self._has_chains
            or time.monotonic() < self._unknown_until
            or any(True for _ in self._leases.active())
        )

    def run_once(self) -> None:
        """Look at all domains, and again at each event, until there was none for a while.

        :raises DomainsUnknown: if libvirt does not tell
        """
        living_at = -math.inf
        while True:
            self._happened.clear()
            self._events.listen()
            kept = self._strip_saved()
            if time.monotonic() - living_at >= _LIVING_SECONDS:
                living_at = time.monotonic()
                self._has_chains = kept or self._may_run()
                self._unknown_until = 0
            else:
                self._has_chains = True  # whoever has just started may have one
            if not self._happened.wait(_EVERY_SECONDS):
                return

    def _strip_saved(self) -> bool:
        """Return whether one keeps its chain."""
        kept = False
        for saved in self._domains.strip_saved():
            if saved.error is None:
                LOG.info('Removed the cache from the saved state of domain %s', saved.name)
                continue
            kept = True
            LOG.log(
                self._log_limit[saved.name].level(saved.error),
                'Failed to remove the cache from the saved state of domain %s: %s',
                saved.name,
                saved.error,
            )
            self._hold(saved.xml)
        return kept

    def _may_run(self) -> bool:
        """Return whether a guest may run that has a chain."""
        return any(_may_have_chain(xml) for _, xml in self._domains.living())

    def _hold(self, xml: str) -> None:
        """Make the recorders stay that saved guests would read through."""
        try:
            paths = paths_in(xml)
        except exception.DomainsUnknown:  # no XML that anybody can read
            return
        for path in map(pathlib.Path, paths):
            key = CacheKey.from_stem(path.stem)
            if key is not None and path == self._paths.nbd_socket(key):
                with contextlib.suppress(exception.RecorderUnreachable):
                    control.RecorderClient(self._paths.control_socket(key)).hold()


def _may_have_chain(xml: str) -> bool:
    try:
        return stripping.is_in(xml)
    except expat.ExpatError:  # nobody can tell, and no other domain has to wait for that
        return True
