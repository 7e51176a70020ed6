# SPDX-License-Identifier: Apache-2.0
"""Lifecycle events of libvirt's domains: a callback says that there was one, and nothing else.

The caller looks at the domains itself, from time to time also without an event: an event may be
lost with its connection.
"""

from collections.abc import Callable
import contextlib
import importlib
import threading
import time
from typing import Any

from nova_qcache import exception

__all__ = ['Lifecycle']

_KEEP_ALIVE_SECONDS, _KEEP_ALIVE_COUNT = 5, 3
_PAUSE_SECONDS = 1
"""After a failure of libvirt's event loop."""


class Lifecycle:
    """libvirt calls back in a thread of this process, which runs its event loop for good."""

    def __init__(self, uri: str, happened: Callable[[], object]) -> None:
        """:param happened: called at each event, and when some may have been lost. It returns at
        once: all of this process's connections wait meanwhile"""
        self._uri = uri
        self._happened = happened
        self._connection: Any = None
        self._callback = 0
        self._loop: threading.Thread | None = None

    def listen(self) -> None:
        """Listen from now on, unless it does.

        :raises DomainsUnknown: if libvirt is not there
        """
        if self._connection is not None and self._connection.isAlive():
            return
        try:
            libvirt = importlib.import_module('libvirt')
        except ImportError as e:
            reason = 'this Python has no module libvirt'
            raise exception.DomainsUnknown(uri=self._uri, reason=reason) from e
        self._forget(libvirt)
        try:
            self._listen(libvirt)
        except libvirt.libvirtError as e:
            raise exception.DomainsUnknown(uri=self._uri, reason=str(e)) from e
        self._happened()

    def _listen(self, libvirt: Any) -> None:
        if self._loop is None:  # it has to be there before the connection
            libvirt.virEventRegisterDefaultImpl()
            self._loop = threading.Thread(target=_run, args=(libvirt,), daemon=True)
            self._loop.start()
        connection = libvirt.openReadOnly(self._uri)
        connection.setKeepAlive(_KEEP_ALIVE_SECONDS, _KEEP_ALIVE_COUNT)
        self._callback = connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lambda *_: self._happened(), None
        )
        self._connection = connection

    def _forget(self, libvirt: Any) -> None:
        """Close a lost connection: as long as it has a callback, it stays open."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with contextlib.suppress(libvirt.libvirtError):
            connection.domainEventDeregisterAny(self._callback)
        with contextlib.suppress(libvirt.libvirtError):
            connection.close()


def _run(libvirt: Any) -> None:
    while True:
        with contextlib.suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()
            continue
        time.sleep(_PAUSE_SECONDS)
