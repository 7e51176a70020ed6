# SPDX-License-Identifier: Apache-2.0
"""Lookup: the one place that decides whether a cache goes with a base.

A base with another size, inode, time or hash in Glance needs a revalidation: a comparison of all
that is cached (:mod:`nova_qcache.keeper.revalidation`), since only content decides. Boots are
plain until that is done, unless only times differ: Nova itself sets them at each boot, on all
hosts that share the base. Nothing here reads a base or a cache.
"""

from collections.abc import Sequence
import dataclasses

from nova_qcache import exception
from nova_qcache.bases.generation import Generations
from nova_qcache.cache.catalog import Catalog
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.model.plan import Boot
from nova_qcache.model.plan import Cause
from nova_qcache.model.plan import Plan
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.source import BaseChange
from nova_qcache.model.source import BaseIdentity
from nova_qcache.model.source import Source
from nova_qcache.model.states import State

__all__ = ['Lookup', 'LookupResult']


@dataclasses.dataclass(frozen=True)
class LookupResult:
    plan: Plan
    to_revalidate: CacheKey | None = None
    """The cache that is to be compared with the base, so that later boots may use it."""
    error: exception.CacheBroken | None = None
    """Error of the cache file, if the plan is PLAIN because of it."""
    other_times: CacheRecord | None = None
    """The cache that this boot plays although its base has other times than before."""


class Lookup:
    def __init__(self, catalog: Catalog, generations: Generations) -> None:
        self._catalog = catalog
        self._generations = generations

    def find(self, boot: Boot, source: Source) -> LookupResult:
        """Decide for one boot; nothing is started.

        :param boot: with its image ID in canonical spelling
        :param source: of its base
        :raises InvalidBase: if the base cannot be looked at
        :raises QcacheError: if it cannot be decided
        """
        identity = source.identity()  # what is not there gets no counter
        generation = self._generations.current(source)
        return self._result_for(boot, source, identity, generation)

    def preview(self, boot: Boot, source: Source) -> LookupResult:
        """Decide as :meth:`find` would, and change nothing: a base that nobody has asked for gets
        no generation.

        :raises InvalidBase, QcacheError: as above
        """
        identity = source.identity()
        generation = self._generations.known(source)
        return self._result_for(boot, source, identity, generation)

    def _result_for(
        self, boot: Boot, source: Source, identity: BaseIdentity, generation: Generation | None
    ) -> LookupResult:
        image_id = boot.image_id
        plan = Plan(PlanKind.PLAIN, '', image_id, source.reference, source.base_format, generation)
        records = self._records(image_id, source)
        record = _newest(records, generation)
        if record is None:
            return self._without_a_cache(plan, records, generation)
        key = record.key
        plan = dataclasses.replace(plan, revision=key.revision)
        if identity.changes_since(record.base_identity).is_about_content:
            return _needs_revalidation(
                plan, 'the base was replaced: its size or inode differs', key
            )
        known = record.image_hashes
        if boot.image_hash and known and boot.image_hash not in known:
            return _needs_revalidation(plan, "Glance's hash of the image changed", key)
        return self._playing(plan, record, identity)

    def recording(self, image_id: str, source: Source) -> CacheKey:
        """Return the key of the recording that is at work, or else of the next one.

        :param image_id: in canonical spelling
        :raises WrongState: if there is a cache that boots play
        :raises OSError, QcacheError: if it cannot be told
        """
        generation = self._generations.current(source)
        records = self._records(image_id, source)
        ready = _newest(records, generation)
        if ready is not None:
            raise exception.WrongState(
                image_id=image_id,
                state=ready.state.value,
                wanted=State.RECORDING.value,
                remedy=f'To record it again, `nova-qcache remove {image_id}` first',
            )
        at_work = _recording(records, generation)
        return at_work or self._catalog.next_key(image_id, generation)

    def _records(self, image_id: str, source: Source) -> list[CacheRecord]:
        """Return the records of the caches of an image that stand on this base."""
        return [
            record
            for record in self._catalog.records(image_id)
            if record.is_of(source.reference, source.base_format)
        ]

    def _without_a_cache(
        self, plan: Plan, records: Sequence[CacheRecord], generation: Generation | None
    ) -> LookupResult:
        key = _recording(records, generation)
        if key is not None:
            return LookupResult(self._recorded(plan, key, 'the cache is being recorded'))
        for record in records:
            if record.state is State.READY and record.key.generation != generation:
                return _needs_revalidation(
                    plan, 'the base was written since the cache was made', record.key
                )
        if generation is None:  # as of yet there is no name for it
            return LookupResult(
                dataclasses.replace(plan, kind=PlanKind.RECORD, reason='no cache yet')
            )
        key = self._catalog.next_key(plan.image_id, generation)
        return LookupResult(self._recorded(plan, key, 'no cache yet'))

    def _playing(self, plan: Plan, record: CacheRecord, identity: BaseIdentity) -> LookupResult:
        try:
            path = self._catalog.require_unchanged(record)
        except exception.CacheBroken as e:
            broken = dataclasses.replace(plan, reason=str(e), cause=Cause.BROKEN)
            return LookupResult(broken, record.key, e)
        play = dataclasses.replace(
            plan, kind=PlanKind.PLAY, reason='the cache is ready', cache=str(path)
        )
        has_other_times = identity.changes_since(record.base_identity) is BaseChange.TIMES
        return LookupResult(play, other_times=record if has_other_times else None)

    def _recorded(self, plan: Plan, key: CacheKey, reason: str) -> Plan:
        return dataclasses.replace(
            plan,
            kind=PlanKind.RECORD,
            reason=reason,
            revision=key.revision,
            socket=str(self._catalog.paths.nbd_socket(key)),
        )


def _newest(records: Sequence[CacheRecord], generation: Generation | None) -> CacheRecord | None:
    """Return the record of the newest revision that is READY. STALE ones answer no boot, however
    long their guests keep them."""
    ready = [
        record
        for record in records
        if record.state is State.READY and record.key.generation == generation
    ]
    return max(ready, key=lambda record: record.key, default=None)


def _recording(records: Sequence[CacheRecord], generation: Generation | None) -> CacheKey | None:
    """Return the key of the recording at work, or whose recorder died; None if there is none. An
    audit does not count: boots go on playing its cache."""
    at_work = [
        record.key
        for record in records
        if record.state is State.RECORDING
        and record.key.generation == generation
        and not record.is_audit
    ]
    return max(at_work, default=None)


def _plain(plan: Plan, reason: str, cause: Cause) -> LookupResult:
    return LookupResult(dataclasses.replace(plan, reason=reason, cause=cause))


def _needs_revalidation(plan: Plan, why: str, key: CacheKey) -> LookupResult:
    reason = f'{why}; revalidate it with `nova-qcache verify {plan.image_id}`'
    return LookupResult(dataclasses.replace(plan, reason=reason, cause=Cause.DOUBT), key)
