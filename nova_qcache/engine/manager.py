# SPDX-License-Identifier: Apache-2.0
"""The engine of this host, for the command line and for Nova's driver.

It is made of parts that are called themselves: ``boots`` for what boots use, ``pins``,
``maintenance`` and ``time_series``. Other requests of operators are methods here, which
raise errors.
"""

from collections.abc import Iterator
import contextlib
import functools
import logging
import os
from typing import TYPE_CHECKING

from oslo_config import cfg

from nova_qcache import conf as qcache_conf
from nova_qcache import exception
from nova_qcache.cache import cleanup
from nova_qcache.cache import view as view_module
from nova_qcache.cache.expiry import Expiry
from nova_qcache.cache.scrub import Scrubber
from nova_qcache.cache.usage import Domains
from nova_qcache.cache.verify import Verification
from nova_qcache.cache.verify import Verifier
from nova_qcache.cache.view import CacheView
from nova_qcache.engine.boots import Boots
from nova_qcache.engine.host import Host
from nova_qcache.engine.maintenance import Maintenance
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import canonical_image_id
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.states import Phase
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from nova_qcache.qemu.img import QemuImg
from nova_qcache.qemu.io import QemuIo
from nova_qcache.reports import snapshot
from nova_qcache.reports.snapshot import Snapshot
from nova_qcache.reports.time_series import TimeSeries
from nova_qcache.stats.counters import Counters
from nova_qcache.system import processes
from nova_qcache.system import waiting
from nova_qcache.system.progress import Progress
from nova_qcache.system.progress import silent

if TYPE_CHECKING:
    from nova_qcache.system.glance import Glance

__all__ = ['Manager']

LOG = logging.getLogger(__name__)

_WAIT_POLL_SECONDS = 0.05
_LEAVE_SECONDS = 30


class Manager:
    def __init__(
        self, conf: cfg.ConfigOpts, domains: Domains | None = None, *, looks_only: bool = False
    ) -> None:
        """:param conf, domains, looks_only: as :class:`Host` takes them
        :raises QcacheError: as :class:`Host` does
        """
        host = self._host = Host(conf, domains, looks_only=looks_only)
        self.paths = host.paths
        self.pins = host.pins
        self.boots = Boots(host)
        self.time_series = TimeSeries(host.paths)
        self.maintenance = Maintenance(
            host.catalog,
            host.pool,
            Expiry(host.catalog, host.pins, host.pool, _glance(conf)),
            Scrubber(host.catalog),
            self.time_series,
            self.snapshot,
            scrub_bytes=qcache_conf.scrub_bytes(conf),
            metrics_file=conf.qcache.metrics_file,
        )
        self._catalog = host.catalog
        self._usage = host.usage
        group = conf.qcache
        self._verifier = Verifier(
            host.catalog, host.generations, QemuImg(group.qemu_img), QemuIo(group.qemu_io)
        )

    def caches(self, image_id: str | None = None) -> list[CacheView]:
        """Return views of all caches, or those of one image; the newest of an image last. Removed
        caches are included while a process of ours serves their guests."""
        wanted = canonical_image_id(image_id) if image_id is not None else None
        served = {key for key in view_module.served(self.paths) if wanted in (None, key.image_id)}
        keys = sorted(served.union(self._catalog.keys(wanted)))
        views = [view_module.view(self._catalog, key) for key in keys]
        # Epochs are random: the order of generations says nothing about age.
        return sorted(
            views,
            key=lambda view: (view.key.image_id, view.record.created_at if view.record else 0),
        )

    def seal(
        self, image_id: str, wait_seconds: float = 0, progress: Progress = silent
    ) -> CacheView:
        """End the recording of an image now and seal it. A sealed cache is left as it is.

        :param wait_seconds: how long to wait for READY
        :raises CacheNotFound, CacheNotReady: if there is neither a recording nor a READY cache
        :raises RecorderUnreachable: if no recorder answers
        :raises DeadlinePassed: if it is not sealed in time; it may be later
        :raises NotSealed: if the wait ends without READY: its recorder has died or dropped it
        """
        seen = self._in_state(image_id, State.RECORDING) or self._in_state(image_id, State.READY)
        if seen is None:
            raise self._not_ready(image_id, 'nothing is being recorded')
        key = seen.key
        if seen.state == State.READY.value:
            return seen
        self._host.recorder(key).seal()
        if wait_seconds:
            said = waiting.until(
                lambda: self._end_of_seal(key),
                what=f'Sealing the cache of image {key.image_id}',
                seconds=wait_seconds,
                remedy='It goes on; see `nova-qcache list`',
                poll_seconds=_WAIT_POLL_SECONDS,
                progress=progress,
            )
            record = self._catalog.load(key)
            if record is None or record.state is State.RECORDING:
                raise exception.NotSealed(image_id=key.image_id, reason=said)
        return view_module.view(self._catalog, key)

    def invalidate(
        self, image_id: str, base: str | None = None, base_format: str = 'raw'
    ) -> list[CacheKey]:
        """Mark the base of an image as changed, before or after the change: its existing caches
        are never used again.

        :param base: needed only if no cache of the image is here
        :return: the caches that it concerned
        :raises InvalidBase: if there is no such base
        :raises CacheNotFound: if neither a cache nor ``base`` says which base it is
        """
        views = [view for view in self.caches(image_id) if view.state != State.COLD.value]
        bases = {(view.record.base, view.record.base_format) for view in views if view.record}
        if base is not None:
            self._host.source(base, base_format).identity()
            bases.add((base, base_format))
        if not bases:
            raise exception.CacheNotFound(image_id=image_id)
        for reference, its_format in sorted(bases):
            self._host.generations.raise_before_write(self._host.source(reference, its_format))
        for view in views:
            self._host.retire(view, 'invalidated by an operator', Staleness.OPERATOR)
        return [view.key for view in views]

    def remove(
        self, image_id: str, *, force: bool = False, progress: Progress = silent
    ) -> list[CacheKey]:
        """Remove all caches of an image. What serves their guests ends with the last guest, and is
        listed until then.

        :param force: even those that guests read; they go on reading the files, which have no name
            any more
        :raises CacheNotFound: if there is none
        :raises CacheInUse: if a guest reads one, or something names one (see
            :mod:`nova_qcache.cache.usage`). All are looked at before anything is touched; a boot
            that begins after that still keeps what it was told to use
        :raises DeadlinePassed: if its recorder does not let go of it in time
        """
        views = self.caches(image_id)
        if not views:
            raise exception.CacheNotFound(image_id=image_id)
        if not force:
            for view in views:
                view_module.require_no_guests(view)
                self._usage.require_none(view.key)
        for view in views:
            if view.recorder is not None:
                self._dismiss(view, progress, force=force)
            else:
                cleanup.end_daemon(self._catalog, view.key)
        if not force:
            for view in views:
                view_module.require_closed(view)
        for view in views:
            require = functools.partial(self._usage.require_none, view.key)
            self._catalog.discard(view.key, (lambda: None) if force else require)
        return [view.key for view in views]

    def verify(
        self, image_id: str | None = None, progress: Progress = silent
    ) -> Iterator[Verification]:
        """Read the sealed caches of an image, or all, against their digests and their bases;
        retire those that differ. Yields each as soon as it is known.

        One whose base cannot be read stays as it is, and its verification says why.

        :raises CacheNotFound, CacheNotReady: if none of the image is READY
        """
        if image_id is not None and self._in_state(image_id, State.READY) is None:
            raise self._not_ready(image_id, 'only a READY cache is compared with its base')
        for view in self.caches(image_id):
            if view.record is not None and view.record.state is State.READY:
                yield self._verified(view.record, progress)

    def forget(self, image_id: str) -> None:
        """Move the counters of an image into the sums of the host, as for one that was not used
        for long.

        :raises InvalidImageId: if it is none
        """
        self._catalog.counter_store.forget([canonical_image_id(image_id)])

    def snapshot(self) -> Snapshot:
        """Return a snapshot of all images and of the host."""
        return snapshot.gather(self._catalog, self._host.pool, self.pins)

    def allocated_beside(self, folder: str) -> int:
        """Return the bytes that all caches take on the device of a folder.

        :raises OSError: if that folder or the one of the caches cannot be read
        """
        if os.stat(self.paths.cache_path).st_dev != os.stat(folder).st_dev:
            return 0
        return self._catalog.directory.allocated()

    def clean_up(self) -> list[CacheKey]:
        """Clean up after dead processes (see :mod:`nova_qcache.cache.cleanup`), and trim the pool
        to its budget.

        :return: the recordings that were removed
        :raises QcacheError, OSError: if something cannot be removed
        """
        removed = cleanup.clean_up(self._catalog, self._host.leases, self._is_named)
        self.maintenance.name_foreign_files()
        self._host.pool.trim()
        return removed

    # -- below the verbs

    def _is_named(self, key: CacheKey) -> bool:
        try:
            return any(True for _ in self._usage.users(key))
        except exception.DomainsUnknown as e:
            LOG.warning(
                'Cannot determine whether guests use image %s; keeping its files: %s',
                key.image_id,
                e,
            )
            return True

    def _verified(self, record: CacheRecord, progress: Progress) -> Verification:
        try:
            source = self._host.source(record.base, record.base_format)
            return self._verifier.verify(record, source, progress)
        except (exception.QcacheError, OSError) as e:
            self._catalog.counter_store.add(
                record.key.image_id, Counters(verifications={'unknown': 1})
            )
            return Verification(record.key, f'it cannot be compared: {e}', 0)

    def _end_of_seal(self, key: CacheKey) -> str | None:
        """Return what the recorder says once nothing is recorded any more."""
        try:
            status = self._host.recorder(key).status()
        except exception.RecorderUnreachable as e:
            if processes.listener_pid(self.paths.control_socket(key)) is not None:
                return None  # it lives, and is slow
            return str(e)  # with nobody connected it has left, after the seal or without one
        return None if status.phase in (Phase.RECORDING, Phase.SEALING) else status.note

    def _in_state(self, image_id: str, state: State) -> CacheView | None:
        for view in reversed(self.caches(image_id)):
            if view.record is not None and view.record.state is state:
                return view
        return None

    def _not_ready(self, image_id: str, reason: str) -> exception.QcacheError:
        views = self.caches(image_id)
        if not views:
            return exception.CacheNotFound(image_id=image_id)
        state, remedy = views[-1].state, 'The next boot records it again'
        if state == State.RECORDING.value:
            remedy = f'Seal it with `nova-qcache seal {image_id}`, or wait until it is'
        elif state == State.COLD.value:
            state += ' (only processes are left, which serve its guests)'
        return exception.CacheNotReady(
            image_id=image_id, state=state, reason=reason, remedy=remedy
        )

    def _dismiss(self, view: CacheView, progress: Progress, *, force: bool) -> None:
        """Make the recorder forget the cache, and end if it has no guests.

        :raises CacheInUse: if a boot has come meanwhile
        """
        client = self._host.recorder(view.key)

        def has_done_so() -> bool | None:
            try:
                status = client.status()
            except exception.RecorderUnreachable:
                # It has left. Its daemon ends after it, and has the file open until then.
                socket = self.paths.nbd_socket(view.key)
                return True if force or processes.listener_pid(socket) is None else None
            if not force:
                self._usage.require_none(view.key)
            return True if status.phase is Phase.SERVING and status.guests else None

        with contextlib.suppress(exception.RecorderUnreachable):
            client.drop()
            if force:
                client.dismiss()
            else:
                client.leave()
        waiting.until(
            has_done_so,
            what=f'The end of the recorder of image {view.key.image_id}',
            seconds=_LEAVE_SECONDS,
            remedy='Try again later',
            poll_seconds=_WAIT_POLL_SECONDS,
            progress=progress,
        )


def _glance(conf: cfg.ConfigOpts) -> 'Glance | None':
    if not conf.qcache.glance_auth_section:
        return None
    # Imported here: it takes as long as all else, and each command would wait for it.
    from nova_qcache.system.glance import Glance

    return Glance(conf, conf.qcache.glance_auth_section)
