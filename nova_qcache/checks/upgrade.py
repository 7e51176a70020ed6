# SPDX-License-Identifier: Apache-2.0
"""Upgrade checks of a host: caches and recorders of another version, and Nova.

Beside those of :mod:`nova_qcache.checks.preflight`, which hold at any time. To be asked with the
new version installed, before nova-compute is restarted with it.
"""

from collections.abc import Sequence
import contextlib
from importlib import metadata
import importlib.util
import pathlib
import sys

from oslo_config import cfg

import nova_qcache
from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.checks import preflight
from nova_qcache.checks.registry import Check
from nova_qcache.checks.registry import Finding
from nova_qcache.checks.registry import Grade
from nova_qcache.model.key import CacheKey
from nova_qcache.recorder import respawn
from nova_qcache.system import processes
from nova_qcache.system.paths import Paths
from nova_qcache.virt import compatibility

__all__ = ['CHECKS']

_DRIVER = 'qcache.QcacheDriver'
_SHIM = 'nova.virt.qcache'
"""Module in which Nova looks for the driver."""
_TESTED_NOVAS = range(31, 35)

_MOST_NAMED = 5
"""More images than these are not named one by one."""


def _caches(conf: cfg.ConfigOpts) -> str | Finding:
    catalog = Catalog(Paths.from_conf(conf), conf.qcache.lock_timeout_seconds)
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
        return f'all {len(keys)} records can be read'
    # A warning: these images are recorded again, and all others are as they were.
    found = []
    if newer:
        found.append(f'{len(newer)} were written by a newer nova-qcache ({_images(newer)})')
    if broken:
        found.append(f'{len(broken)} cannot be read ({_images(broken)})')
    return Finding(
        Grade.WARNING,
        f'of {len(keys)} records, {" and ".join(found)}: their images are recorded again',
        'Install the nova-qcache that wrote them, or remove the caches with `nova-qcache remove '
        'IMAGE`.',
    )


def _recorders(conf: cfg.ConfigOpts) -> str | Finding:
    running = _running(Paths.from_conf(conf))
    installed_at = _installed_at()
    older = [key for key, started_at in running.items() if started_at < installed_at]
    if not older:
        return f'{len(running)} at work, all of this version' if running else 'none at work'
    return Finding(
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


def _nova(conf: cfg.ConfigOpts) -> str | Finding:
    """Look at the Nova that this Python would run."""
    driver = conf.compute_driver
    try:
        version = metadata.version('nova')
    except metadata.PackageNotFoundError:
        if driver != _DRIVER:
            return 'Nova is not installed here: nova-qcache is used without it'
        return Finding(
            Grade.ERROR,
            f'nova.conf has compute_driver = {_DRIVER}, and {sys.executable} has no Nova',
            'Install nova-qcache where nova-compute is installed.',
        )
    moved = '; '.join(compatibility.moved())
    if moved:
        return Finding(
            Grade.ERROR,
            f'nova-qcache does not support Nova {version}, and all instances would boot without '
            f'a cache: {moved}',
            'Upgrade nova-qcache, or set [DEFAULT] compute_driver = libvirt.LibvirtDriver.',
        )
    if driver == _DRIVER and importlib.util.find_spec(_SHIM) is None:
        return Finding(
            Grade.ERROR,
            f'nova.conf has compute_driver = {_DRIVER}, and Nova {version} does not find {_SHIM}',
            'Install nova-qcache into the same folder as Nova.',
        )
    major = version.partition('.')[0]
    if not major.isdigit() or int(major) not in _TESTED_NOVAS:
        return Finding(
            Grade.WARNING,
            f'Nova {version} has all interfaces that nova-qcache needs, which is tested with '
            f'{_TESTED_NOVAS[0]} to {_TESTED_NOVAS[-1]}',
            'Try it on one host.',
        )
    # Not all of them, perhaps: nova-compute may be given files that nobody else reads.
    said = f'compute_driver = {driver}' if driver else 'no compute_driver'
    return f'Nova {version} fits; these configuration files have {said}'


CHECKS = (
    *preflight.CHECKS,
    Check('caches', _caches, 'folders'),
    Check('recorders', _recorders, 'folders'),
    Check('nova', _nova),
)
"""What ``nova-qcache-status upgrade check`` looks at."""
