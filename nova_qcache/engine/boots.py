# SPDX-License-Identifier: Apache-2.0
"""Plans of boots, and what Nova announces about boots and bases.

:meth:`Boots.plan` never raises: whatever is wrong with a cache, the boot is PLAIN and the plan
says why.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import logging
import threading
import time
import weakref

from nova_qcache import conf as qcache_conf
from nova_qcache import config_files
from nova_qcache import exception
from nova_qcache.bases import probe
from nova_qcache.cache import view
from nova_qcache.engine.admission import Admission
from nova_qcache.engine.audits import Audits
from nova_qcache.engine.host import Host
from nova_qcache.engine.lookup import Lookup
from nova_qcache.keeper import launch as keeper
from nova_qcache.keeper.revalidation import Requests
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import canonical_image_id
from nova_qcache.model.plan import Boot
from nova_qcache.model.plan import Cause
from nova_qcache.model.plan import cause_of
from nova_qcache.model.plan import Plan
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.source import Source
from nova_qcache.model.states import Phase
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from nova_qcache.qemu.img import QemuImg
from nova_qcache.recorder import launch
from nova_qcache.system.log_rate_limit import LogRateLimit
from nova_qcache.system.progress import Progress
from nova_qcache.system.progress import silent

__all__ = ['Boots']

LOG = logging.getLogger(__name__)


class Boots:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._conf = host.conf
        self._paths = host.paths
        self._catalog = host.catalog
        self._generations = host.generations
        self._leases = host.leases
        self._pool = host.pool
        group = host.conf.qcache
        self._admission = Admission(host.catalog.counter_store, group.record_from_boot)
        self._audits = Audits(
            host.catalog, host.pool, config_files.arguments(host.conf), group.audit_every
        )
        self._requests = Requests(host.paths.revalidations)
        self._revalidate_seconds = group.revalidate_hours * 3600
        self._lookup = Lookup(host.catalog, host.generations)
        self._log_limit = LogRateLimit()
        self._starts: weakref.WeakValueDictionary[CacheKey, threading.Lock] = (
            weakref.WeakValueDictionary()  # as long as somebody holds it or waits for it
        )

    def plan(self, boot: Boot) -> Plan:
        """Plan a boot, and start a recorder if it is to record. Never raises because of a cache.
        The caller counts the boot when its domain has started (:meth:`count`)."""
        try:
            self._paths.require()
            plan = self._plan(*self._known(boot))
        except (exception.QcacheError, OSError) as e:
            self._complain(boot.image_id, e)
            plan = boot.plain(str(e), cause_of(e))
        except Exception as e:  # the first invariant: not even a fault of ours fails a boot
            LOG.exception('Image %s boots without a cache: %s', boot.image_id, e)
            plan = boot.plain(str(e), Cause.FAILED)
        if plan.kind is PlanKind.PLAIN:
            self.release(boot.consumer)
        return plan

    def count(self, plan: Plan) -> None:
        """Count a boot by what its domain has started with. Never raises."""
        self._catalog.counter_store.boot(plan)

    def release(self, consumer: str) -> None:
        """End the lease of a consumer: its domain is defined, or will not be."""
        if consumer:
            self._leases.release(consumer)

    def announce_write(self, base: str, base_format: str) -> None:
        """Announce a write to a base: no existing cache of it is used again.

        Nova writes whatever comes of this. Where the new generation cannot be kept, the new file's
        other inode or size keeps boots from the old caches.
        """
        try:
            self._generations.raise_before_write(self._host.source(base, base_format))
        except (exception.QcacheError, OSError) as e:
            LOG.log(
                self._log_limit.level(e),
                'Failed to raise the generation of base %r; writing it all the same: %s',
                base,
                e,
            )
        except Exception as e:  # a plugin's, too: Nova's write goes on
            LOG.exception(
                'Failed to raise the generation of base %r; writing it all the same: %s', base, e
            )

    def preview(self, image_id: str, base: str, base_format: str) -> Plan:
        """Decide what a boot would use now; start nothing, and change nothing.

        :raises InvalidImageId, InvalidBase: if no boot could use a cache of this, or nothing can
            be recorded: the base is not readable, for example
        :raises CacheBroken: if there is one whose file is not what was sealed
        :raises QcacheError: if it cannot be decided
        """
        boot, source = self._known(Boot(image_id, base, base_format))
        result = self._lookup.preview(boot, source)
        if result.error is not None:
            raise result.error
        if result.plan.kind is PlanKind.RECORD:
            probe.inspect(source, QemuImg(self._conf.qcache.qemu_img))
        return result.plan

    def keep(self) -> None:
        """Start the keeper, unless one is at work or it is a service manager's."""
        if self._conf.qcache.start_keeper:
            keeper.ensure(self._paths, config_files.arguments(self._conf))

    def record(
        self,
        image_id: str,
        base: str,
        base_format: str,
        quota: str | None = None,
        progress: Progress = silent,
    ) -> Plan:
        """Start a recorder, or tell the one at work that one more guest comes, and wait until
        guests can connect.

        :param quota: in place of the configured one, in the words of that option
        :raises WrongState: if there is a cache already, or a recording with another quota
        :raises RecorderFailed: if it does not start, with the reason, or the one at work does not
            record any more
        :raises NoRoom, TooManyRecorders: if another recording has no room, or there are too many
        :raises QcacheError: if it cannot even be tried
        """
        boot, source = self._known(Boot(image_id, base, base_format))
        source.identity()  # what is not there gets no counter either
        key = self._lookup.recording(boot.image_id, source)
        return self._record(key, source, quota=quota, progress=progress)

    # -- below

    def _known(self, boot: Boot) -> tuple[Boot, Source]:
        """Return a boot with its image ID in canonical spelling, and how its base is reached: both
        are found out here, once for the whole way.

        :raises InvalidImageId, InvalidBase: if they make no sense
        """
        source = self._host.source(boot.base, boot.base_format)
        return dataclasses.replace(boot, image_id=canonical_image_id(boot.image_id)), source

    def _record(
        self,
        key: CacheKey,
        source: Source,
        image_hash: str = '',
        quota: str | None = None,
        progress: Progress = silent,
    ) -> Plan:
        self.keep()  # first, so that it is there when the first guest is
        with self._starting(key):
            try:
                if quota is not None:
                    self._require_quota(key, quota)
                status = self._host.recorder(key).status()
                if not status.refusal:  # else it would wait for who never comes
                    status = self._host.recorder(key).expect_guest()
            except exception.RecorderUnreachable:
                with self._pool.room(key, qcache_conf.quota_bytes(self._conf, quota)):
                    status = launch.start(
                        self._paths,
                        key,
                        self._recorder_arguments(key, source, quota, image_hash),
                        self._conf.qcache.start_timeout_seconds,
                        progress,
                    )
        if status.refusal:
            if status.phase is Phase.SERVING:  # it has dropped what it could not remove
                self._catalog.discard_recording(key)
            raise exception.RecorderFailed(image_id=key.image_id, reason=status.refusal)
        # Not before: what cannot be recorded takes the place of nothing.
        self._retire_others(key, source)
        return Plan(
            PlanKind.RECORD,
            status.note,
            key.image_id,
            source.reference,
            source.base_format,
            key.generation,
            key.revision,
            socket=str(self._paths.nbd_socket(key)),
        )

    def _plan(self, boot: Boot, source: Source) -> Plan:
        result = self._lookup.find(boot, source)
        plan = result.plan
        if result.error is not None:
            self._complain(boot.image_id, result.error)
        if result.to_revalidate is not None:
            self._requests.add(result.to_revalidate, boot.image_hash)
            self.keep()
        if result.other_times is not None:
            self._revalidate(result.other_times)
        if plan.kind is PlanKind.PLAY:
            return self._audited(plan, boot) or self._leased(plan, boot.consumer)
        if plan.kind is PlanKind.RECORD:
            return self._recorded(plan, source, boot)
        return plan

    def _revalidate(self, record: CacheRecord) -> None:
        """Ask for a revalidation in the background now and then, while only the times of a base
        change."""
        proved_at = record.sealed.sealed_at if record.sealed else record.created_at
        is_young = 0 <= time.time() - proved_at < self._revalidate_seconds
        if not self._revalidate_seconds or is_young:
            return
        with contextlib.suppress(OSError):  # the boot plays all the same
            if self._requests.add_now_and_then(record.key, self._revalidate_seconds):
                self.keep()

    def _audited(self, plan: Plan, boot: Boot) -> Plan | None:
        if boot.no_recording:
            return None
        audit = self._audits.plan(plan, qcache_conf.quota_bytes(self._conf))
        if audit is None or audit.key is None:
            return None
        if boot.consumer:
            self._leases.take(boot.consumer, audit.key)
            # Whoever removes caches sees that from now on; before, it may have ended the audit.
            if not self._is_recorded(audit.key):
                return None
        return audit

    def _recorded(self, plan: Plan, source: Source, boot: Boot) -> Plan:
        key = plan.key
        assert key is not None  # it names a recording
        plain = dataclasses.replace(plan, kind=PlanKind.PLAIN, socket=None)
        if boot.no_recording:
            return dataclasses.replace(plain, reason=boot.no_recording, cause=Cause.CONFINED)
        refusal = self._admission.refusal(boot)
        if refusal is not None and not self._is_recorded(key):
            return dataclasses.replace(plain, reason=refusal, cause=Cause.NOT_YET)
        if boot.consumer:
            self._leases.take(boot.consumer, key)
        try:
            return self._record(key, source, boot.image_hash)
        except exception.RecorderFailed:
            # It may have been sealed since the lookup, and the base written: all is asked anew,
            # its generation, too.
            again = self._lookup.find(boot, source).plan
            if again.kind is not PlanKind.PLAY:
                raise
            return self._leased(again, boot.consumer)

    def _is_recorded(self, key: CacheKey) -> bool:
        try:
            return self._host.recorder(key).status().phase is Phase.RECORDING
        except exception.RecorderUnreachable:
            return False

    def _leased(self, plan: Plan, consumer: str) -> Plan:
        key = plan.key
        assert key is not None  # it names a cache
        if not consumer:
            return plan
        if self._catalog.lease(key, lambda: self._leases.take(consumer, key)):
            return plan
        return dataclasses.replace(
            plan,
            kind=PlanKind.PLAIN,
            reason='its cache was removed meanwhile',
            cache=None,
            cause=Cause.STALE,
        )

    def _complain(self, about: str, error: Exception) -> None:
        level = self._log_limit.level(error)
        LOG.log(level, 'Image %s boots without a cache: %s', about, error)

    @contextlib.contextmanager
    def _starting(self, key: CacheKey) -> Iterator[None]:
        """Hold the one start of a recorder at a time in this process: of many servers of one
        image, the first one starts its recorder, and the others find it at work."""
        lock = self._starts.setdefault(key, threading.Lock())
        seconds = self._conf.qcache.start_timeout_seconds
        if not lock.acquire(timeout=seconds):
            raise exception.DeadlinePassed(
                what=f'Another start of the recorder of image {key.image_id}',
                seconds=seconds,
                remedy='The next boot tries again',
            )
        try:
            yield
        finally:
            lock.release()

    def _recorder_arguments(
        self, key: CacheKey, source: Source, quota: str | None, image_hash: str
    ) -> list[str]:
        arguments = config_files.arguments(self._conf)
        if quota is not None:
            arguments.append(f'--quota={quota}')
        if image_hash:
            arguments.append(f'--image-hash={image_hash}')
        arguments += [f'--base={source.reference}', f'--base-format={source.base_format}']
        arguments += [f'--generation={key.generation}', f'--revision={key.revision}']
        return [*arguments, key.image_id]

    def _require_quota(self, key: CacheKey, quota: str) -> None:
        """:raises RecorderUnreachable: if no recorder is at work
        :raises WrongState: if the one at work keeps to another quota
        """
        self._host.recorder(key).status()
        record, wanted = self._catalog.load(key), qcache_conf.quota_bytes(self._conf, quota)
        if record is not None and record.quota != wanted:
            raise exception.WrongState(
                image_id=key.image_id,
                state=f'{record.state.value} with a quota of {record.quota} bytes',
                wanted=f'one of {wanted}',
                remedy='Leave out --quota to join its recording, or remove it first',
            )

    def _retire_others(self, key: CacheKey, source: Source) -> None:
        """Retire the caches of other bases and generations of the image: no boot uses them
        again."""
        for record in self._catalog.records(key.image_id):
            if record.state is State.STALE:
                continue
            if not record.is_of(source.reference, source.base_format):
                reason = f'the image has the base {source.reference!r} ({source.base_format}) now'
            elif record.key.generation != key.generation:
                reason = f'the base has generation {key.generation} now'
            else:
                continue
            self._host.retire(view.view(self._catalog, record.key), reason, Staleness.WRITTEN)
