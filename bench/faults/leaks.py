# SPDX-License-Identifier: Apache-2.0
"""What is left when everybody has gone and the caches are removed; nothing may be."""

import contextlib
import os
import pathlib
import signal
import time

import psutil

from bench.faults import ground
from bench.faults import talk
from bench.faults.scene import Refused
from bench.faults.scene import Scene
from tests.functional import account
from tests.functional import users
from tests.functional import waiting

__all__ = ['clear_up']

_BLOCKS = 65536
"""Bytes by which the free space of a file system may differ: its own tables."""


def clear_up(scene: Scene, free_before: tuple[int, int]) -> list[str]:
    """Remove the caches as an operator does, wait for the product's end, and look.

    :param free_before: :func:`ground.free_blocks` of the caches' file system at the beginning
    """
    found = _remove(scene)
    deadline = time.monotonic() + waiting.PATIENCE
    while scene.running('recorder', 'daemon') and time.monotonic() < deadline:
        time.sleep(0.05)
    with contextlib.suppress(Refused, talk.Silent):
        scene.compute('sweep')  # as each start of nova-compute does
    scene.end_compute()
    _await_revalidations(scene)
    found += _end_keeper(scene)
    found += _end_others(scene)
    found += _files(scene)
    found += _locks(scene)
    if scene.disk.is_mounted:
        free = ground.free_blocks(scene.disk.path)
        if free_before[0] - free[0] > _BLOCKS:
            found.append(f'{free_before[0] - free[0]} bytes of the file system of the caches')
    return found


def _remove(scene: Scene) -> list[str]:
    deadline = time.monotonic() + waiting.PATIENCE
    while True:
        try:
            scene.compute('remove', scene.site.image_id)
            return []
        except Refused as e:
            if str(e).startswith('CacheNotFound'):
                return []
            if time.monotonic() > deadline:
                return [f'the cache cannot be removed: {e}']
            time.sleep(0.2)
        except talk.Silent as e:
            return [f'the cache cannot be removed: {e}']


def _await_revalidations(scene: Scene) -> None:
    """The keeper looks once a second at what it was asked to examine."""
    folder = scene.site.run_path / 'examinations'
    deadline = time.monotonic() + waiting.PATIENCE
    while scene.running('keeper') and time.monotonic() < deadline:
        if not any(folder.glob('*.examine')):
            return
        time.sleep(0.05)


def _end_keeper(scene: Scene) -> list[str]:
    found = scene.running('keeper')
    ground.signal_all(found, signal.SIGTERM)
    deadline = time.monotonic() + waiting.PATIENCE
    while not all(map(ground.has_ended, found)) and time.monotonic() < deadline:
        time.sleep(0.02)
    left = [process for process in found if not ground.has_ended(process)]
    return [f'keeper {process.pid} does not end' for process in left]


def _end_others(scene: Scene) -> list[str]:
    """End whatever runs as the product's user, and say what it was."""
    found = []
    for process in account.processes_of(scene.site.folder):
        with contextlib.suppress(psutil.Error):
            if process.uids().real == users.PRODUCT.uid:
                found.append(f'process {process.pid}: {" ".join(process.cmdline())[:200]}')
                ground.signal_all([process], signal.SIGKILL)
    return found


def _files(scene: Scene) -> list[str]:
    site = scene.site
    # When a cache was examined is known until the next one is.
    revalidations = site.run_path / 'examinations'
    allowed = {site.cache_path / 'locks', site.cache_path / 'generations', revalidations}
    counted = site.cache_path / 'statistics'
    found = []
    for folder in (site.cache_path, site.run_path):
        for path in sorted(folder.rglob('*')):
            is_count = path.parent == counted and not path.name.startswith('.')
            if path.is_dir() or path.parent in allowed or is_count:
                continue
            with contextlib.suppress(FileNotFoundError):
                found.append(f'{path.relative_to(site.folder)}, {path.stat().st_size} bytes')
    return found


def _locks(scene: Scene) -> list[str]:
    """Look for locks that somebody holds, on whatever file of the product."""
    held = set()
    for line in pathlib.Path('/proc/locks').read_text().splitlines():
        words = line.split()
        if '->' not in words:
            major, minor, inode = words[5].split(':')
            held.add((os.makedev(int(major, 16), int(minor, 16)), int(inode)))
    found = []
    for folder in (scene.site.cache_path / 'locks', scene.site.bases / '.nova-qcache'):
        for path in folder.glob('*'):
            facts = path.stat()
            if (facts.st_dev, facts.st_ino) in held:
                found.append(f'the lock {path.name}')
    return found
