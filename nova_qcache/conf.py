# SPDX-License-Identifier: Apache-2.0
"""The ``[qcache]`` options.

Nothing here is global: callers pass the ConfigOpts on which :func:`register_opts` was called.
oslo.config checks types; :func:`validate` checks sense, with messages that say what to do.
"""

from collections.abc import Sequence
import copy
import fractions
import os
import pathlib
import re
from typing import NoReturn

from oslo_config import cfg

from nova_qcache import config_files
from nova_qcache import exception
from nova_qcache import options

__all__ = [
    'MIB',
    'amount',
    'budget_bytes',
    'cluster_bytes',
    'config_arguments',
    'instances_path',
    'list_opts',
    'min_free_bytes',
    'quota_bytes',
    'register_nova_opts',
    'register_opts',
    'scrub_bytes',
    'validate',
]

MIB = 1024 * 1024
_LARGEST_MIB = 2**63 // MIB - 1

_PERCENT = re.compile(r'([0-9]{1,9}(?:\.[0-9]{1,9})?)%')
_PLAIN = re.compile(r'[0-9]{1,19}')
_AMOUNT = re.compile(r'([0-9]{1,19}(?:\.[0-9]{1,9})?)(k|[KMGTP])(|B|iB)')

_NOVA_OPTS = [
    cfg.StrOpt('state_path', default='/var/lib/nova'),
    cfg.StrOpt('instances_path', default='$state_path/instances'),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register copies of the options: oslo.config keeps overrides in what it is given."""
    conf.register_group(copy.deepcopy(options.GROUP))
    conf.register_opts(copy.deepcopy(options.OPTS), group=options.GROUP.name)


def register_nova_opts(conf: cfg.ConfigOpts) -> None:
    """Register what a program of ours reads of Nova's own options, as Nova has them."""
    conf.register_opts(copy.deepcopy(_NOVA_OPTS))


def instances_path(conf: cfg.ConfigOpts) -> pathlib.Path:
    """Return the folder of Nova's instances.

    :param conf: Nova's, or one on which :func:`register_nova_opts` was called
    """
    return pathlib.Path(conf.qcache.instances_path or conf.instances_path)


def list_opts() -> list[tuple[cfg.OptGroup, Sequence[cfg.Opt]]]:
    """Entry point for oslo.config's sample generator; returns copies, as it asks for."""
    return [(copy.deepcopy(options.GROUP), copy.deepcopy(options.OPTS))]


def config_arguments(conf: cfg.ConfigOpts) -> list[str]:
    """Return the arguments with which another program of ours reads the same configuration."""
    named = [('--config-file', name) for name in conf.config_file or []]
    named += [('--config-dir', name) for name in conf.config_dir or []]
    return [f'{option}={pathlib.Path(name).absolute()}' for option, name in named]


_LEAST = {
    'recording_idle_seconds': 1,
    'recording_settle_seconds': 1,
    'recording_max_seconds': 1,
    'guest_grace_seconds': 0,
    'plan_lease_seconds': 1,
    'base_reconnect_seconds': 0,
    'start_timeout_seconds': 1,
    'lock_timeout_seconds': 1,
    'revalidate_hours': 0,
    'revalidate_mib_per_second': 1,
    'record_from_boot': 1,
    'max_recorders': 1,
    'audit_every': 0,
    'rerecord_miss_percent': 0,
}


def validate(conf: cfg.ConfigOpts) -> None:
    """Check all options that need nothing but themselves.

    :raises InvalidOption: with the option, its value and the remedy
    :raises InvalidQuota: likewise for the quota
    """
    group = conf.qcache
    for opt in options.OPTS:
        _require_type(conf, opt)
    for name in ('cache_path', 'run_path', 'instances_path'):
        path = getattr(group, name)
        if name == 'instances_path' and not path:
            continue  # Nova's own
        if not path.startswith('/') or '\0' in path:
            _refuse(name, repr(path), 'it is not an absolute path', 'Give a path from the root')
        if any('\ud800' <= letter <= '\udfff' for letter in path):  # qemu's JSON has no other
            _refuse(name, repr(path), 'its name is not UTF-8', 'Give the folder another name')
    if os.path.normpath(group.cache_path) == os.path.normpath(group.run_path):
        _refuse(
            'run_path',
            group.run_path,
            'it is the same folder as cache_path',
            'Give a folder of its own, in /run',
        )
    if group.cache_path.rstrip('/').endswith('/_base'):
        _refuse(
            'cache_path',
            group.cache_path,
            "Nova's image cache manager claims files there",
            'Give a folder of its own',
        )
    metrics = group.metrics_file
    if metrics and not (metrics.startswith('/') and metrics.endswith('.prom')):
        _refuse(
            'metrics_file',
            repr(metrics),
            'it is not an absolute path that ends in .prom',
            'Give one in the folder that node_exporter reads, or nothing',
        )
    for name, least in _LEAST.items():
        if getattr(group, name) < least:
            _refuse(name, getattr(group, name), 'it is too small', f'Give a number from {least}')
    if group.recording_settle_seconds > group.recording_idle_seconds:
        _refuse(
            'recording_settle_seconds',
            group.recording_settle_seconds,
            'it is longer than recording_idle_seconds',
            f'Give a number up to {group.recording_idle_seconds}',
        )
    size = cluster_bytes(conf)
    if group.extended_l2 and size < 16384:
        _refuse(
            'extended_l2',
            True,
            f'clusters of {size} bytes are too small',
            'Set cluster_size to 16KiB or more',
        )
    if group.rerecord_miss_percent > 100:
        _refuse(
            'rerecord_miss_percent',
            group.rerecord_miss_percent,
            'no boot misses more than 100 percent',
            'Give a number from 0 to 100',
        )
    quota_bytes(conf)
    scrub_bytes(conf)
    # What a percentage comes to takes the file system: see pool.limits().
    _share('min_free', group.min_free, _LARGEST_MIB * MIB, 0, 99)
    if _share('cache_budget', group.cache_budget, _LARGEST_MIB * MIB, 1, 100) is not None:
        budget_bytes(conf, _LARGEST_MIB * MIB)


def quota_bytes(conf: cfg.ConfigOpts, given: str | None = None) -> int:
    """Return the quota in bytes.

    :param given: in place of the option, in the same words

    :raises InvalidOption: if it is no amount
    :raises InvalidQuota: if it is not positive, or less than one cluster
    """
    quota = _amount('quota', conf.qcache.quota if given is None else given, MIB)
    if quota <= 0:
        raise exception.InvalidQuota(
            quota=quota, reason='leaves no room for anything', remedy='to 1 or more'
        )
    if quota // MIB > _LARGEST_MIB:
        raise exception.InvalidQuota(
            quota=quota, reason='is more than a file can have', remedy='to a smaller number'
        )
    cluster = cluster_bytes(conf)
    if quota < cluster:
        raise exception.InvalidQuota(
            quota=quota,
            reason=f'is less than one cluster of {cluster} bytes',
            remedy='to more, or [qcache] cluster_size to less',
        )
    return quota


def cluster_bytes(conf: cfg.ConfigOpts) -> int:
    """Return the size of the clusters of new caches.

    :raises InvalidOption: if no qcow2 image has such clusters
    """
    value = conf.qcache.cluster_size
    size = _amount('cluster_size', value, 1)
    if size < 4096 or size > 2 * MIB or size & (size - 1):
        _refuse(
            'cluster_size',
            value,
            'it is not a cluster size',
            'Give a power of two from 4KiB to 2MiB',
        )
    return size


def scrub_bytes(conf: cfg.ConfigOpts) -> int:
    """Return how much of the caches each periodic run reads.

    :raises InvalidOption: if it is no amount
    """
    return _amount('scrub_mib', conf.qcache.scrub_mib, MIB)


def budget_bytes(conf: cfg.ConfigOpts, total: int) -> int:
    """Return what all caches may take together.

    :param total: bytes of their file system
    :raises InvalidOption: if it is no amount, or has no room for one quota
    :raises InvalidQuota: if the quota makes no sense
    """
    quota = quota_bytes(conf)
    value = conf.qcache.cache_budget
    budget = _share('cache_budget', value, total, 1, 100)
    if budget < min(quota, total):  # on a file system that is smaller itself, no boot finds room
        what = '' if _PLAIN.fullmatch(value) else f'it is {budget} bytes, and '
        _refuse(
            'cache_budget',
            value,
            f'{what}a quota is {quota} bytes',
            'Give as much or more, or set [qcache] quota (MiB) to less',
        )
    return budget


def min_free_bytes(conf: cfg.ConfigOpts, total: int) -> int:
    """Return what stays free on the file system of the caches.

    :param total: bytes of that file system
    :raises InvalidOption: if it is no amount
    """
    return _share('min_free', conf.qcache.min_free, total, 0, 99)


def _share(option: str, value: str, total: int, least: int, most: int) -> int:
    """Return the bytes of an option that is an amount, or percents of a file system."""
    percents = f'a percentage from {least}% to {most}%'
    if not _PERCENT.fullmatch(value):
        return _amount(option, value, 1, f'{percents}, or ')
    percent = float(value.removesuffix('%'))
    if not least <= percent <= most:
        _refuse(option, value, 'it is out of range', f'Give {percents}, or bytes, such as 40GiB')
    return int(total * percent / 100)


def _amount(option: str, value: str, unit: int, else_: str = '') -> int:
    """Return the bytes of an option.

    :param unit: bytes of what has no unit
    :param else_: what else it may be, for the remedy
    """
    found = amount(value, unit)
    if found is None:
        unit_name = 'bytes' if unit == 1 else 'MiB'
        remedy = f'Give {else_}a number of {unit_name}, or one with a unit, such as 512MiB or 40GB'
        _refuse(option, repr(value), 'it is not an amount', remedy)
    return found


def amount(value: str, unit: int) -> int | None:
    """Return the bytes of an amount in an option, such as 512, 512M, 512MiB or 0.5GB; None if it
    is not an amount.

    :param unit: bytes of what has no unit
    """
    # Without what oslo.utils understands, too: bits, for one, which "10Gb" would be. A letter
    # alone is what it is to qemu: binary.
    if _PLAIN.fullmatch(value):
        return int(value) * unit
    match = _AMOUNT.fullmatch(value)
    if match is None:
        return None
    number, prefix, kind = match.groups()
    power = 'KMGTP'.index(prefix.upper()) + 1
    return int(fractions.Fraction(number) * (1000 if kind == 'B' else 1024) ** power)


def _require_type(conf: cfg.ConfigOpts, opt: cfg.Opt) -> None:
    problem, remedy = '', ''
    kind = 'True or False' if isinstance(opt, cfg.BoolOpt) else 'a whole number'
    try:
        # One without a value is None to oslo.config.
        if conf.qcache[opt.dest] is None:
            problem, remedy = f'it is not {kind}', f'Give {kind}'
    except (cfg.ConfigFileValueError, cfg.ConfigSourceValueError):
        problem, remedy = f'it is not {kind}', f'Give {kind}'
    except cfg.Error as e:
        problem, remedy = str(e), 'Write $$ for a $'
    if problem:
        said = config_files.written(conf).get(opt.dest)
        _refuse(opt.dest, '...' if said is None else repr(said.value), problem, remedy)


def _refuse(option: str, value: object, reason: str, remedy: str) -> NoReturn:
    raise exception.InvalidOption(option=option, value=value, reason=reason, remedy=remedy)
