# SPDX-License-Identifier: Apache-2.0
"""Upgrade checks of a host: caches and recorders of another version.

Beside :mod:`nova_qcache.checks.preflight`, whose findings hold at any time. To be asked with the
new version installed, before nova-compute is restarted with it.
"""

from collections.abc import Iterator, Sequence
import contextlib
import functools
import pathlib

from oslo_config import cfg

import nova_qcache
from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.checks.preflight import Finding
from nova_qcache.checks.preflight import Grade
from nova_qcache.model.key import CacheKey
from nova_qcache.recorder import respawn
from nova_qcache.system import processes
from nova_qcache.system.paths import Paths

__all__ = ['run_checks']

_MOST_NAMED = 5
"""More images than these are not named one by one."""


def run_checks(conf: cfg.ConfigOpts) -> Iterator[Finding]:
    """Look at the caches and recorders of this host; nothing is changed.

    :param conf: one that :func:`nova_qcache.conf.validate` accepts
    """
    paths = Paths.from_conf(conf)
    looks = {
        'caches': functools.partial(_caches, Catalog(paths, conf.qcache.lock_timeout_seconds)),
        'recorders': functools.partial(_recorders, paths),
    }
    for subject, look in looks.items():
        try:
            yield look(subject)
        except OSError as e:
            yield Finding(
                subject, Grade.ERROR, exception.sentence(e), 'Check whether its storage is sound.'
            )


def _caches(catalog: Catalog, subject: str) -> Finding:
    keys = catalog.keys()
    newer: list[CacheKey] = []
    broken: list[CacheKey] = []
    for key in keys:
        try:
            catalog.load(key)
        except exception.RecordTooNew:
            newer.append(key)
        except exception.RecordBroken:
            broken.append(key)
    if not newer and not broken:
        return Finding(subject, Grade.OK, f'all {len(keys)} records can be read')
    # A warning: these images are recorded again, and all others are as they were.
    found = []
    if newer:
        found.append(f'{len(newer)} were written by a newer nova-qcache ({_images(newer)})')
    if broken:
        found.append(f'{len(broken)} cannot be read ({_images(broken)})')
    return Finding(
        subject,
        Grade.WARNING,
        f'of {len(keys)} records, {" and ".join(found)}: their images are recorded again',
        'Install the nova-qcache that wrote them, or remove the caches with `nova-qcache remove '
        'IMAGE`.',
    )


def _recorders(paths: Paths, subject: str) -> Finding:
    running = _running(paths)
    installed_at = _installed_at()
    older = [key for key, started_at in running.items() if started_at < installed_at]
    if not older:
        said = f'{len(running)} at work, all of this version' if running else 'none at work'
        return Finding(subject, Grade.OK, said)
    return Finding(
        subject,
        Grade.WARNING,
        f'{len(older)} of {len(running)} were started before this nova-qcache was installed, and '
        f'still run the older version ({_images(older)})',
        'Nothing to do: each ends with the last server that reads through it.',
    )


def _running(paths: Paths) -> dict[CacheKey, float]:
    """Return when the recorders that are at work were started, in seconds since the epoch."""
    try:
        keys = list(respawn.keys(paths))
    except FileNotFoundError:
        return {}  # a host that has not recorded since it was started
    found = {}
    for key in keys:
        # A recorder that is gone is started again by the keeper, and with this version.
        if _is_at_work(paths, key):
            with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
                # It writes its respawn spec when it starts, and never again.
                found[key] = paths.respawn_spec(key).stat().st_mtime
    return found


def _is_at_work(paths: Paths, key: CacheKey) -> bool:
    try:
        return processes.listener_pid(paths.control_socket(key)) is not None
    except OSError:  # its queue is full, for example: it lives
        return True


def _installed_at() -> float:
    """Return when the newest file of this package came to this host: packages keep the times of
    change that files had elsewhere, and nobody can set the times of their inodes."""
    folder = pathlib.Path(nova_qcache.__file__).parent
    return max(path.stat().st_ctime for path in folder.rglob('*.py'))


def _images(keys: Sequence[CacheKey]) -> str:
    images = sorted({key.image_id for key in keys})
    more = [f'{len(images) - _MOST_NAMED} more'] if len(images) > _MOST_NAMED else []
    return ', '.join([*images[:_MOST_NAMED], *more])
