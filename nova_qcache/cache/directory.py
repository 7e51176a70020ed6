# SPDX-License-Identifier: Apache-2.0
"""Listing of the folder of the caches, at a cost that does not grow with it.

The folder is listed once, and again only when it has changed; a sealed file is looked at once,
since it never changes. So what a boot asks costs one look at the folder's own times.
"""

from collections.abc import Collection
import dataclasses
import os
import pathlib
import stat
import threading
import time

from nova_qcache.model.key import CacheKey

__all__ = ['CacheDirectory', 'CacheFile']

_RECORD = '.json'
_RECORDING = '.recording'
_SEALED = '.qcow2'
_SUFFIXES = (_RECORD, _RECORDING, _SEALED)
_OUR_FOLDERS = ('generations', 'locks', 'pins', 'statistics')
_TICK_NS = 50_000_000
_COARSE_NS = 2_000_000_000
"""File systems count time in ticks, of the kernel (up to 10 ms) or of whole seconds: a folder that
changed within the last one may change once more without a new time."""


@dataclasses.dataclass(frozen=True)
class CacheFile:
    """A cache file, sealed or not."""

    inode: int
    allocated: int
    """Bytes that it takes on its file system, reservation included."""
    length: int


class CacheDirectory:
    """The files in the folder of the caches. Safe to use from several threads."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._seen: int | None = None
        """The folder's time of change when it was listed, if that can be relied upon."""
        self._names: frozenset[str] = frozenset()
        self._foreign: set[str] = set()
        self._of_image: dict[str, list[CacheKey]] = {}
        self._sealed: dict[str, CacheFile] = {}
        self._sealed_sizes: dict[int, int] = {}
        """Bytes that each sealed file takes, by its inode, and their sum."""
        self._sealed_bytes = 0
        self._recordings: list[str] = []

    def keys(self, image_id: str | None = None) -> list[CacheKey]:
        """Return the keys of all caches here, or of one image's, in order: of records, and of
        files that lost theirs.

        :raises OSError: if the folder cannot be read
        """
        with self._lock:
            self._refresh()
            if image_id is not None:
                return list(self._of_image.get(image_id, ()))
            return sorted(key for keys in self._of_image.values() for key in keys)

    def files(self) -> dict[CacheKey, list[CacheFile]]:
        """Return the cache files of each key.

        :raises OSError: if the folder cannot be read
        """
        with self._lock:
            self._refresh()
            found: dict[CacheKey, list[CacheFile]] = {}
            for name, file in {**self._sealed, **self._recording_files()}.items():
                key = CacheKey.from_stem(name.rpartition('.')[0])
                if key is not None:
                    found.setdefault(key, []).append(file)
            return found

    def allocated(self) -> int:
        """Return the bytes that all caches take together; a file with two names counts once.

        :raises OSError: if the folder cannot be read
        """
        with self._lock:
            self._refresh()
            growing = {file.inode: file.allocated for file in self._recording_files().values()}
            both = growing.keys() & self._sealed_sizes.keys()  # sealed at this moment
            return self._sealed_bytes + sum(
                taken for inode, taken in growing.items() if inode not in both
            )

    def recordings(self) -> list[CacheKey]:
        """Return the keys of what is being recorded, or was when its recorder died.

        :raises OSError: if the folder cannot be read
        """
        with self._lock:
            self._refresh()
            found = (CacheKey.from_stem(name.rpartition('.')[0]) for name in self._recordings)
            return [key for key in found if key is not None]

    def foreign(self) -> Collection[str]:
        """Return the names of what is in the folder and not ours. Temporary files of ours begin
        with a dot.

        :raises OSError: if the folder cannot be read
        """
        with self._lock:
            self._refresh()
            return sorted(self._foreign)

    def _refresh(self) -> None:
        try:
            changed_at = os.stat(self._folder).st_mtime_ns
            if changed_at == self._seen:
                return
            names = frozenset(os.listdir(self._folder))
        except FileNotFoundError:
            changed_at, names = 0, frozenset()
        tick = _TICK_NS if changed_at % 1_000_000_000 else _COARSE_NS
        is_settled = 0 <= changed_at < time.time_ns() - tick
        self._seen = changed_at if is_settled else None
        if names != self._names:
            self._update(names)

    def _update(self, names: frozenset[str]) -> None:
        for name in self._names - names:
            self._sealed.pop(name, None)
            self._foreign.discard(name)
            self._forget_key(name, names)
        for name in names - self._names:
            key = _key(name)
            if key is None:
                if not name.startswith('.') and name not in _OUR_FOLDERS:
                    self._foreign.add(name)
                continue
            keys = self._of_image.setdefault(key.image_id, [])
            if key not in keys:
                keys.append(key)
                keys.sort()
            if name.endswith(_SEALED):
                file = self._stat(name)
                if file is not None:
                    self._sealed[name] = file
        self._sealed_sizes = {file.inode: file.allocated for file in self._sealed.values()}
        self._sealed_bytes = sum(self._sealed_sizes.values())
        self._recordings = [name for name in names if name.endswith(_RECORDING)]
        self._names = names

    def _forget_key(self, name: str, names: frozenset[str]) -> None:
        key = _key(name)
        if key is None or any(f'{key.stem}{suffix}' in names for suffix in _SUFFIXES):
            return
        left = [each for each in self._of_image.get(key.image_id, ()) if each != key]
        if left:
            self._of_image[key.image_id] = left
        else:
            self._of_image.pop(key.image_id, None)

    def _recording_files(self) -> dict[str, CacheFile]:
        looked = {name: self._stat(name) for name in self._recordings}
        return {name: file for name, file in looked.items() if file is not None}

    def _stat(self, name: str) -> CacheFile | None:
        try:
            facts = os.lstat(self._folder / name)
        except OSError:  # gone meanwhile
            return None
        if not stat.S_ISREG(facts.st_mode):
            return None
        return CacheFile(facts.st_ino, facts.st_blocks * 512, facts.st_size)


def _key(name: str) -> CacheKey | None:
    stem, dot, suffix = name.rpartition('.')
    return CacheKey.from_stem(stem) if f'{dot}{suffix}' in _SUFFIXES else None
