# SPDX-License-Identifier: Apache-2.0
"""Caches that are to be compared with their bases, cached cluster by cached cluster.

That reads as much of a base as one boot does, so no boot waits for it: a boot that finds a base
looking changed asks for an examination and goes on without the cache.
"""

import json
import logging
import os
import pathlib

from nova_qcache import exception
from nova_qcache import plugins
from nova_qcache.counters import Counters
from nova_qcache.generation import Generations
from nova_qcache.key import CacheKey
from nova_qcache.progress import silent
from nova_qcache.states import State
from nova_qcache.store import Store
from nova_qcache.usage import Usage
from nova_qcache.verifier import Verifier

__all__ = ['Examiner', 'Requests']

LOG = logging.getLogger(__name__)

_SUFFIX = '.examine'


class Requests:
    """One small file for each cache that is to be examined."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def add(self, key: CacheKey, image_hash: str = '') -> None:
        """Ask for an examination; asking twice is the same.

        :param image_hash: what Glance says of the image now; noted with a cache that is equal
        :raises OSError: if it cannot be written
        """
        hidden = self._folder / f'.{key.stem}.{os.getpid()}'
        hidden.write_text(json.dumps({'image_hash': image_hash}))
        hidden.rename(self._path(key))

    def pending(self) -> dict[CacheKey, str]:
        """Return the caches that are to be examined, each with its image's hash.

        :raises OSError: if the folder cannot be listed
        """
        found = {}
        for name in sorted(os.listdir(self._folder)):
            key = CacheKey.from_stem(name.removesuffix(_SUFFIX))
            if key is not None and name.endswith(_SUFFIX):
                found[key] = self._hash(key)
        return found

    def done(self, key: CacheKey) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: CacheKey) -> pathlib.Path:
        return self._folder / f'{key.stem}{_SUFFIX}'

    def _hash(self, key: CacheKey) -> str:
        try:
            said = json.loads(self._path(key).read_bytes())['image_hash']
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return ''
        return said if isinstance(said, str) else ''


class Examiner:
    def __init__(
        self,
        store: Store,
        generations: Generations,
        verifier: Verifier,
        usage: Usage,
        requests: Requests,
        reconnect_seconds: int,
    ) -> None:
        """:param reconnect_seconds: for how long reads wait for a base that went away"""
        self._store = store
        self._generations = generations
        self._verifier = verifier
        self._usage = usage
        self._requests = requests
        self._reconnect_seconds = reconnect_seconds

    def look(self) -> int:
        """Examine all caches that are to be, one after the other; return how many they were.

        One that cannot be examined now is so when the next boot asks again.
        """
        pending = self._requests.pending()
        for key, image_hash in pending.items():
            try:
                self._examine(key, image_hash)
            except (exception.QcacheError, OSError) as e:
                LOG.warning('The cache of image %s cannot be examined: %s', key.image_id, e)
                self._store.ledger.add(key.image_id, Counters(verifications={'unknown': 1}))
            finally:
                self._requests.done(key)
        return len(pending)

    def _examine(self, key: CacheKey, image_hash: str) -> None:
        record = self._store.load(key)
        if record is None or record.state is not State.READY:
            return
        source = plugins.source(
            record.base, record.base_format, reconnect_seconds=self._reconnect_seconds
        )
        found = self._verifier.verify(record, source, silent, image_hash)
        LOG.info(
            'The cache of image %s was compared with its base, %d bytes: %s',
            key.image_id,
            found.compared,
            found.problem or 'equal',
        )
        was_carried_over = found.key != key
        # A damaged one is of use to nobody, and ageing may be switched off.
        if was_carried_over or (
            found.problem and self._generations.current(source) == key.generation
        ):
            self._clear_away(key)

    def _clear_away(self, key: CacheKey) -> None:
        try:
            self._store.discard(key, lambda: self._usage.require_none(key))
        except exception.CacheInUse as e:
            LOG.info('A cache of image %s that no boot uses stays for now: %s', key.image_id, e)
