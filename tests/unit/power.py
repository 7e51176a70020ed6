# SPDX-License-Identifier: Apache-2.0
"""What may be left of folders after a power loss: only what somebody waited for is certain.

The model is harsher than most file systems. A name for which nobody synced its folder is what it
was or what it became since, each name for itself, so a rename may have happened by halves. A file
that nobody synced has what it had when it was synced last, or what it has now, or zeros of that
length.
"""

from collections.abc import Iterator
import dataclasses
import itertools
import os
import pathlib
import random
import shutil
import stat

__all__ = ['Disk', 'Outcome']

_SYNCS = ('fsync', 'fdatasync')
_LOOKS = ('access', 'close', 'listdir', 'lstat', 'read', 'scandir', 'stat')
_FOLDER = -1
"""In place of the inode of a folder: which one it is makes no difference."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One thing that may be left."""

    names: tuple[tuple[pathlib.Path, int | None], ...]
    """What each name is; its inode, or None where there is no such name."""
    contents: tuple[tuple[int, bytes], ...]


class Disk:
    """Follows what is done in some folders; all that is there in the beginning is on disk.

    Each inode that was ever seen has one more name in a folder of graves, so that it is not used
    again and a cache file can come back as the same one.
    """

    def __init__(self, graves: pathlib.Path, *folders: pathlib.Path) -> None:
        """:param folders: parents before what is in them; they need not be there yet"""
        self._graves = graves
        self._folders = folders
        self._facts: dict[int, os.stat_result] = {}
        graves.mkdir(exist_ok=True)
        self.settle()

    def settle(self) -> None:
        """All that is there now is on disk."""
        self._synced: dict[int, bytes] = {}
        self._names: dict[pathlib.Path, dict[str, set[int | None]]] = {
            folder: {} for folder in self._folders
        }
        for folder in self._folders:
            for name, inode in self._look(folder).items():
                self._names[folder][name] = {inode}
                if inode != _FOLDER:
                    self._synced[inode] = self._grave(inode).read_bytes()

    def watch(self, name: str, path: str) -> None:
        """Be told of a call that was made; see :mod:`tests.unit.syscalls`."""
        if name in _LOOKS:
            return
        for folder in self._folders:
            now = self._look(folder)
            known = self._names[folder]
            for each in sorted({*known, *now}):  # in one order, so that a run can be repeated
                known.setdefault(each, {None}).add(now.get(each))
        if name not in _SYNCS:
            return
        if os.path.isdir(path):
            folder = pathlib.Path(path)
            if folder in self._names:
                found = self._look(folder).items()
                self._names[folder] = {each: {inode} for each, inode in found}
        else:
            inode = os.stat(path).st_ino
            if inode in self._facts:
                self._synced[inode] = self._grave(inode).read_bytes()

    def outcomes(self) -> list[Outcome]:
        """Return all that a power loss may leave now."""
        names, contents = self._choices()
        return [
            Outcome(chosen, written)
            for chosen in itertools.product(*names)
            for written in itertools.product(*contents)
        ]

    def one_of_them(self, generator: random.Random) -> Outcome:
        """Return one outcome; they may be more than can be counted."""
        names, contents = self._choices()
        return Outcome(
            tuple(generator.choice(choices) for choices in names),
            tuple(generator.choice(choices) for choices in contents),
        )

    def _choices(
        self,
    ) -> tuple[list[list[tuple[pathlib.Path, int | None]]], list[list[tuple[int, bytes]]]]:
        ages = {inode: age for age, inode in enumerate(self._facts)}  # inodes differ each time
        names = [
            [
                (folder / name, inode)
                for inode in sorted(choices, key=lambda inode: ages.get(inode or 0, -1))
            ]
            for folder, known in self._names.items()
            for name, choices in known.items()
        ]
        reachable = {inode for choices in names for _, inode in choices}
        contents = [
            [(inode, content) for content in self._contents(inode)]
            for inode in self._facts
            if inode in reachable
        ]
        return names, contents

    def leave(self, outcome: Outcome) -> None:
        """Make the folders what is left, whatever they are."""
        for inode, content in outcome.contents:
            grave, facts = self._grave(inode), self._facts[inode]
            grave.chmod(0o600)
            grave.write_bytes(content)
            grave.chmod(stat.S_IMODE(facts.st_mode))
            os.utime(grave, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        wanted = {path: inode for path, inode in outcome.names if inode is not None}
        for folder in self._folders:
            for path in _entries(folder):
                if wanted.get(path) != (_FOLDER if path.is_dir() else path.stat().st_ino):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path, inode in wanted.items():
            if path.parent.is_dir() and not path.exists():
                path.mkdir() if inode == _FOLDER else os.link(self._grave(inode), path)

    def _contents(self, inode: int) -> Iterator[bytes]:
        now = self._grave(inode).read_bytes()
        yield from dict.fromkeys(
            [now]
            if self._synced.get(inode) == now
            else [now, self._synced.get(inode, b''), b'\0' * len(now)]
        )

    def _look(self, folder: pathlib.Path) -> dict[str, int]:
        found = {}
        for path in _entries(folder):
            facts = path.lstat()
            if stat.S_ISDIR(facts.st_mode):
                found[path.name] = _FOLDER
                continue
            if facts.st_ino not in self._facts:
                os.link(path, self._grave(facts.st_ino))
            self._facts[facts.st_ino] = facts
            found[path.name] = facts.st_ino
        return found

    def _grave(self, inode: int) -> pathlib.Path:
        return self._graves / str(inode)


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
