# SPDX-License-Identifier: Apache-2.0
"""What a boot may use: the one place that says whether a cache goes with a base.

Size, inode, times and Glance's hash of a base raise suspicion, and only content decides. Where
only times differ a random sample decides at once; everything else takes a comparison of all that
is cached (:mod:`nova_qcache.keeper.examination`), and boots are plain until that is done.
"""

import contextlib
import dataclasses

from nova_qcache import exception
from nova_qcache.generation import Generations
from nova_qcache.key import CacheKey
from nova_qcache.plan import Cause
from nova_qcache.plan import Plan
from nova_qcache.plan import PlanKind
from nova_qcache.record import CacheRecord
from nova_qcache.source import BaseIdentity
from nova_qcache.source import Source
from nova_qcache.source import Suspicion
from nova_qcache.states import State
from nova_qcache.store import Store
from nova_qcache.touches import Touches
from nova_qcache.verifier import Verifier

__all__ = ['Judge', 'Judgement']


@dataclasses.dataclass(frozen=True)
class Judgement:
    plan: Plan
    doubtful: CacheKey | None = None
    """The cache that is to be compared with the base, so that later boots may use it."""
    trouble: exception.CacheBroken | None = None
    """What is wrong with the file of a cache, if the plan is PLAIN for that."""


class Judge:
    def __init__(
        self, store: Store, generations: Generations, verifier: Verifier, touches: Touches
    ) -> None:
        self._store = store
        self._generations = generations
        self._verifier = verifier
        self._touches = touches

    def judge(self, image_id: str, source: Source, image_hash: str = '') -> Judgement:
        """Decide for one boot; nothing is started.

        :param image_id: in canonical spelling
        :param image_hash: what Glance says of the image's content; empty if nobody knows
        :raises InvalidBase: if the base cannot be looked at
        :raises QcacheError: if it cannot be decided
        """
        identity = source.identity()
        key = CacheKey(image_id, self._generations.current(source))
        plan = Plan(
            PlanKind.PLAIN, '', image_id, source.reference, source.base_format, key.generation
        )
        record = self._newest(key)
        if record is None:
            return self._without_a_cache(plan, key)
        key = record.key
        plan = dataclasses.replace(plan, revision=key.revision)
        if record.state is State.WARMING:
            return Judgement(self._recording(plan, key, 'the cache is being recorded'))
        if record.state is State.STALE:
            return _plain(plan, f'the cache is stale: {record.stale_reason}', Cause.STALE)
        if not _is_of(record, plan):
            reason = f'the cache is one of {record.base!r} ({record.base_format})'
            return _plain(plan, reason, Cause.INELIGIBLE)
        if identity.suspicion(record.base_identity).is_about_content:
            return _doubt(plan, 'the base is another file than before', key)
        if image_hash and record.image_hashes and image_hash not in record.image_hashes:
            return _doubt(plan, "Glance's hash of the image is another one than before", key)
        return self._playing(plan, record, source, identity)

    def _newest(self, first: CacheKey) -> CacheRecord | None:
        """Return the record of the newest revision that is READY, or else of the first one.

        :raises RecordBroken: if it cannot be read
        """
        later = [
            key
            for key in self._store.keys(first.image_id)
            if key.generation == first.generation and key.revision > 1
        ]
        for key in sorted(later, reverse=True):
            with contextlib.suppress(exception.RecordBroken):  # an older one does as well
                record = self._store.load(key)
                if record is not None and record.state is State.READY:
                    return record
        return self._store.load(first)

    def _without_a_cache(self, plan: Plan, key: CacheKey) -> Judgement:
        for other in self._store.keys(key.image_id):
            before = self._store.load(other) if other != key else None
            if before is not None and before.state is State.READY and _is_of(before, plan):
                return _doubt(plan, 'the base was written since the cache was made', other)
        return Judgement(self._recording(plan, key, 'no cache yet'))

    def _playing(
        self, plan: Plan, record: CacheRecord, source: Source, identity: BaseIdentity
    ) -> Judgement:
        try:
            path = self._store.require_unchanged(record)
        except exception.CacheBroken as e:
            broken = dataclasses.replace(plan, reason=str(e), cause=Cause.BROKEN)
            return Judgement(broken, record.key, e)
        if (
            identity.suspicion(record.base_identity) is Suspicion.TIMES
            and not self._touches.explain(source, record.base_identity, identity)
            and not self._verifier.sample_is_equal(record, source)
        ):
            return _plain(plan, 'the base has other content than the cache', Cause.STALE)
        return Judgement(
            dataclasses.replace(
                plan, kind=PlanKind.PLAY, reason='the cache is ready', cache=str(path)
            )
        )

    def _recording(self, plan: Plan, key: CacheKey, reason: str) -> Plan:
        socket = str(self._store.paths.nbd_socket(key))
        return dataclasses.replace(plan, kind=PlanKind.RECORD, reason=reason, socket=socket)


def _is_of(record: CacheRecord, plan: Plan) -> bool:
    return (record.base, record.base_format) == (plan.base, plan.base_format)


def _plain(plan: Plan, reason: str, cause: Cause) -> Judgement:
    return Judgement(dataclasses.replace(plan, reason=reason, cause=cause))


def _doubt(plan: Plan, why: str, key: CacheKey) -> Judgement:
    reason = f'{why}; `nova-qcache verify {plan.image_id}` decides'
    return Judgement(dataclasses.replace(plan, reason=reason, cause=Cause.DOUBT), key)
