# SPDX-License-Identifier: Apache-2.0
"""The door: the one thing that the command line and Nova's driver call.

:meth:`Manager.plan` is the way of a boot. It never raises: whatever is wrong with a cache, the
boot is PLAIN and the plan says why. Everything else is for operators and raises what is wrong.
"""

import contextlib
import dataclasses
import logging
import pathlib

from oslo_config import cfg

from nova_qcache import conf as qcache_conf
from nova_qcache import control
from nova_qcache import exception
from nova_qcache import inspection
from nova_qcache import plugins
from nova_qcache import waiting
from nova_qcache.generation import Generations
from nova_qcache.inspection import CacheView
from nova_qcache.key import CacheKey
from nova_qcache.key import canonical_image_id
from nova_qcache.paths import Paths
from nova_qcache.plan import Plan
from nova_qcache.plan import PlanKind
from nova_qcache.progress import Progress
from nova_qcache.progress import silent
from nova_qcache.qemu_img import QemuImg
from nova_qcache.qemu_io import QemuIo
from nova_qcache.recorder import launch
from nova_qcache.source import Source
from nova_qcache.source import Suspicion
from nova_qcache.states import Phase
from nova_qcache.states import State
from nova_qcache.store import Store
from nova_qcache.verifier import Verification
from nova_qcache.verifier import Verifier

__all__ = ['Manager']

LOG = logging.getLogger(__name__)

_WAIT_POLL_SECONDS = 0.05
_LEAVE_SECONDS = 30


class Manager:
    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """:param conf: on which :func:`nova_qcache.conf.register_opts` was called
        :raises InvalidOption, InvalidQuota: if the configuration makes no sense
        :raises FolderUnfit: if the folders cannot be used
        """
        qcache_conf.validate(conf)
        self._conf = conf
        self.paths = Paths.from_conf(conf)
        self.paths.prepare()
        group = conf.qcache
        self._store = Store(self.paths, group.lock_timeout_seconds)
        self._generations = Generations(self.paths, group.lock_timeout_seconds)
        self._verifier = Verifier(
            self._store, self._generations, QemuImg(group.qemu_img), QemuIo(group.qemu_io)
        )

    # -- the way of a boot

    def plan(self, image_id: str, base: str, base_format: str) -> Plan:
        """Decide what a boot uses, and start a recorder if it is to record. Never raises for a
        cache's sake."""
        try:
            plan = self.preview(image_id, base, base_format)
            if plan.kind is PlanKind.RECORD:
                plan = self.record(image_id, base, base_format)
        except (exception.QcacheError, OSError) as e:
            LOG.warning('Image %s boots without a cache: %s', image_id, e)
            return Plan(PlanKind.PLAIN, str(e), image_id, base, base_format)
        except Exception as e:  # the first invariant: not even a fault of ours fails a boot
            LOG.exception('Image %s boots without a cache: %s', image_id, e)
            return Plan(PlanKind.PLAIN, str(e), image_id, base, base_format)
        return plan

    def preview(self, image_id: str, base: str, base_format: str) -> Plan:
        """Decide what a boot would use now, and start nothing.

        :raises InvalidImageId, InvalidBase: if no boot could use a cache of this
        :raises QcacheError: if it cannot be decided
        """
        image_id = canonical_image_id(image_id)
        source = self._source(base, base_format)
        identity = source.identity()
        key = CacheKey(image_id, self._generations.current(source))
        record = self._store.load(key)
        plan = Plan(PlanKind.PLAIN, '', image_id, base, base_format, key.generation)
        if record is None or record.state is State.WARMING:
            reason = 'no cache yet' if record is None else 'the cache is being recorded'
            return dataclasses.replace(
                plan, kind=PlanKind.RECORD, reason=reason, socket=str(self.paths.nbd_socket(key))
            )
        if record.state is State.STALE:
            return dataclasses.replace(plan, reason=f'the cache is stale: {record.stale_reason}')
        if (record.base, record.base_format) != (base, base_format):
            return dataclasses.replace(
                plan, reason=f'the cache is one of {record.base!r} ({record.base_format})'
            )
        suspicion = identity.suspicion(record.base_identity)
        if suspicion is Suspicion.FACTS:
            reason = (
                f'the base is another file than before; `nova-qcache verify {image_id}` decides'
            )
            return dataclasses.replace(plan, reason=reason)
        path = self._store.require_unchanged(record)
        if suspicion is Suspicion.TIMES and not self._verifier.sample_is_equal(record, source):
            return dataclasses.replace(plan, reason='the base has other content than the cache')
        return dataclasses.replace(
            plan, kind=PlanKind.PLAY, reason='the cache is ready', cache=str(path)
        )

    def record(
        self,
        image_id: str,
        base: str,
        base_format: str,
        quota_mib: int | None = None,
        progress: Progress = silent,
    ) -> Plan:
        """Start a recorder, or tell the one at work that one more guest comes, and wait until
        guests can connect.

        :raises RecorderFailed: if it does not start, with the reason: there is a cache already,
            the base is unfit, there is no room
        :raises QcacheError: if it cannot even be tried
        """
        image_id = canonical_image_id(image_id)
        source = self._source(base, base_format)
        source.identity()  # what is not there gets no counter either
        key = CacheKey(image_id, self._generations.current(source))
        self._retire_older(key)
        try:
            status = self._recorder(key).expect_guest()
        except exception.RecorderUnreachable:
            qcache_conf.quota_bytes(self._conf, quota_mib)
            status = launch.start(
                self.paths,
                key,
                self._recorder_arguments(image_id, base, base_format, quota_mib),
                self._conf.qcache.start_timeout_seconds,
                progress,
            )
        plan = Plan(PlanKind.PLAIN, '', image_id, base, base_format, key.generation)
        if status.phase not in (Phase.RECORDING, Phase.SEALING):
            return dataclasses.replace(
                plan, reason=f'the recorder does not record any more: {status.note}'
            )
        return dataclasses.replace(
            plan, kind=PlanKind.RECORD, reason=status.note, socket=str(self.paths.nbd_socket(key))
        )

    # -- what operators ask

    def caches(self, image_id: str | None = None) -> list[CacheView]:
        """Look at all caches, or those of one image; the newest of an image last."""
        wanted = canonical_image_id(image_id) if image_id is not None else None
        views = [self._view(key) for key in self._store.keys(wanted)]
        # Epochs are random: the order of generations says nothing about age.
        return sorted(
            views,
            key=lambda view: (view.key.image_id, view.record.created_at if view.record else 0),
        )

    def seal(
        self, image_id: str, wait_seconds: float = 0, progress: Progress = silent
    ) -> CacheView:
        """End the recording of an image now and keep what it has.

        :param wait_seconds: how long to wait for READY
        :raises CacheNotFound: if there is no recording
        :raises RecorderUnreachable: if no recorder answers
        :raises DeadlinePassed: if it is not sealed in time; it may be later
        """
        key = self._one_in_state(image_id, State.WARMING).key
        self._recorder(key).seal()
        if wait_seconds:
            waiting.until(
                lambda: self._is_sealed(key),
                what=f'Sealing the cache of image {key.image_id}',
                seconds=wait_seconds,
                remedy='It goes on; see `nova-qcache list`',
                poll_seconds=_WAIT_POLL_SECONDS,
                progress=progress,
            )
        return self._view(key)

    def invalidate(
        self, image_id: str, base: str | None = None, base_format: str = 'raw'
    ) -> list[CacheKey]:
        """Say that the base of an image is about to change, or has: no boot uses its caches of
        before again.

        :param base: needed only if no cache of the image is here
        :return: the caches that it concerned
        :raises CacheNotFound: if neither a cache nor ``base`` says which base it is
        """
        views = self.caches(image_id)
        bases = {(view.record.base, view.record.base_format) for view in views if view.record}
        if base is not None:
            bases.add((base, base_format))
        if not bases:
            raise exception.CacheNotFound(image_id=image_id)
        for reference, its_format in sorted(bases):
            self._generations.raise_before_write(self._source(reference, its_format))
        for view in views:
            self._retire(view, 'invalidated by an operator')
        return [view.key for view in views]

    def remove(
        self, image_id: str, *, force: bool = False, progress: Progress = silent
    ) -> list[CacheKey]:
        """Remove all caches of an image.

        :param force: even those that guests read; they go on reading the files, which have no name
            any more
        :raises CacheNotFound: if there is none
        :raises CacheInUse: if a guest reads one; no cache was removed then
        """
        views = self.caches(image_id)
        if not views:
            raise exception.CacheNotFound(image_id=image_id)
        if not force:
            for view in views:
                inspection.require_no_guests(view)
        for view in views:
            if view.recorder is not None:
                self._dismiss(view, progress)
        if not force:
            for view in views:
                inspection.require_closed(view)
        for view in views:
            self._store.discard(view.key)
        return [view.key for view in views]

    def verify(self, image_id: str, progress: Progress = silent) -> list[Verification]:
        """Read the sealed caches of an image against their digests and their base; retire those
        that differ.

        :raises CacheNotFound: if none is READY
        :raises ToolError, InvalidBase: if the base cannot be read; nothing changes then
        """
        self._one_in_state(image_id, State.READY)
        views = self.caches(image_id)
        return [
            self._verifier.verify(
                view.record, self._source(view.record.base, view.record.base_format), progress
            )
            for view in views
            if view.record is not None and view.record.state is State.READY
        ]

    # -- below the verbs

    def _source(self, base: str, base_format: str) -> Source:
        return plugins.source(
            base, base_format, reconnect_seconds=self._conf.qcache.base_reconnect_seconds
        )

    def _recorder(self, key: CacheKey) -> control.RecorderClient:
        return control.RecorderClient(self.paths.control_socket(key))

    def _is_sealed(self, key: CacheKey) -> bool | None:
        try:
            phase = self._recorder(key).status().phase
        except exception.RecorderUnreachable:
            return True  # nobody was connected, so it has left
        return None if phase in (Phase.RECORDING, Phase.SEALING) else True

    def _recorder_arguments(
        self, image_id: str, base: str, base_format: str, quota_mib: int | None
    ) -> list[str]:
        files = [str(pathlib.Path(name).absolute()) for name in self._conf.config_file or []]
        folders = [str(pathlib.Path(name).absolute()) for name in self._conf.config_dir or []]
        arguments = [f'--config-file={name}' for name in files] + [
            f'--config-dir={name}' for name in folders
        ]
        if quota_mib is not None:
            arguments.append(f'--quota-mib={quota_mib}')
        return [*arguments, f'--base={base}', f'--base-format={base_format}', image_id]

    def _view(self, key: CacheKey) -> CacheView:
        return inspection.view(self._store, key)

    def _one_in_state(self, image_id: str, state: State) -> CacheView:
        for view in reversed(self.caches(image_id)):
            if view.record is not None and view.record.state is state:
                return view
        raise exception.CacheNotFound(image_id=image_id)

    def _retire_older(self, key: CacheKey) -> None:
        """The base has a new generation: its caches of before are of no use to a boot."""
        for other in self._store.keys(key.image_id):
            if other != key:
                self._retire(self._view(other), f'the base has generation {key.generation} now')

    def _retire(self, view: CacheView, reason: str) -> None:
        if view.recorder is not None:
            with contextlib.suppress(exception.RecorderUnreachable):
                self._recorder(view.key).drop()
        if view.record is not None and view.record.state is State.READY:
            self._store.retire(view.record, reason)

    def _dismiss(self, view: CacheView, progress: Progress) -> None:
        """Make the recorder forget the cache, and end if it has no guests."""
        client = self._recorder(view.key)

        def has_done_so() -> bool | None:
            try:
                status = client.status()
            except exception.RecorderUnreachable:
                return True  # it has left
            return True if status.phase is Phase.SERVING and status.guests else None

        with contextlib.suppress(exception.RecorderUnreachable):
            client.drop()
            client.leave()
        waiting.until(
            has_done_so,
            what=f'The end of the recorder of image {view.key.image_id}',
            seconds=_LEAVE_SECONDS,
            remedy='Try again later',
            poll_seconds=_WAIT_POLL_SECONDS,
            progress=progress,
        )
