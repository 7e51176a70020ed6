# SPDX-License-Identifier: Apache-2.0
"""Orphan cleanup: recordings, sockets and leases that dead processes have left.

They are unused and harmless, but take space and confuse operators.
"""

from collections.abc import Callable
import contextlib
import logging
import os
import pathlib

from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.leases import Leases
from nova_qcache.model.key import CacheKey
from nova_qcache.model.states import State
from nova_qcache.qemu.storage_daemon import StorageDaemon
from nova_qcache.system import locks
from nova_qcache.system import processes

__all__ = ['clean_up', 'end_daemon']

LOG = logging.getLogger(__name__)


def clean_up(
    catalog: Catalog, leases: Leases, is_named: Callable[[CacheKey], bool] = lambda key: False
) -> list[CacheKey]:
    """Remove orphans of dead processes. Living processes are left alone, also a daemon without a
    recorder: it may have guests, and the keeper starts a recorder for it. So is whatever a domain
    names, which is the keeper's, too.

    :param is_named: says whether a domain or a lease names something of a cache
    :return: the recordings that were removed
    :raises QcacheError, OSError: if something cannot be removed
    """
    leases.clear_ended()
    catalog.clear_leftovers()
    with contextlib.suppress(exception.LockTimeout), locks.keeper(catalog.paths.locks, 0):
        catalog.paths.keeper_log.unlink(missing_ok=True)  # of one that was killed
    removed = []
    for key in sorted(_candidates(catalog)):
        with (
            contextlib.suppress(exception.RecorderBusy),
            locks.recorder(catalog.paths.locks, key),
        ):
            if not is_named(key) and _clean_up_one(catalog, key):
                removed.append(key)
    return removed


def end_daemon(catalog: Catalog, key: CacheKey) -> None:
    """End a daemon whose recorder has died, unless guests are connected.

    :raises CacheInUse: if a recorder is at work after all
    :raises DeadlinePassed: if it does not end
    :raises OSError: if it cannot be looked at
    """
    paths = catalog.paths
    sockets = (paths.qmp_socket(key), paths.nbd_socket(key), paths.control_socket(key))
    if not processes.listening().intersection(sockets):
        return
    try:
        with locks.recorder(paths.locks, key):
            pid = processes.listener_pid(paths.qmp_socket(key))
            if pid is None or processes.connections(paths.nbd_socket(key)):
                return
            with contextlib.suppress(ProcessLookupError):
                daemon = StorageDaemon.adopt(pid)
                daemon.stop(asked=False)
                daemon.process.close()
            for path in (*sockets, paths.respawn_spec(key)):
                path.unlink(missing_ok=True)
    except exception.RecorderBusy as e:
        raise exception.CacheInUse(
            path=str(paths.recording(key)),
            reason='its recorder is at work and does not answer',
            remedy='Try again later',
        ) from e


def _candidates(catalog: Catalog) -> set[CacheKey]:
    """Return the keys of possible orphans. Sealed caches are not among them, however many: only
    libvirt knows whether a domain names one."""
    found = _keys_in(catalog.paths.guests, catalog.paths.control)
    found.update(catalog.directory.recordings())
    keys = catalog.keys()
    for key in keys:
        with contextlib.suppress(exception.RecordBroken):  # an operator's to look at
            record = catalog.load(key)
            if record is None or record.state is State.RECORDING:
                found.add(key)
    return found


def _clean_up_one(catalog: Catalog, key: CacheKey) -> bool:
    paths = catalog.paths
    sockets = (paths.qmp_socket(key), paths.nbd_socket(key), paths.control_socket(key))
    if not all(_nobody_listens(path) for path in sockets):
        return False
    for path in (*sockets, paths.log(key), paths.respawn_spec(key)):
        path.unlink(missing_ok=True)
    try:
        record = catalog.load(key)
    except exception.RecordBroken:
        return False  # an operator's to look at
    recording, sealed = paths.recording(key), paths.sealed(key)
    if record is None and sealed.exists() and sealed.stat().st_nlink > 1:
        catalog.discard_recording(key)  # it was re-tagged, and killed before its record
        return False
    if record is None and paths.record(key).exists() and sealed.exists():
        catalog.discard(key)
        LOG.warning(
            'Removed a cache of image %s: a crash of the host left its record empty',
            key.image_id,
        )
        return False
    if record is None and paths.record(key).exists():
        catalog.discard_recording(key)  # of a recording that a crash of the host left by halves
    elif record is None and recording.exists():
        recording.unlink(missing_ok=True)  # whoever discarded it was killed between the two files
    elif record is not None and record.state is State.RECORDING:
        catalog.discard_recording(key)
    else:
        return False
    LOG.warning('Removed an unfinished recording of image %s: its recorder died', key.image_id)
    return True


def _nobody_listens(path: pathlib.Path) -> bool:
    try:
        return processes.listener_pid(path) is None
    except OSError as e:  # its queue is full, for example: it is not dead
        LOG.warning('Failed to connect to socket %r; leaving its files alone: %s', str(path), e)
        return False


def _keys_in(*folders: pathlib.Path) -> set[CacheKey]:
    found = set()
    for folder in folders:
        for name in os.listdir(folder):
            key = CacheKey.from_stem(name.rpartition('.')[0])
            if key is not None:
                found.add(key)
    return found
