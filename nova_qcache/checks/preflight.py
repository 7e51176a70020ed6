# SPDX-License-Identifier: Apache-2.0
"""Preflight checks of a host: tools, folders and their file system, each finding with its
remedy."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import difflib
import enum
import functools
import pathlib
import tempfile

from oslo_config import cfg

from nova_qcache import conf as qcache_conf
from nova_qcache import config_files
from nova_qcache import exception
from nova_qcache import options
from nova_qcache.cache import pool
from nova_qcache.cache.directory import CacheDirectory
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.qemu import block_graph
from nova_qcache.qemu import img
from nova_qcache.system import confinement
from nova_qcache.system import files
from nova_qcache.system import libvirt_guests
from nova_qcache.system.libvirt_domains import LibvirtDomains
from nova_qcache.system.paths import Paths

__all__ = ['Finding', 'Grade', 'run_checks']

_PROBE_BYTES = 8 * 1024 * 1024


class Grade(enum.Enum):
    OK = 'ok'
    WARNING = 'warning'
    """Some of it does not work, or not for all guests; worth an operator's attention."""
    ERROR = 'error'
    """Boots are plain until this is mended."""


@dataclasses.dataclass(frozen=True)
class Finding:
    subject: str
    grade: Grade
    found: str
    remedy: str = ''


def run_checks(conf: cfg.ConfigOpts) -> Iterator[Finding]:
    """Look at everything, one finding each; nothing is changed, and no folder made."""
    configuration = _finding('configuration', lambda: _configuration(conf))
    yield configuration
    if configuration.grade is Grade.OK:
        yield _options(conf)
    for option in ('qemu_img', 'qemu_io', 'qemu_storage_daemon'):
        yield _finding(option, functools.partial(_version, getattr(conf.qcache, option), option))
    yield _finding('block drivers', lambda: _drivers(img.QemuImg(conf.qcache.qemu_img)))
    if configuration.grade is not Grade.OK:
        return  # folders that make no sense must not be made
    paths = Paths.from_conf(conf)
    folders = _finding('folders', lambda: _folders(paths))
    yield folders
    if folders.grade is Grade.OK:
        folder = files.place(paths.cache_path)
        yield _finding('reservation', lambda: _reservation(folder))
        yield _finding('O_DIRECT', lambda: _direct_io(folder), Grade.WARNING)
        yield _finding('budget', lambda: _budget(conf, paths.cache_path))
        yield _finding('space', lambda: _space(folder, qcache_conf.quota_bytes(conf)))
        yield _confinement(paths.guests)
    if conf.qcache.libvirt_uri:
        # A warning: without it nothing is evicted, and paused guests are not resumed.
        yield _finding('libvirt', lambda: _libvirt(conf.qcache.libvirt_uri), Grade.WARNING)
        yield from _libvirt_guests()
    yield _glance(conf)


def _finding(subject: str, look: Callable[[], str], grade: Grade = Grade.ERROR) -> Finding:
    """Look; an error is a finding, and its own words name the remedy."""
    try:
        return Finding(subject, Grade.OK, look())
    except exception.OverBudget as e:  # what is READY is played all the same
        return Finding(subject, Grade.WARNING, *e.problem_and_remedy())
    except exception.QcacheError as e:
        return Finding(subject, grade, *e.problem_and_remedy())
    except OSError as e:
        return Finding(
            subject, grade, exception.sentence(e), 'Check whether its storage is sound.'
        )


def _configuration(conf: cfg.ConfigOpts) -> str:
    qcache_conf.validate(conf)
    return f'read from {", ".join(config_files.names(conf)) or "no file"}'


def _options(conf: cfg.ConfigOpts) -> Finding:
    """List the options in force, and those in the files that are unknown."""
    known = {opt.dest: opt for opt in options.OPTS}
    changed = [
        f'{name} = {conf.qcache[name]}'
        for name, opt in known.items()
        if conf.qcache[name] != opt.default
    ]
    others = (
        'all other options have their defaults' if changed else 'all options have their defaults'
    )
    in_force = ', '.join([*changed, others])
    unknown = {
        name: said for name, said in config_files.written(conf).items() if name not in known
    }
    if not unknown:
        return Finding('options', Grade.OK, in_force)
    named = ', '.join(f'{name} ({said.file})' for name, said in unknown.items())
    meant = ' or '.join(
        match for name in unknown for match in difflib.get_close_matches(name, known, 1)
    )
    return Finding(
        'options',
        Grade.WARNING,
        f'[qcache] has no option {named}; {in_force}',
        f'Did you mean {meant}?' if meant else 'Remove it, or correct its name.',
    )


def _version(program: str, option: str) -> str:
    return f'{program} {".".join(map(str, img.require_version(program, option)))}'


def _drivers(tool: img.QemuImg) -> str:
    there = tool.drivers()
    for driver, purpose in block_graph.DRIVERS.items():
        if driver not in there:
            raise exception.DriverMissing(tool=tool.program, driver=driver, purpose=purpose)
    return ', '.join(block_graph.DRIVERS)


def _folders(paths: Paths) -> str:
    missing = paths.missing()
    paths.prepare(make=False)
    longest = CacheKey('0' * 8 + '-0000' * 3 + '-' + '0' * 12, Generation('0' * 12, 10**6))
    paths.require_short_sockets(longest)
    if paths.qemu_group:
        with _probe(files.place(paths.cache_path)) as probe:
            paths.share(probe)
    made = f'; nova-compute makes {" and ".join(missing)} when it starts' if missing else ''
    return f'{paths.cache_path}, {paths.run_path}{made}'


@contextlib.contextmanager
def _probe(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file of that file system without a name. Where that has no O_TMPFILE, it has one for a
    moment, and the folder's times change."""
    with tempfile.TemporaryFile(dir=folder) as file:
        yield pathlib.Path(f'/proc/self/fd/{file.fileno()}')


def _reservation(folder: pathlib.Path) -> str:
    with _probe(folder) as probe:
        files.reserve(probe, _PROBE_BYTES, folder)
    return 'the file system reserves space'


def _direct_io(folder: pathlib.Path) -> str:
    with _probe(folder) as probe:
        if not files.supports_direct_io(probe):
            raise exception.FolderUnfit(
                path=str(folder),
                reason='its file system has no O_DIRECT, which guests with cache=none need',
                remedy='Put [qcache] cache_path on another file system, or set disk_cachemodes',
            )
    return 'supported'


def _space(folder: pathlib.Path, quota: int) -> str:
    free = files.free_bytes(folder)
    if free < quota:
        raise exception.InvalidQuota(
            quota=quota,
            reason=f'is more than the {free} bytes that are free',
            remedy='to less, or free space',
        )
    return f'{free // qcache_conf.MIB} MiB free, room for {free // quota} recordings'


def _budget(conf: cfg.ConfigOpts, folder: pathlib.Path) -> str:
    limits, mib = pool.limits(conf, folder), qcache_conf.MIB
    taken = CacheDirectory(folder).allocated()
    free = files.free_bytes(files.place(folder))
    found = (
        f'caches take {taken // mib} MiB of {limits.budget // mib}, and {free // mib} MiB are '
        f'free, of which {limits.min_free // mib} must stay free'
    )
    excess = max(taken - limits.budget, limits.min_free - free)
    if excess > 0:
        raise exception.OverBudget(
            path=str(folder),
            excess=excess,
            reason=found,
            remedy='The next recording or run of the image cache manager evicts unused ones; or '
            'raise [qcache] cache_budget, or lower min_free',
        )
    return found


def _libvirt(uri: str) -> str:
    version = '.'.join(map(str, LibvirtDomains(uri).version()))
    return f'{uri} is version {version}, and its guests may be resumed'


def _libvirt_guests() -> Iterator[Finding]:
    # A warning: the keeper makes their images plain, unless libvirtd stops too soon after that.
    saves = libvirt_guests.saves()
    if saves:
        yield Finding(
            'libvirt-guests',
            Grade.WARNING,
            'it saves guests when the host shuts down, and a guest that is saved with a cache '
            'just before libvirtd stops may not start until nova-compute has started',
            f'Set ON_SHUTDOWN=shutdown and ON_BOOT=ignore in {libvirt_guests.setting()}.',
        )
    elif saves is not None:
        yield Finding('libvirt-guests', Grade.OK, 'it shuts guests down when the host shuts down')


def _glance(conf: cfg.ConfigOpts) -> Finding:
    # A warning: caches of deleted images only stay for longer.
    section = conf.qcache.glance_auth_section
    if not section:
        return Finding(
            'glance',
            Grade.WARNING,
            'Glance is not asked: caches of deleted images expire by age only',
            'Set [qcache] glance_auth_section to a section with the credentials of an admin.',
        )
    from nova_qcache.system.glance import Glance  # as slow to import as all else

    return _finding('glance', lambda: Glance(conf, section).check(), Grade.WARNING)


def _confinement(guests: pathlib.Path) -> Finding:
    # A warning: sealed caches are played all the same, and guests without libvirt record.
    problem = confinement.problem(guests)
    if problem is None:
        return Finding('confinement', Grade.OK, f'no known rule denies guests {guests}')
    cause, _, remedy = problem.partition('; ')
    return Finding(
        'confinement',
        Grade.WARNING,
        f'boots cannot record on this host, and play existing caches only: {cause}',
        f'{remedy[:1].upper()}{remedy[1:]}.',
    )
