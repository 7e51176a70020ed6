# SPDX-License-Identifier: Apache-2.0
"""Counter store: the counters of this host, kept across restarts in one small file for each image.

Counting never fails what is counted: where a file cannot be read or written, one warning says so.
The files are not synced: a power loss may cost the last seconds.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import logging
import os
import pathlib
import time

from nova_qcache import exception
from nova_qcache.model.key import canonical_image_id
from nova_qcache.model.plan import Cause
from nova_qcache.model.plan import Plan
from nova_qcache.model.plan import PlanKind
from nova_qcache.stats import counters as counters_module
from nova_qcache.stats.counters import Counters
from nova_qcache.system import files
from nova_qcache.system import locks
from nova_qcache.system.log_rate_limit import LogRateLimit
from nova_qcache.system.paths import Paths
from nova_qcache.system.stat_cache import StatCache

__all__ = ['CounterStore']

LOG = logging.getLogger(__name__)

_PAST = 'past'
_SUFFIX = '.json'
_MODE = 0o640


class CounterStore:
    """Reads again only what has changed: who asks for all images, asks often."""

    def __init__(self, paths: Paths, lock_seconds: float) -> None:
        self._folder = paths.statistics
        self._locks = paths.locks
        self._lock_seconds = lock_seconds
        self._log_limit = LogRateLimit()
        self._files = StatCache(_counters)

    def add(self, image_id: str, more: Counters) -> None:
        """Add to what is counted of an image. Never raises."""
        self.change(image_id, lambda counters: counters_module.add(counters, more))

    def change(self, image_id: str, change: Callable[[Counters], Counters]) -> None:
        """Replace the counters of an image by what ``change`` returns. Never raises."""
        with self._quietly(), self._locked():
            before = self._read_or_begin(image_id)
            after = change(before)
            if after != before:
                self._write(image_id, after)

    def boot(self, plan: Plan) -> None:
        """Count a boot by what its domain has started with. Never raises."""
        with contextlib.suppress(exception.InvalidImageId):
            now = time.time()
            one = Counters(
                boots=1,
                plays=int(plan.kind is PlanKind.PLAY),
                records=int(plan.kind is PlanKind.RECORD and not plan.is_audit),
                audits=int(plan.is_audit),
                plain={plan.cause.value: 1} if plan.cause is not None else {},
                fallbacks=int(plan.cause is Cause.FALLBACK),
                last_boot_at=now,
                last_used_at=now,
            )

            def add(before: Counters) -> Counters:
                saved = before.boot_bytes if plan.kind is PlanKind.PLAY else 0
                return counters_module.add(before, dataclasses.replace(one, saved_bytes=saved))

            self.change(canonical_image_id(plan.image_id), add)

    def clear_leftovers(self) -> None:
        """Remove files that a crash left half written. Never raises."""
        with self._quietly(), self._locked():
            for path in self._folder.glob('.*'):
                path.unlink(missing_ok=True)

    def of(self, image_id: str) -> Counters:
        """Return what is counted of an image; zeros if nothing is known. Never raises, and leaves
        a file that cannot be read to whoever counts next."""
        with self._quietly():
            try:
                return self._read(image_id)
            except exception.StatisticsBroken as e:
                LOG.log(self._log_limit.level(e), '%s', e)
        return Counters()

    def all(self) -> dict[str, Counters]:
        """Return what is counted of each image."""
        found = {}
        names = self._names()
        self._files.keep({self._folder / name for name in names})
        for name in names:
            image_id = name.removesuffix(_SUFFIX)
            with contextlib.suppress(exception.InvalidImageId):
                if canonical_image_id(image_id) == image_id:
                    found[image_id] = self.of(image_id)
        return found

    def total(self, images: Iterable[Counters]) -> Counters:
        """Return the sum for the host: of these, and of images that were forgotten."""
        total = self.of(_PAST)
        for each in images:
            total = counters_module.add(total, each)
        return total

    def forget(self, image_ids: Iterable[str]) -> None:
        """Keep images in the sums for the host only: they are long gone from it. Never raises."""
        for image_id in image_ids:
            with self._quietly(), self._locked():
                its = self._read_or_begin(image_id)
                total = counters_module.add(self._read_or_begin(_PAST), its)
                self._path(image_id).unlink(missing_ok=True)  # first: rather lost than twice
                self._write(_PAST, total)

    def _names(self) -> list[str]:
        with self._quietly():
            return sorted(os.listdir(self._folder))
        return []

    def _path(self, name: str) -> pathlib.Path:
        return self._folder / f'{name}{_SUFFIX}'

    def _read(self, name: str) -> Counters:
        try:
            return self._files.read(self._path(name))
        except FileNotFoundError:
            return Counters()

    def _read_or_begin(self, name: str) -> Counters:
        """Read what is about to be replaced, under the lock."""
        try:
            return self._read(name)
        except exception.StatisticsTooNew:  # a newer version will go on with it
            raise
        except exception.StatisticsBroken as e:  # a power loss, or somebody else
            reason = e.attributes['reason']
            LOG.warning('Failed to read %s; counting from zero: %s', self._path(name), reason)
            return Counters()

    def _write(self, name: str, counters: Counters) -> None:
        content = counters_module.dumps(counters)
        files.replace_atomically(self._path(name), content, _MODE, sync=False)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # lockutils would make the folder of a lock anew: an empty mount point is no place for it.
        for folder in (self._folder, self._locks):
            os.stat(folder)
        with locks.statistics(self._locks, self._lock_seconds):
            yield

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as e:  # the folder has vanished: whoever needs it says so
            LOG.debug('Failed to update counters: %s', e)
        except (exception.QcacheError, OSError) as e:
            LOG.log(self._log_limit.level(e), 'Failed to update counters; going on: %s', e)
        except Exception:  # a boot goes on, also with a fault of ours
            LOG.exception('Unexpected error while updating counters; going on')


def _counters(path: pathlib.Path) -> Counters:
    return counters_module.loads(path.read_bytes(), str(path))
