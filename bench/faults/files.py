# SPDX-License-Identifier: Apache-2.0
"""Faults of the product's own files: removed, closed to it, damaged."""

import abc
import os
import pathlib
import shutil

from bench.faults.fault import Fault
from bench.faults.fault import Phase
from bench.faults.fault import WITH_GUESTS

__all__ = ['FAULTS']

_ANY = (Phase.BEFORE, *WITH_GUESTS, Phase.IDLE)


class RemoveFile(Fault):
    kind = 'rm-cache-file'
    says = 'somebody removes the recording or the sealed file'
    phases = _ANY
    spoils_cache = True

    def inject(self) -> int:
        return _remove(self.scene.site.cache_path, '.recording', '.qcow2')


class RemoveRecord(Fault):
    kind = 'rm-record'
    says = 'somebody removes the record of a cache'
    phases = _ANY

    def inject(self) -> int:
        return _remove(self.scene.site.cache_path, '.json')


class RemoveSockets(Fault):
    kind = 'rm-sockets'
    says = 'somebody removes the sockets of a recorder'

    def inject(self) -> int:
        path = self.scene.site.run_path
        return _remove(path / 'guests', '.nbd') + _remove(path / 'control', '.qmp', '.ctl')


class _Folder(Fault):
    """What it was is restored when nova-compute starts anew: its product makes the folders."""

    phases = _ANY

    @property
    @abc.abstractmethod
    def path(self) -> pathlib.Path: ...

    def undo(self) -> list[str]:
        self.scene.end_compute()
        return []


class EmptyRunPath(_Folder):
    kind = 'rm-run-path'
    says = 'somebody empties run_path'

    @property
    def path(self) -> pathlib.Path:
        return self.scene.site.run_path

    def inject(self) -> int:
        return _empty(self.path)


class EmptyCachePath(EmptyRunPath):
    kind = 'rm-cache-path'
    says = 'somebody empties cache_path'

    @property
    def path(self) -> pathlib.Path:
        return self.scene.site.cache_path


class CloseRunPath(_Folder):
    kind = 'chmod-run-path'
    says = 'run_path is closed to the product for some seconds (chmod 000)'
    lasts = (1.0, 3.0)

    @property
    def path(self) -> pathlib.Path:
        return self.scene.site.run_path

    def inject(self) -> int:
        self.path.chmod(0)
        return 1

    def undo(self) -> list[str]:
        self.path.chmod(0o711)
        return super().undo()


class CloseCachePath(CloseRunPath):
    kind = 'chmod-cache-path'
    says = 'the same with cache_path'

    @property
    def path(self) -> pathlib.Path:
        return self.scene.site.cache_path


class DamageCache(Fault):
    kind = 'damage-cache'
    says = 'a byte of a sealed cache is changed between two boots'
    phases = (Phase.IDLE,)
    spoils_cache = True

    def inject(self) -> int:
        paths = list(self.scene.site.cache_path.glob('*.qcow2'))
        for path in paths:
            with path.open('r+b') as file:
                at = self.scene.chance.randrange(path.stat().st_size)
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ 0x40]))
        return len(paths)


class TruncateCache(Fault):
    kind = 'truncate-cache'
    says = 'a sealed cache is cut off between two boots'
    phases = (Phase.IDLE,)
    spoils_cache = True

    def inject(self) -> int:
        paths = list(self.scene.site.cache_path.glob('*.qcow2'))
        for path in paths:
            os.truncate(path, self.scene.chance.randrange(path.stat().st_size))
        return len(paths)


def _remove(folder: pathlib.Path, *suffixes: str) -> int:
    """Remove the files with these suffixes, and return how many there were."""
    found = [path for path in folder.iterdir() if path.suffix in suffixes]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def _empty(folder: pathlib.Path) -> int:
    found = list(folder.iterdir())
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(found)


FAULTS: tuple[type[Fault], ...] = (
    RemoveFile,
    RemoveRecord,
    RemoveSockets,
    EmptyRunPath,
    EmptyCachePath,
    CloseRunPath,
    CloseCachePath,
    DamageCache,
    TruncateCache,
)
