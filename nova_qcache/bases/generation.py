# SPDX-License-Identifier: Apache-2.0
"""The generation of a base: a counter that rises before the base is written to.

It lives in a small JSON file on the storage of the base, so that all hosts that share the base
share it, and stays when the base is deleted. A counter that is missing or unreadable starts a new
random epoch, never 1 of an old one: no cache of before can match. Where the storage takes no files
(an NBD export, a read-only mount) the counter is one of this host's, and whoever changes such a
base must say so with ``nova-qcache invalidate`` on each host.
"""

from collections.abc import Iterator
import contextlib
import errno
import hashlib
import json
import os
import pathlib

from nova_qcache import exception
from nova_qcache.model.key import Generation
from nova_qcache.model.source import Source
from nova_qcache.system import files
from nova_qcache.system import locks
from nova_qcache.system.paths import Paths

__all__ = ['Generations']

_NOT_OURS = (errno.EACCES, errno.ENOENT, errno.EPERM, errno.EROFS)
"""Errors of a storage that keeps no files of this host, now or later; all other errors may be
temporary."""


class Generations:
    def __init__(self, paths: Paths, lock_seconds: float) -> None:
        self._paths = paths
        self._lock_seconds = lock_seconds

    def current(self, source: Source) -> Generation:
        """Return the generation of a base; the first question starts an epoch.

        :raises FolderUnfit: if no counter can be kept anywhere
        :raises LockTimeout: if the counter stays locked
        """
        path = self._path(source)
        found = _read(path)
        if found is not None:
            return found
        with self._locked(path):
            # No boot waits for a disk: if this is lost, the next question starts another epoch.
            return _read(path) or _write(path, Generation.first_of_new_epoch(), sync=False)

    def known(self, source: Source) -> Generation | None:
        """Return the generation of a base, None if nobody has asked for it yet; make nothing."""
        name, folder = f'{source.generation_name()}.json', source.generation_folder()
        if folder is not None:
            found = _read(folder / name)
            place = folder if os.access(folder, os.F_OK) else folder.parent
            if found is not None or os.access(place, os.W_OK):
                return found
        return _read(self._own_path(source, name))

    def settled(self, source: Source) -> Generation:
        """Return the generation once it is on disk for good.

        Whoever raised it may have been killed before it was. A cache that is READY for a
        generation which a power loss takes back would serve the next write that gets its number.

        :raises FolderUnfit, LockTimeout: as above
        """
        found = self.current(source)
        path = self._path(source)
        try:
            files.sync_file(path)
            files.sync_folder(path.parent)
        except OSError as e:
            # Storage that this host cannot write says one of these.
            if e.errno not in (errno.EINVAL, errno.EROFS):
                raise _unfit(path, e) from e
        return found

    def raise_before_write(self, source: Source) -> Generation:
        """Announce a write to the base: when this returns, the higher generation is on disk.

        :raises FolderUnfit, LockTimeout: as above; the base must then not be written to
        """
        path = self._path(source)
        with self._locked(path):
            old = _read(path)
            new = _write(path, old.next() if old else Generation.first_of_new_epoch())
            for left in path.parent.glob(f'.{path.name}.*'):  # by one that was killed
                with contextlib.suppress(OSError):
                    left.unlink()
            return new

    @contextlib.contextmanager
    def _locked(self, path: pathlib.Path) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locks.generation(path.parent, path.stem, self._lock_seconds))
            except OSError as e:
                raise _unfit(path, e) from e
            yield

    def _path(self, source: Source) -> pathlib.Path:
        folder = source.generation_folder()
        name = f'{source.generation_name()}.json'
        if folder is not None and _can_keep(folder, name):
            return folder / name
        return self._own_path(source, name)

    def _own_path(self, source: Source, name: str) -> pathlib.Path:
        # With the whole reference, since two bases on two read-only mounts may have one name.
        fingerprint = hashlib.sha256(os.fsencode(source.reference)).hexdigest()[:16]
        return self._paths.generations / f'{fingerprint}-{name}'


def _can_keep(folder: pathlib.Path, name: str) -> bool:
    """Return whether the counter is there, or can be: a mount may be read-only for this host."""
    try:
        if (folder / name).exists():
            return True
    except OSError as e:  # there may be one that others raise: one of our own would not notice
        raise _unfit(folder / name, e) from e
    try:
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)  # whatever the umask is
    except OSError as e:
        if e.errno not in _NOT_OURS:
            raise _unfit(folder / name, e) from e
        return False
    return os.access(folder, os.W_OK)


def _unfit(path: pathlib.Path, error: OSError) -> exception.FolderUnfit:
    return exception.FolderUnfit(
        path=str(path.parent),
        reason=f'the generation of a base cannot be written there ({error.strerror})',
        remedy='Make room there, or give this user the right to write there',
    )


def _read(path: pathlib.Path) -> Generation | None:
    try:
        data = json.loads(path.read_bytes())
        return Generation(data['epoch'], data['n'])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write(path: pathlib.Path, generation: Generation, *, sync: bool = True) -> Generation:
    text = json.dumps({'epoch': generation.epoch, 'n': generation.n}).encode() + b'\n'
    try:
        files.replace_atomically(path, text, 0o644, sync=sync)
    except OSError as e:
        raise _unfit(path, e) from e
    return generation
