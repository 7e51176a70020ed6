# SPDX-License-Identifier: Apache-2.0
"""Audits: a boot that could play its cache goes through a recorder on a copy of that cache, which
measures what the boot still reads from its base.

No boot waits for that. When an audit is due, its recorder is started in the background and that
boot plays; the recorder makes its copy, and the next boot of the image finds it waiting.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import logging
import threading
import time

from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.pool import Pool
from nova_qcache.model.key import CacheKey
from nova_qcache.model.plan import Plan
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import State
from nova_qcache.recorder import launch
from nova_qcache.system import control
from nova_qcache.system.log_rate_limit import LogRateLimit

__all__ = ['Audits']

LOG = logging.getLogger(__name__)

_ANSWER_SECONDS = 0.5
"""A recorder that needs longer to say that it waits is not waited for."""
_PAUSE_SECONDS = 300
"""Pause between two starts: time for the first audit to show its copy, and no start at each boot
where none succeeds."""


class Audits:
    """Starts audits and hands them to boots. Safe to use from several threads."""

    def __init__(self, catalog: Catalog, pool: Pool, arguments: Sequence[str], every: int) -> None:
        """:param arguments: with which the recorder reads the same configuration
        :param every: how many boots that play come with one that is audited; 0 for none
        """
        self._catalog = catalog
        self._pool = pool
        self._arguments = arguments
        self._every = every
        self._starting = threading.Lock()
        self._again_at = 0.0
        """Time of the monotonic clock, in seconds, before which no audit is started."""
        self._log_limit = LogRateLimit()

    def plan(self, play: Plan, quota: int) -> Plan | None:
        """Turn a boot that would play its cache into an audit if an audit waits for it; start an
        audit for the next boot if one is due. Never raises, and never waits for more than one
        answer.

        The caller has made sure that guests of this host can use a recorder, and that the cache
        stays: making room for its copy must not cost it.

        :param quota: bytes that the copy may take; or as many as the cache itself, if those are
            more
        :return: None if the boot is to play
        """
        try:
            return self._plan(play, quota)
        except (exception.QcacheError, OSError) as e:
            LOG.log(
                self._log_limit.level(e),
                'Failed to audit the cache of image %s; playing it without an audit: %s',
                play.image_id,
                e,
            )
        except Exception as e:  # what measures a boot never fails it
            LOG.exception(
                'Failed to audit the cache of image %s; playing it without an audit: %s',
                play.image_id,
                e,
            )
        return None

    def _plan(self, play: Plan, quota: int) -> Plan | None:
        key = play.key
        if not self._every or key is None or play.kind is not PlanKind.PLAY:
            return None
        at_work = self._at_work()  # one at a time on this host
        for audit in at_work:
            if (audit.image_id, audit.generation) == (key.image_id, key.generation):
                return self._joined(play, audit)
        if not at_work and self._is_due(key.image_id) and self._starting.acquire(blocking=False):
            try:
                if time.monotonic() >= self._again_at:
                    self._start(play, key, quota)
            finally:
                self._starting.release()
        return None

    def _at_work(self) -> list[CacheKey]:
        found = []
        for key in self._catalog.directory.recordings():
            with contextlib.suppress(exception.RecordBroken):
                record = self._catalog.load(key)
                if record is not None and record.is_audit:
                    found.append(key)
        return found

    def _joined(self, play: Plan, audit: CacheKey) -> Plan | None:
        socket = self._catalog.paths.control_socket(audit)
        try:
            if not control.RecorderClient(socket, _ANSWER_SECONDS).claim():
                return None
        except exception.RecorderUnreachable:  # it makes its copy, or has died
            return None
        return dataclasses.replace(
            play,
            kind=PlanKind.RECORD,
            reason='an audit of its cache',
            revision=audit.revision,
            cache=None,
            socket=str(self._catalog.paths.nbd_socket(audit)),
            is_audit=True,
        )

    def _is_due(self, image_id: str) -> bool:
        counted = self._catalog.counter_store.of(image_id)
        return counted.plays + 1 >= self._every * (counted.audits + 1)

    def _start(self, play: Plan, key: CacheKey, quota: int) -> None:
        record = self._catalog.load(key)
        if record is None or record.state is not State.READY or record.sealed is None:
            return
        if record.sealed.reason is FinishReason.QUOTA and record.quota >= quota:
            return  # full: its copy would not grow, whatever is missed
        # Guests of an earlier audit may still read through its recorder: that one is passed over.
        audit = self._catalog.next_key(key.image_id, key.generation)
        self._again_at = time.monotonic() + _PAUSE_SECONDS
        # To measure a cache is no reason to remove another one.
        self._pool.reserve(audit, max(quota, record.quota), evict=False)
        LOG.info(
            'Starting an audit of cache %s: the next boot reads through recorder %s',
            key.stem,
            audit.stem,
        )
        launch.reap()
        try:
            with open(self._catalog.paths.log(audit), 'ab') as output:
                launch.spawn(
                    output,
                    [
                        *self._arguments,
                        f'--base={play.base}',
                        f'--base-format={play.base_format}',
                        f'--generation={audit.generation}',
                        f'--revision={audit.revision}',
                        '--audit',
                        audit.image_id,
                    ],
                )
        except OSError:
            self._pool.release(audit)
            raise
