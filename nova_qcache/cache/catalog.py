# SPDX-License-Identifier: Apache-2.0
"""The caches of this host: their records and files. The one place that changes the state of a
cache.

Each change is made under the lock of its image and ordered so that a crash in between leaves
either the old state or a file without a meaning, never a READY that is not true: a record becomes
READY after its file is complete and on disk, and goes away before its file does.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import logging
import os
import pathlib

from nova_qcache import exception
from nova_qcache.cache.directory import CacheDirectory
from nova_qcache.model import record as record_module
from nova_qcache.model import states
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.record import SealedFile
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from nova_qcache.stats.counter_store import CounterStore
from nova_qcache.stats.counters import Counters
from nova_qcache.system import files
from nova_qcache.system import locks
from nova_qcache.system import processes
from nova_qcache.system.log_rate_limit import LogRateLimit
from nova_qcache.system.paths import Paths
from nova_qcache.system.stat_cache import StatCache

__all__ = ['Catalog']

LOG = logging.getLogger(__name__)

_RECORD_MODE = 0o640
_SEALED_MODE = 0o440
_COUNT_SECONDS = 1
"""Nobody waits longer for what is only counted."""


class Catalog:
    def __init__(self, paths: Paths, lock_seconds: float) -> None:
        self.paths = paths
        self.directory = CacheDirectory(paths.cache_path)
        self.counter_store = CounterStore(paths, min(lock_seconds, _COUNT_SECONDS))
        self._lock_seconds = lock_seconds
        self._records = StatCache(_read)
        self._log_limit = LogRateLimit()

    def keys(self, image_id: str | None = None) -> list[CacheKey]:
        """Return the keys of all caches of this host, or of one image: those of records, and of
        files without a record.

        :raises OSError: if the folder of the caches cannot be read
        """
        return self.directory.keys(image_id)

    def records(self, image_id: str) -> list[CacheRecord]:
        """Return the records of an image's caches, in the order of their keys. A record that
        cannot be read is left out with one warning: no boot can use its cache.

        :raises OSError: if the folder of the caches cannot be read
        """
        found = []
        for key in self.keys(image_id):
            try:
                record = self.load(key)
            except exception.RecordBroken as e:
                LOG.log(self._log_limit.level(e), '%s', e)
                continue
            if record is not None:
                found.append(record)
        return found

    def next_key(self, image_id: str, generation: Generation) -> CacheKey:
        """Return the next free key of a generation: after those of all its caches, STALE and
        broken ones included, and not that of a recorder that still serves guests.

        :raises OSError: if the folder of the caches cannot be read
        """
        taken = [
            key.revision
            for key in self.keys(image_id)
            if key.generation == generation and self.paths.record(key).exists()
        ]
        key = CacheKey(image_id, generation, max(taken, default=0) + 1)
        while self._is_served(key):
            key = key.next_revision()
        return key

    def load(self, key: CacheKey) -> CacheRecord | None:
        """Return the record of a cache, None if it is COLD.

        :raises RecordBroken: if there is a file that is no record
        """
        path = self.paths.record(key)
        try:
            return self._records.read(path)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise exception.RecordBroken(
                path=str(path), reason=e.strerror, image_id=key.image_id
            ) from e

    def require_unchanged(self, record: CacheRecord) -> pathlib.Path:
        """Return the path of a sealed cache after comparing the facts of its file, without reading
        it.

        :raises CacheBroken: if it is not the file that was sealed: missing, truncated, replaced,
            written to
        """
        path = self.paths.sealed(record.key)
        sealed = record.sealed
        try:
            facts = path.lstat()
        except OSError as e:
            raise self._broken(record.key, e.strerror or str(e)) from e
        if sealed is None or facts.st_size != sealed.size:
            raise self._broken(
                record.key, f'it has {facts.st_size} bytes and had another size when it was sealed'
            )
        if (facts.st_ino, facts.st_mtime_ns) != (sealed.inode, sealed.mtime_ns):
            raise self._broken(record.key, 'it was replaced or written to since it was sealed')
        return path

    def begin(self, record: CacheRecord) -> None:
        """COLD to RECORDING: a recorder is about to fill ``paths.recording(key)``.

        :raises WrongState: if there is a cache
        """
        with self._locked(record.key):
            # No boot waits for a disk: a recording is dirty after a crash of the host, whatever is
            # left of its record.
            self._set_state(record, self._state(record.key), sync=False)

    def seal(self, record: CacheRecord, sealed: SealedFile) -> CacheRecord:
        """RECORDING to READY; ``paths.recording(key)`` is complete, checked, synced and nobody
        writes to it any more.

        :raises WrongState: if it was dropped or removed in the meantime
        """
        key = record.key
        with self._locked(key):
            before = self._state(key)
            ready = dataclasses.replace(record, state=State.READY, sealed=sealed)
            states.require_transition(key.image_id, before, ready.state)
            recording = self.paths.recording(key)
            # A recorder that was killed right after this rename comes here again.
            if recording.exists():
                os.rename(recording, self.paths.sealed(key))
                files.sync_folder(self.paths.cache_path)
            self._set_state(ready, before)
        return ready

    def retire(
        self, record: CacheRecord, reason: str, staleness: Staleness = Staleness.CHANGED
    ) -> None:
        """READY to STALE: no boot uses it any more, guests that do go on.

        :param reason: for people
        :param staleness: what is counted

        Harmless if it is not that READY cache any more: others retire and remove caches, too.
        """
        with self._locked(record.key):
            now = self._unless_gone(record)
            if now is None:
                return
            self._set_state(
                dataclasses.replace(now, state=State.STALE, stale_reason=reason),
                now.state,
                # A boot that records waits for this, and no lookup finds such a cache anyway.
                sync=staleness is not Staleness.WRITTEN,
            )
        # Recording again on top of a cache is no trouble with it.
        level = logging.INFO if staleness is Staleness.REVISION else logging.WARNING
        LOG.log(level, 'Cache %s is STALE now, no boot uses it again: %s', record.key.stem, reason)
        self.counter_store.add(record.key.image_id, Counters(invalidations={staleness.value: 1}))

    def refresh(self, record: CacheRecord) -> None:
        """Note what the file and the base of a READY cache look like now, after its content was
        proved."""
        with self._locked(record.key):
            if self._unless_gone(record) is not None:
                self._write(record)

    def retag(self, record: CacheRecord, generation: Generation) -> CacheRecord:
        """Re-tag a READY cache to a new generation of its base, whose content was proved to be the
        same. The old name becomes STALE; both names are links to one file, so guests that read the
        old name go on.

        :raises WrongState: if the old one is not READY any more, or the new generation has a cache
            of this base already, or a recording
        """
        image_id = record.key.image_id
        with self._locked(record.key):
            now = self._unless_gone(record)
            before = now.state if now else State.COLD
            states.require_transition(image_id, before, State.STALE)
            retagged = self._retagged(record, generation)  # by one that was killed before its end
            if retagged is None:
                key = self.next_key(image_id, generation)
                retagged = dataclasses.replace(record, key=key)
                old, new = self.paths.sealed(record.key), self.paths.sealed(key)
                new.unlink(missing_ok=True)  # of one that was killed earlier: it has no record
                try:
                    os.link(old, new)
                    files.sync_folder(self.paths.cache_path)
                except OSError as e:
                    raise self._broken(record.key, e.strerror or str(e)) from e
                self._write(retagged)
            stale_reason = f'it was re-tagged to generation {generation}'
            self._set_state(
                dataclasses.replace(record, state=State.STALE, stale_reason=stale_reason), before
            )
        return retagged

    def lease(self, key: CacheKey, take: Callable[[], None]) -> bool:
        """Take a lease of a cache, and return whether the cache is still READY; it cannot be
        discarded in between."""
        # Not under the lock of its image: what others write to the disk would be waited for.
        with self._leasing(key):
            if self._state(key) is not State.READY:
                return False
            take()
            return True

    def discard(self, key: CacheKey, require: Callable[[], None] = lambda: None) -> None:
        """Discard a cache in any state: remove its record and files.

        :param require: asked under the lock; what it raises keeps the cache. Without it, whether
            they may go is the caller's question.
        """
        with self._locked(key):
            with self._leasing(key):
                require()
                self.paths.record(key).unlink(missing_ok=True)
            self._remove(key)

    def discard_recording(self, key: CacheKey) -> None:
        """Discard a recording, or files without a record. A READY or STALE cache stays: a cache
        that was re-tagged may have come under the name of a recording that was removed, and boots
        may have leases of it."""
        with self._locked(key):
            if self._state(key) in (State.COLD, State.RECORDING):
                self._remove(key, sync=False)

    def clear_leftovers(self) -> None:
        """Remove records that a crash left half written: nobody writes one without the lock."""
        for path in self.paths.cache_path.glob('.*.json.*'):
            key = CacheKey.from_stem(path.name[1:].rpartition('.json.')[0])
            if key is not None:
                with self._locked(key):
                    path.unlink(missing_ok=True)
        self.counter_store.clear_leftovers()

    def forget_gone(self) -> None:
        """Forget caches that are gone: their records in memory, and the files of their locks.

        :raises OSError: if a folder cannot be read
        """
        keys = self.keys()
        self._records.keep({self.paths.record(key) for key in keys})
        locks.clear_away(self.paths.locks, keys)

    def seal_file(self, path: pathlib.Path) -> None:
        """Make a cache file read-only for everybody, and readable for qemu's group."""
        path.chmod(_SEALED_MODE)
        self.paths.share(path)

    def _is_served(self, key: CacheKey) -> bool:
        sockets = (self.paths.nbd_socket(key), self.paths.control_socket(key))
        # Most often there are none, and nobody has to be asked who listens.
        return any(path.exists() for path in sockets) and not (
            processes.listening().isdisjoint(sockets)
        )

    def _locked(self, key: CacheKey) -> contextlib.AbstractContextManager[None]:
        return locks.image(self.paths.locks, key.image_id, self._lock_seconds)

    def _leasing(self, key: CacheKey) -> contextlib.AbstractContextManager[None]:
        return locks.lease(self.paths.locks, key.image_id, self._lock_seconds)

    def _retagged(self, record: CacheRecord, generation: Generation) -> CacheRecord | None:
        """Return the record that a cache was re-tagged to, None if there is none.

        :raises WrongState: if another one is
        """
        for there in self.records(record.key.image_id):
            if there.key.generation != generation or not there.is_of(
                record.base, record.base_format
            ):
                continue
            if there.state is State.READY and (there.created_at, there.sealed) == (
                record.created_at,
                record.sealed,
            ):
                return there
            if there.state is not State.STALE:
                states.require_transition(record.key.image_id, there.state, State.RECORDING)
        return None

    def _unless_gone(self, record: CacheRecord) -> CacheRecord | None:
        """Return the present record of a READY cache that was looked up, None if the cache was
        retired or removed meanwhile, or another one is there."""
        now = self.load(record.key)
        if now is None or now.state is not State.READY or now.created_at != record.created_at:
            return None
        return now

    def _state(self, key: CacheKey) -> State:
        record = self.load(key)
        return record.state if record else State.COLD

    def _set_state(self, record: CacheRecord, before: State, *, sync: bool = True) -> None:
        states.require_transition(record.key.image_id, before, record.state)
        self._write(record, sync=sync)
        LOG.info(
            'Cache of image %s (generation %s) is %s now',
            record.key.image_id,
            record.key.generation,
            record.state.value,
        )

    def _write(self, record: CacheRecord, *, sync: bool = True) -> None:
        path = self.paths.record(record.key)
        try:
            files.replace_atomically(path, record_module.dumps(record), _RECORD_MODE, sync=sync)
        except OSError as e:
            raise exception.FolderUnfit(
                path=str(self.paths.cache_path),
                reason=f'the record of a cache cannot be written there ({e.strerror})',
                remedy='Make room there, or give it to the user that nova-compute runs as',
            ) from e

    def _remove(self, key: CacheKey, *, sync: bool = True) -> None:
        self.paths.record(key).unlink(missing_ok=True)
        if sync:  # or else a power loss could leave a record that says READY, without its file
            files.sync_folder(self.paths.cache_path)
        # Boots wait for what makes room: files that a power loss brings back have no record, and
        # are swept.
        for path in (self.paths.recording(key), self.paths.sealed(key)):
            path.unlink(missing_ok=True)

    def _broken(self, key: CacheKey, reason: str) -> exception.CacheBroken:
        return exception.CacheBroken(
            path=str(self.paths.sealed(key)), reason=reason, image_id=key.image_id
        )


def _read(path: pathlib.Path) -> CacheRecord | None:
    key = CacheKey.from_stem(path.stem)
    assert key is not None  # its path was made from one
    content = path.read_bytes()
    if not content.strip(b'\0'):  # of a recording, after a crash of the host: see begin()
        return None
    return record_module.loads(content, str(path), key)
