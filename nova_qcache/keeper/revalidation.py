# SPDX-License-Identifier: Apache-2.0
"""Revalidation: comparison of caches with their bases, cached cluster by cached cluster.

A revalidation reads as much of a base as one boot does, so no boot waits for it: a boot that finds
a base looking changed requests one and goes on without the cache. Where only the times of the base
differ it goes on with the cache, and the revalidation comes now and then, and slowly.
"""

from collections.abc import Collection
import contextlib
import json
import logging
import os
import pathlib
import time
from typing import NamedTuple

from nova_qcache import exception
from nova_qcache.bases.generation import Generations
from nova_qcache.cache import plugins
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.usage import Usage
from nova_qcache.cache.verify import Verifier
from nova_qcache.model.key import CacheKey
from nova_qcache.model.states import State
from nova_qcache.stats.counters import Counters
from nova_qcache.system import files
from nova_qcache.system.progress import silent

__all__ = ['Request', 'Requests', 'Revalidator']

LOG = logging.getLogger(__name__)

_SUFFIX, _DONE = '.examine', '.examined'


class Request(NamedTuple):
    image_hash: str = ''
    """Glance's hash of the image's content; empty if unknown."""
    can_wait: bool = False
    """True if boots use the cache meanwhile."""


class Requests:
    """Requests for revalidation: one small file for each cache that is to be revalidated, or
    was."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def add(self, key: CacheKey, image_hash: str = '') -> None:
        """Request a revalidation, for which boots wait; requesting it twice is the same.

        :param image_hash: what Glance says of the image now; noted with a cache that is equal
        :raises OSError: if it cannot be written
        """
        self._write(key, Request(image_hash))

    def add_now_and_then(self, key: CacheKey, seconds: float) -> bool:
        """Request a revalidation that can wait, unless one ended within so many seconds, with
        whatever result, or one is requested already.

        :return: whether it was asked for
        :raises OSError: if it cannot be written
        """
        with contextlib.suppress(FileNotFoundError):
            if 0 <= time.time() - self._path(key, _DONE).stat().st_mtime < seconds:
                return False
        if self._path(key).exists():
            return False
        self._write(key, Request(can_wait=True))
        return True

    def pending(self) -> dict[CacheKey, Request]:
        """Return the caches that are to be revalidated; those for which boots wait come first.

        :raises OSError: if the folder cannot be listed
        """
        found = {key: self._read(key) for key in self._keys(_SUFFIX)}
        return dict(sorted(found.items(), key=lambda each: each[1].can_wait))

    def done(self, key: CacheKey) -> None:
        """Note that a revalidation has ended, with whatever result."""
        with contextlib.suppress(FileNotFoundError):
            self._path(key).rename(self._path(key, _DONE))
            os.utime(self._path(key, _DONE))

    def forget_others(self, keys: Collection[CacheKey]) -> None:
        """Keep what is known of these caches alone: the others are gone."""
        for key in self._keys(_DONE):
            if key not in keys:
                self._path(key, _DONE).unlink(missing_ok=True)

    def _keys(self, suffix: str) -> list[CacheKey]:
        keys = (
            CacheKey.from_stem(name.removesuffix(suffix))
            for name in sorted(os.listdir(self._folder))
            if name.endswith(suffix)
        )
        return [key for key in keys if key is not None]

    def _path(self, key: CacheKey, suffix: str = _SUFFIX) -> pathlib.Path:
        return self._folder / f'{key.stem}{suffix}'

    def _write(self, key: CacheKey, request: Request) -> None:
        text = json.dumps(request._asdict())
        files.replace_atomically(self._path(key), text.encode(), 0o644, sync=False)

    def _read(self, key: CacheKey) -> Request:
        try:
            data = json.loads(self._path(key).read_bytes())
            image_hash = data['image_hash']
            can_wait = data.get('can_wait') is True
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return Request()
        return Request(image_hash if isinstance(image_hash, str) else '', can_wait)


class Revalidator:
    def __init__(
        self,
        catalog: Catalog,
        generations: Generations,
        verifier: Verifier,
        usage: Usage,
        requests: Requests,
        reconnect_seconds: int,
        rate: int,
    ) -> None:
        """:param reconnect_seconds: for how long reads wait for a base that went away
        :param rate: bytes of a base that are read in a second at the most where no boot waits
        """
        self._catalog = catalog
        self._generations = generations
        self._verifier = verifier
        self._usage = usage
        self._requests = requests
        self._reconnect_seconds = reconnect_seconds
        self._rate = rate

    def run_once(self) -> int:
        """Revalidate all requested caches, one after the other; return their number.

        A cache that cannot be compared now is revalidated when a boot requests it again.
        """
        count = 0
        while pending := self._requests.pending():  # one that cannot wait may have come meanwhile
            key, request = next(iter(pending.items()))
            try:
                self._revalidate(key, request)
            except (exception.QcacheError, OSError) as e:
                LOG.warning(
                    'Failed to compare the cache of image %s with its base; the next boot asks'
                    ' again: %s',
                    key.image_id,
                    e,
                )
                self._catalog.counter_store.add(
                    key.image_id, Counters(verifications={'unknown': 1})
                )
            finally:
                self._requests.done(key)
            count += 1
        if count:
            self._requests.forget_others(self._catalog.keys())
        return count

    def _revalidate(self, key: CacheKey, request: Request) -> None:
        record = self._catalog.load(key)
        if record is None or record.state is not State.READY:
            return
        source = plugins.source(
            record.base, record.base_format, reconnect_seconds=self._reconnect_seconds
        )
        rate = self._rate if request.can_wait else 0
        found = self._verifier.verify(record, source, silent, request.image_hash, rate)
        LOG.info(
            'Compared the cache of image %s with its base, %d bytes: %s',
            key.image_id,
            found.compared,
            found.problem or 'equal',
        )
        was_retagged = found.key != key
        # A damaged one is of use to nobody, and expiry may be switched off.
        if was_retagged or (found.problem and self._generations.current(source) == key.generation):
            self._clear_away(key)

    def _clear_away(self, key: CacheKey) -> None:
        try:
            self._catalog.discard(key, lambda: self._usage.require_none(key))
        except exception.CacheInUse as e:
            LOG.info('Keeping a stale cache of image %s for now: %s', key.image_id, e)
