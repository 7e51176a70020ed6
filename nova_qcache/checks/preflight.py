# SPDX-License-Identifier: Apache-2.0
"""Preflight checks of a host: tools, folders and their file system."""

from collections.abc import Iterator
import contextlib
import difflib
import functools
import pathlib
import tempfile

from oslo_config import cfg

from nova_qcache import conf as qcache_conf
from nova_qcache import config_files
from nova_qcache import exception
from nova_qcache.cache import pool
from nova_qcache.cache.directory import CacheDirectory
from nova_qcache.checks.registry import Check
from nova_qcache.checks.registry import Finding
from nova_qcache.checks.registry import Grade
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.qemu import block_graph
from nova_qcache.qemu import img
from nova_qcache.system import confinement
from nova_qcache.system import files
from nova_qcache.system import libvirt_guests
from nova_qcache.system.libvirt_domains import LibvirtDomains
from nova_qcache.system.paths import Paths

__all__ = ['CHECKS']

_PROBE_BYTES = 8 * 1024 * 1024


def _configuration(conf: cfg.ConfigOpts) -> str:
    qcache_conf.validate(conf)
    return f'read from {", ".join(config_files.names(conf)) or "no file"}'


def _options(conf: cfg.ConfigOpts) -> str | Finding:
    """List the options in force, and those in the files that are unknown."""
    known = {opt.dest: opt for opt in qcache_conf.OPTS}
    changed = [
        f'{name} = {conf.qcache[name]}'
        for name, opt in known.items()
        if conf.qcache[name] != opt.default
    ]
    in_force = ', '.join([*changed, f'all {"other " * bool(changed)}options have their defaults'])
    unknown = {
        name: said for name, said in config_files.written(conf).items() if name not in known
    }
    if not unknown:
        return in_force
    named = ', '.join(f'{name} ({said.file})' for name, said in unknown.items())
    meant = ' or '.join(
        match for name in unknown for match in difflib.get_close_matches(name, known, 1)
    )
    remedy = f'Did you mean {meant}?' if meant else 'Remove it, or correct its name.'
    return Finding(Grade.WARNING, f'[qcache] has no option {named}; {in_force}', remedy)


def _version(option: str, conf: cfg.ConfigOpts) -> str:
    program = conf.qcache[option]
    return f'{program} {".".join(map(str, img.require_version(program, option)))}'


def _drivers(conf: cfg.ConfigOpts) -> str:
    tool = img.QemuImg(conf.qcache.qemu_img)
    there = tool.drivers()
    for driver, purpose in block_graph.DRIVERS.items():
        if driver not in there:
            raise exception.DriverMissing(tool=tool.program, driver=driver, purpose=purpose)
    return ', '.join(block_graph.DRIVERS)


def _folders(conf: cfg.ConfigOpts) -> str:
    paths = Paths.from_conf(conf)
    missing = paths.missing()
    paths.prepare(make=False)
    longest = CacheKey('0' * 8 + '-0000' * 3 + '-' + '0' * 12, Generation('0' * 12, 10**6))
    paths.require_short_sockets(longest)
    if paths.qemu_group:
        with _probe(conf) as (_, probe):
            paths.share(probe)
    made = f'; nova-compute makes {" and ".join(missing)} when it starts' if missing else ''
    return f'{paths.cache_path}, {paths.run_path}{made}'


@contextlib.contextmanager
def _probe(conf: cfg.ConfigOpts) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """A folder on the file system of the caches, and a file there without a name. Where that has
    no O_TMPFILE, it has one for a moment, and the folder's times change."""
    folder = files.place(pathlib.Path(conf.qcache.cache_path))
    with tempfile.TemporaryFile(dir=folder) as file:
        yield folder, pathlib.Path(f'/proc/self/fd/{file.fileno()}')


def _reservation(conf: cfg.ConfigOpts) -> str:
    with _probe(conf) as (folder, probe):
        files.reserve(probe, _PROBE_BYTES, folder)
    return 'the file system reserves space'


def _direct_io(conf: cfg.ConfigOpts) -> str:
    with _probe(conf) as (folder, probe):
        if not files.supports_direct_io(probe):
            raise exception.FolderUnfit(
                path=str(folder),
                reason='its file system has no O_DIRECT, which guests with cache=none need',
                remedy='Put [qcache] cache_path on another file system, or set disk_cachemodes',
            )
    return 'supported'


def _budget(conf: cfg.ConfigOpts) -> str | Finding:
    folder = pathlib.Path(conf.qcache.cache_path)
    limits, mib = pool.limits(conf, folder), qcache_conf.MIB
    taken = CacheDirectory(folder).allocated()
    free = files.free_bytes(files.place(folder))
    found = (
        f'caches take {taken // mib} MiB of {limits.budget // mib}, and {free // mib} MiB are '
        f'free, of which {limits.min_free // mib} must stay free'
    )
    excess = max(taken - limits.budget, limits.min_free - free)
    if excess <= 0:
        return found
    error = exception.OverBudget(
        path=str(folder),
        excess=excess,
        reason=found,
        remedy='The next recording or run of the image cache manager evicts unused ones; or '
        'raise [qcache] cache_budget, or lower min_free',
    )
    # A warning: what is READY is played all the same.
    return Finding(Grade.WARNING, *error.problem_and_remedy())


def _space(conf: cfg.ConfigOpts) -> str:
    free = files.free_bytes(files.place(pathlib.Path(conf.qcache.cache_path)))
    quota = qcache_conf.quota_bytes(conf)
    if free < quota:
        raise exception.InvalidQuota(
            quota=quota,
            reason=f'is more than the {free} bytes that are free',
            remedy='to less, or free space',
        )
    return f'{free // qcache_conf.MIB} MiB free, room for {free // quota} recordings'


def _confinement(conf: cfg.ConfigOpts) -> str | Finding:
    guests = Paths.from_conf(conf).guests
    problem = confinement.problem(guests)
    if problem is None:
        return f'no known rule denies guests {guests}'
    # A warning: sealed caches are played all the same, and guests without libvirt record.
    cause, _, remedy = problem.partition('; ')
    return Finding(
        Grade.WARNING,
        f'boots cannot record on this host, and play existing caches only: {cause}',
        f'{remedy[:1].upper()}{remedy[1:]}.',
    )


def _libvirt(conf: cfg.ConfigOpts) -> str | None:
    uri = conf.qcache.libvirt_uri
    if not uri:
        return None
    version = '.'.join(map(str, LibvirtDomains(uri).version()))
    return f'{uri} is version {version}, and its guests may be resumed'


def _libvirt_guests(conf: cfg.ConfigOpts) -> str | Finding | None:
    saves = libvirt_guests.saves() if conf.qcache.libvirt_uri else None
    if not saves:
        return None if saves is None else 'it shuts guests down when the host shuts down'
    # A warning: the keeper makes their images plain, unless libvirtd stops too soon after that.
    return Finding(
        Grade.WARNING,
        'it saves guests when the host shuts down, and a guest that is saved with a cache just '
        'before libvirtd stops may not start until nova-compute has started',
        f'Set ON_SHUTDOWN=shutdown and ON_BOOT=ignore in {libvirt_guests.setting()}.',
    )


def _glance(conf: cfg.ConfigOpts) -> str | Finding:
    section = conf.qcache.glance_auth_section
    if not section:
        return Finding(
            Grade.WARNING,
            'Glance is not asked: caches of deleted images expire by age only',
            'Set [qcache] glance_auth_section to a section with the credentials of an admin.',
        )
    from nova_qcache.system.glance import Glance  # as slow to import as all else

    return Glance(conf, section).check()


CHECKS = (
    Check('configuration', _configuration),
    Check('options', _options, 'configuration'),
    Check('qemu_img', functools.partial(_version, 'qemu_img')),
    Check('qemu_io', functools.partial(_version, 'qemu_io')),
    Check('qemu_storage_daemon', functools.partial(_version, 'qemu_storage_daemon')),
    Check('block drivers', _drivers),
    Check('folders', _folders, 'configuration'),
    Check('reservation', _reservation, 'folders'),
    Check('O_DIRECT', _direct_io, 'folders', Grade.WARNING),
    Check('budget', _budget, 'folders'),
    Check('space', _space, 'folders'),
    Check('confinement', _confinement, 'folders'),
    # A warning: without it nothing is evicted, and paused guests are not resumed.
    Check('libvirt', _libvirt, 'configuration', Grade.WARNING),
    Check('libvirt-guests', _libvirt_guests, 'configuration'),
    # A warning: caches of deleted images only stay for longer.
    Check('glance', _glance, 'configuration', Grade.WARNING),
)
"""What ``nova-qcache check`` looks at."""
