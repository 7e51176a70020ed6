# SPDX-License-Identifier: Apache-2.0
"""Periodic maintenance of the pool, run with Nova's image cache manager.

The tasks are independent: one that fails is logged, and the others are done.
"""

from collections.abc import Callable, Collection
import contextlib
import logging
import pathlib
import time

from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.expiry import Expiry
from nova_qcache.cache.pool import Pool
from nova_qcache.cache.scrub import Scrubber
from nova_qcache.reports.snapshot import Snapshot
from nova_qcache.reports.time_series import TimeSeries
from nova_qcache.system.log_rate_limit import LogRateLimit

__all__ = ['Maintenance']

LOG = logging.getLogger(__name__)

_FORGET_SECONDS = 90 * 24 * 3600
"""Images that have had neither a cache nor a use for so long are counted with the host alone."""


class Maintenance:
    def __init__(
        self,
        catalog: Catalog,
        pool: Pool,
        expiry: Expiry,
        scrubber: Scrubber,
        time_series: TimeSeries,
        snapshot: Callable[[], Snapshot],
        *,
        scrub_bytes: int,
        metrics_file: str,
    ) -> None:
        """:param scrub_bytes: how much of the caches each run reads
        :param metrics_file: path of the metrics file, empty for none
        """
        self._catalog = catalog
        self._pool = pool
        self._expiry = expiry
        self._scrubber = scrubber
        self._time_series = time_series
        self._snapshot = snapshot
        self._scrub_bytes = scrub_bytes
        self._metrics_file = metrics_file
        self._named: frozenset[str] = frozenset()
        self._log_limit = LogRateLimit()

    def run(self, used_images: Collection[str], minimum_age_seconds: float | None) -> None:
        """Do all of it once. Never raises.

        :param used_images: that instances of this host stand on, whether they run or not
        :param minimum_age_seconds: for how long an image must have been unused before its caches
            go; None keeps them whatever their age
        """
        steps: list[tuple[str, Callable[[], object]]] = [
            ('note used images', lambda: self._expiry.note_used(used_images)),
            ('purge caches of deleted images', self._expiry.purge_deleted),
            ('expire unused caches', lambda: self._expiry.expire(minimum_age_seconds)),
            ('trim the pool to its budget', self._pool.trim),
            ('report foreign files', self.name_foreign_files),
            ('forget old images', self._forget),
            ('scrub sealed caches', lambda: self._scrubber.scrub(self._scrub_bytes)),
            ('write metrics', self._write_metrics),
        ]
        for what, step in steps:
            began = time.monotonic()
            try:
                step()
            except (exception.QcacheError, OSError) as e:
                LOG.log(self._log_limit.level(e), 'Periodic task "%s" failed: %s', what, e)
            except Exception:  # the other steps are none the worse for it
                LOG.exception('Unexpected error in periodic task "%s"', what)
            LOG.debug('Periodic task "%s" took %.3f s', what, time.monotonic() - began)

    def name_foreign_files(self) -> None:
        """Warn once about files in the folder of the caches that are not ours; they stay there.

        :raises OSError: if the folder cannot be read
        """
        foreign = frozenset(self._catalog.directory.foreign())
        if new := sorted(foreign - self._named):
            LOG.warning(
                'Found files in %s that nova-qcache did not make; leaving them alone: %s',
                self._catalog.paths.cache_path,
                ', '.join(new[:20]) + (' and more' if len(new) > 20 else ''),
            )
        self._named = foreign

    def _forget(self) -> None:
        self._catalog.forget_gone()
        keys = self._catalog.keys()
        kept = {key.image_id for key in keys}
        now = time.time()
        self._catalog.counter_store.forget(
            image_id
            for image_id, counters in self._catalog.counter_store.all().items()
            if image_id not in kept and now - counters.last_used_at > _FORGET_SECONDS
        )

    def _write_metrics(self) -> None:
        snapshot = self._snapshot()
        with contextlib.suppress(OSError):
            self._time_series.note(snapshot)
        if self._metrics_file:
            # Imported here: it takes longer than a command, and only the periodic run needs it.
            from nova_qcache.reports import metrics

            metrics.write(snapshot, pathlib.Path(self._metrics_file))
