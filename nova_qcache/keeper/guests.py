# SPDX-License-Identifier: Apache-2.0
"""Guests that read through recorders, as libvirt knows them.

When the daemon of a recorder is killed, libvirt before 9.2 pauses a guest at its next read instead
of showing it an I/O error (``rerror_policy='stop'``). Once somebody listens on its socket again,
it only has to be resumed; maybe twice, since qemu connects again at the next read. A guest that
does not read notices nothing and connects much later: as long as a domain names a socket, its
recorder stays.

It is paused likewise where its base cannot be read, and again each time it is resumed: qemu
repeats the read, and nothing can hand on the error. Its recorder knows that, and reports it.
"""

import collections
from collections.abc import Iterator
import dataclasses
import logging
import pathlib
import time
from typing import Protocol
from xml.etree import ElementTree

from nova_qcache import exception
from nova_qcache.model.key import CacheKey
from nova_qcache.qemu import overlay
from nova_qcache.recorder import respawn
from nova_qcache.system import control
from nova_qcache.system import processes
from nova_qcache.system.libvirt_domains import Document
from nova_qcache.system.libvirt_domains import Paused
from nova_qcache.system.paths import Paths

__all__ = ['Domains', 'Guests']

LOG = logging.getLogger(__name__)

_EXPECT_EVERY_SECONDS = 10
_MOST_RESUMES = 12
_MOST_IN_VAIN = 2
"""While a part of the base cannot be read: something else may have paused the guest."""
_LONGEST_PAUSE_SECONDS = 60
_STEADY_SECONDS = 10
"""A guest that has run for so long goes on: what pauses it then is new."""
_FORGET_SECONDS = 600


class Domains(Protocol):
    """:raises DomainsUnknown: each of these, if libvirt does not tell"""

    def living(self) -> Iterator[Document]: ...

    def paused(self) -> list[Paused]: ...

    def resume(self, uuid: str) -> None: ...


@dataclasses.dataclass
class _Resumes:
    """Resumes of one domain so far."""

    daemons: frozenset[int]
    """The processes that listened on its sockets then."""
    count: int = 0
    last_at: float = 0.0
    is_given_up: bool = False


class Guests:
    def __init__(self, paths: Paths, domains: Domains, arguments: list[str]) -> None:
        """:param arguments: that a recorder needs to read our configuration"""
        self._paths = paths
        self._domains = domains
        self._arguments = arguments
        self._resumes: dict[str, _Resumes] = {}
        self._expected_at = -float(_EXPECT_EVERY_SECONDS)

    def run_once(self) -> None:
        """Resume paused guests whose recorder answers, and hold the recorders of guests that will
        connect again.

        :raises DomainsUnknown: if libvirt does not tell
        :raises OSError: if the folders cannot be read
        """
        found = self._domains.paused()
        self._forget({paused.uuid for paused in found})
        for paused in found:
            sockets = self._failed_sockets(paused)
            daemons = {socket: _listener(socket) for socket in sockets}
            if daemons and None not in daemons.values():
                self._resume(paused, frozenset(filter(None, daemons.values())), sockets)
        if time.monotonic() - self._expected_at >= _EXPECT_EVERY_SECONDS:
            self._expected_at = time.monotonic()
            self._hold_recorders()

    # -- paused ones

    def _failed_sockets(self, paused: Paused) -> set[pathlib.Path]:
        if paused.full:  # it would pause again at once; its own storage is its operator's
            return set()
        disks = _disks(paused.xml, self._paths)
        return {socket for target, socket, _ in disks if target in paused.failed}

    def _forget(self, paused: set[str]) -> None:
        now = time.monotonic()
        for each, done in list(self._resumes.items()):
            if each in paused and done.is_given_up:
                continue
            after = _FORGET_SECONDS if each in paused else _STEADY_SECONDS
            if now - done.last_at >= after:
                del self._resumes[each]

    def _resume(self, paused: Paused, daemons: frozenset[int], sockets: set[pathlib.Path]) -> None:
        now = time.monotonic()
        done = self._resumes.get(paused.uuid)
        if done is None or done.daemons != daemons:  # what paused it then may be over
            done = self._resumes[paused.uuid] = _Resumes(daemons)
        is_readable = not any(self._unreadable_blocks(socket) for socket in sockets)
        if is_readable and done.is_given_up:
            done = self._resumes[paused.uuid] = _Resumes(daemons)
        if done.count >= (_MOST_RESUMES if is_readable else _MOST_IN_VAIN):
            if not is_readable and not done.is_given_up:
                done.is_given_up = True
                LOG.error(
                    'Domain %s stays paused: the base of its disk %s cannot be read in places, and'
                    ' libvirt before 9.2 cannot hand the error to the guest. It goes on once the'
                    ' base can be read; a hard reboot gives it a plain chain',
                    paused.name,
                    ', '.join(sorted(paused.failed)),
                )
            return
        if done.count and now - done.last_at < min(_LONGEST_PAUSE_SECONDS, 2 ** (done.count - 1)):
            return
        done.count += 1
        done.last_at = now
        if done.count == _MOST_RESUMES:
            LOG.error(
                'Domain %s paused again after each of %d resumes; no longer resuming it',
                paused.name,
                done.count,
            )
        LOG.warning('Resuming domain %s: its recorder answers', paused.name)
        self._domains.resume(paused.uuid)

    def _unreadable_blocks(self, socket: pathlib.Path) -> int:
        key = CacheKey.from_stem(socket.stem)
        if key is None:
            return 0
        try:
            recorder = control.RecorderClient(self._paths.control_socket(key))
            return recorder.status().unreadable_blocks
        except exception.RecorderUnreachable:
            return 0  # nobody knows of any

    # -- those who will come back

    def _hold_recorders(self) -> None:
        named: collections.Counter[CacheKey] = collections.Counter()
        for _, xml in self._domains.living():
            for _, socket, disk in _disks(xml, self._paths):
                key = CacheKey.from_stem(socket.stem)
                if key is not None:
                    named[key] += 1
                    self._restore_respawn_spec(key, disk)
        for key, count in named.items():
            recorder = control.RecorderClient(self._paths.control_socket(key))
            try:
                if recorder.status().guests < count:
                    recorder.hold()
            except exception.RecorderUnreachable:
                continue  # it will be started again

    def _restore_respawn_spec(self, key: CacheKey, disk: pathlib.Path) -> None:
        """Restore a lost respawn spec of a recorder: its guests name the base."""
        if respawn.read(self._paths, key) is not None:
            return
        try:
            base = overlay.backing(disk)
        except exception.InvalidBase as e:
            LOG.warning(
                'Failed to restart the recorder of image %s; its guests wait: %s', key.image_id, e
            )
            return
        if base is not None:
            more = [f'--base={base.path}', f'--base-format={base.format}', key.image_id]
            respawn.note(self._paths, key, [*self._arguments, *more])


def _disks(xml: str, paths: Paths) -> Iterator[tuple[str, pathlib.Path, pathlib.Path]]:
    """Yield the target's name, the socket and the overlay of each disk that reads through one of
    our recorders."""
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314  libvirt wrote it
    except ElementTree.ParseError as e:
        raise exception.DomainsUnknown(uri='an XML document', reason=str(e)) from e
    for disk in root.iterfind('./devices/disk'):
        target, source = disk.find('target'), disk.find('source')
        for host in disk.iterfind('.//backingStore//host'):
            socket = pathlib.Path(host.get('socket', ''))
            if socket.parent == paths.guests and target is not None and source is not None:
                yield target.get('dev', ''), socket, pathlib.Path(source.get('file', ''))


def _listener(socket: pathlib.Path) -> int | None:
    try:
        return processes.listener_pid(socket)
    except OSError:
        return None
