# SPDX-License-Identifier: Apache-2.0
"""The ``[qcache]`` options.

Nothing here is global: callers pass the ConfigOpts on which :func:`register_opts` was called.
:func:`validate` refuses invalid values, with messages that say what to do.
"""

from collections.abc import Callable, Sequence
import copy
import dataclasses
import fractions
import os
import pathlib
import re
from typing import Any, cast, NoReturn

from oslo_config import cfg
from oslo_config import types

from nova_qcache import config_files
from nova_qcache import exception

__all__ = [
    'GROUP',
    'MIB',
    'OPTS',
    'amount',
    'budget_bytes',
    'cluster_bytes',
    'instances_path',
    'list_opts',
    'min_free_bytes',
    'quota_bytes',
    'register_nova_opts',
    'register_opts',
    'scrub_bytes',
    'validate',
]

GROUP = cfg.OptGroup(
    'qcache',
    title='Boot caches of images',
    help='A cache holds the part of an image that its servers read while they boot.',
)

OPTS: list[cfg.Opt] = [
    # folders, and the group that may open their files
    cfg.StrOpt(
        'cache_path',
        default='/var/lib/nova/qcache',
        help="""
Folder of the caches and their records.

It should be on fast local storage of this host with room for the quotas of the images in use. It
must not be Nova's ``_base`` folder, and no two hosts may share it. It belongs to the user that
nova-compute runs as.

Possible values:

* A path. The folder is made if its parent exists.

Related options:

* ``quota``: the space in it that one image may take.
* ``run_path``: the folder of the sockets, which are not part of the caches.
""",
    ),
    cfg.StrOpt(
        'run_path',
        default='/run/nova-qcache',
        help="""
Folder of the sockets of running recorders.

Guests reach a recorder through a socket in ``run_path/guests``; ``run_path/control`` is for
nova-qcache alone.

Possible values:

* A path of not more than 30 bytes or so: a socket's whole path may have 107.

Related options:

* ``qemu_group``: the group that may open the sockets of guests.
""",
    ),
    cfg.StrOpt(
        'qemu_group',
        default='',
        help="""
Group that may read caches and connect to recorders: the group that qemu runs in.

The user of nova-compute must be a member of it.

Possible values:

* The name of a group, such as ``kvm`` or ``libvirt-qemu``.
* Empty: the group of nova-compute's user, which qemu's user must then be a member of.

Related options:

* ``run_path`` and ``cache_path``, whose files get this group.
""",
    ),
    cfg.StrOpt(
        'instances_path',
        default='',
        help="""
Folder of the instances, in which rescued instances keep an ``unrescue.xml``; these files are read
before a cache is removed.

Possible values:

* Empty: the value of ``[DEFAULT] instances_path``, as Nova reads it.
* A path, where the configuration that ``nova-qcache`` and the keeper read is not all of Nova's.

Related options:

* ``libvirt_uri``
""",
    ),
    # recordings
    cfg.StrOpt(
        'quota',
        default='512MiB',
        help="""
Maximum size of the cache of one image.

The space is reserved when a recording starts, and unused space is given back when it is sealed. A
recording that reaches the quota is sealed as it is: the rest of the image is read from the base. A
Debian 12 server reads about 73 MiB of its image while it boots.

Possible values:

* An amount, such as ``512M``, ``512MiB`` or ``1GB``; without a unit it is MiB. It must fit into
  the free space of ``cache_path`` and have room for the tables of the disk beside what is cached;
  ``nova-qcache check`` tells.

Related options:

* ``cache_path``
* ``cluster_size``
""",
    ),
    cfg.StrOpt(
        'cluster_size',
        default='16KiB',
        help="""
Cluster size of new caches: the unit in which a recording reads from the base and writes
to the cache.

Small clusters make small caches and read little that no guest asked for; large clusters need fewer
requests to the base.

Possible values:

* A power of two from ``4KiB`` to ``2MiB``; without a unit it is bytes. With ``4KiB``, a recording
  that reaches its quota under heavy load may be dropped instead of sealed.

Related options:

* ``extended_l2``: copy by subclusters of large clusters.
""",
    ),
    cfg.BoolOpt(
        'extended_l2',
        default=False,
        help="""
Divide each cluster of new caches into 32 subclusters.

Recordings then copy by subcluster where qemu can (qemu 10 does, qemu 7.2 copies whole clusters).

Possible values:

* True, False

Related options:

* ``cluster_size`` must be 16 KiB or more.
""",
    ),
    cfg.IntOpt(
        'recording_idle_seconds',
        default=60,
        min=1,
        help="""
Time without growth after which a recording is sealed while a guest is connected, in seconds.

Possible values:

* A number from 1.

Related options:

* ``recording_max_seconds``: the latest end of a recording.
* ``recording_settle_seconds``: the same for guests that have left.
""",
    ),
    cfg.IntOpt(
        'recording_settle_seconds',
        default=10,
        min=1,
        help="""
Time without growth that a recording must have had at least once, in seconds, to be sealed when its
last guest leaves before ``recording_idle_seconds`` have passed.

A guest that leaves in the middle of its boot has recorded half a boot. Such a recording is
dropped, and the next boot records again.

Possible values:

* A number from 1 to ``recording_idle_seconds``.

Related options:

* ``recording_idle_seconds``
* ``guest_grace_seconds``
""",
    ),
    cfg.IntOpt(
        'recording_max_seconds',
        default=900,
        min=1,
        help="""
Time after the first guest connected at which a recording is sealed in any case, in seconds.

Possible values:

* A number from 1.

Related options:

* ``recording_idle_seconds``: the usual end of a recording.
""",
    ),
    cfg.IntOpt(
        'guest_grace_seconds',
        default=30,
        min=0,
        help="""
Time that the last guest of a recorder must have been disconnected before it counts as gone, in
seconds.

A hard reboot of a server ends its old guest some seconds before the new one starts.

Possible values:

* A number from 0.

Related options:

* ``plan_lease_seconds``: the same for a guest that has not come yet.
""",
    ),
    # admission: images worth a cache, and the number of recorders
    cfg.IntOpt(
        'record_from_boot',
        default=1,
        min=1,
        help="""
Number of the boot of an image on this host that records its cache: 1 is the first one, 2 the
second one.

Earlier boots use no cache, so an image that is booted only once takes no space.

Possible values:

* A number from 1.

Related options:

* The image property and flavor extra spec ``qcache:policy``: ``always`` records from the first
  boot on, ``never`` not at all.
""",
    ),
    cfg.IntOpt(
        'max_recorders',
        default=8,
        min=1,
        help="""
Maximum number of caches that are recorded on this host at the same time.

Each recording reserves its quota and takes about 70 MiB of memory. Boots of further images use no
cache until one of the recordings is sealed.

Possible values:

* A number from 1.

Related options:

* ``quota``
* ``cache_budget``
""",
    ),
    # boots: time-outs, leases, and the keeper
    cfg.IntOpt(
        'plan_lease_seconds',
        default=300,
        min=1,
        help="""
Lifetime of the lease taken when a boot is planned, in seconds.

While the lease lasts, the recorder waits for its first guest, and the cache is not removed.

Possible values:

* A number from 1. It should be longer than the longest time between Nova's making of a domain's
  XML and the start of that domain.

Related options:

* ``guest_grace_seconds``
""",
    ),
    cfg.IntOpt(
        'base_reconnect_seconds',
        default=300,
        min=0,
        help="""
Time that reads wait for an unreachable NBD base before they fail, in seconds.

Possible values:

* A number from 0. 0 fails reads at once, and a guest sees an I/O error.

Related options:

* None. A base that is a file waits as its mount does: use hard mounts.
""",
    ),
    cfg.IntOpt(
        'start_timeout_seconds',
        default=10,
        min=1,
        help="""
Time that a boot waits for a new recorder before it goes on without a cache, in seconds.

Possible values:

* A number from 1.

Related options:

* ``lock_timeout_seconds``
""",
    ),
    cfg.IntOpt(
        'lock_timeout_seconds',
        default=10,
        min=1,
        help="""
Time to wait for a lock that another process of nova-qcache holds, in seconds.

Possible values:

* A number from 1. Most locks are held for milliseconds; some while something is written to the
  disk, or libvirt is asked. A boot that does not get a lock in time uses no cache.

Related options:

* ``start_timeout_seconds``
""",
    ),
    cfg.BoolOpt(
        'start_keeper',
        default=True,
        help="""
Start the keeper, ``nova-qcache-keeper``, whenever it is needed.

The keeper does what must not wait for nova-compute. It restarts recorders and daemons that died
under running guests, resumes guests that libvirt paused meanwhile, removes chains from the saved
state of guests that were saved by others than Nova, and compares caches with bases that look
changed. It ends by itself when there is nothing to do.

Possible values:

* True: recorders and nova-compute start it. One runs on a host at a time.
* False: a service manager runs it. Without one, a guest that reads through a recorder stays paused
  after its recorder was killed, until somebody resumes it, and one that was saved with
  ``virsh managedsave`` does not start without its cache.

Related options:

* ``libvirt_uri``: where the keeper finds guests that are paused or saved.
""",
    ),
    # the pool: its budget, eviction, revalidation and scrubbing
    cfg.StrOpt(
        'cache_budget',
        default='100%',
        help="""
Maximum size of all caches of this host together.

A recording counts with its whole quota. If there is no room for another recording, the least
valuable unused caches are evicted; if that does not make enough room, the boot uses no cache.

Possible values:

* A percentage of the file system of ``cache_path``, such as ``20%``, from 1 to 100.
* An amount, such as ``40GiB`` or ``500MB``; without a unit it is bytes. It must have room for one
  ``quota``.

Related options:

* ``min_free``
* ``eviction_policy``
* ``quota``
""",
    ),
    cfg.StrOpt(
        'min_free',
        default='1GiB',
        help="""
Space that nova-qcache leaves free on the file system of ``cache_path``, whatever else fills it.

No recording starts that would leave less, and unused caches are evicted while there is less.

Possible values:

* A percentage of the file system, such as ``5%``, from 0 to 99.
* An amount, such as ``1GiB``; without a unit it is bytes.

Related options:

* ``cache_budget``
""",
    ),
    cfg.StrOpt(
        'eviction_policy',
        default='value',
        help="""
Policy that decides which caches are evicted first when room is needed. STALE caches are always
evicted first; caches in use or pinned never are.

Possible values:

* ``value``: the caches that were unused for longest, weighed by how much traffic of the base they
  have saved for each byte that they take.
* ``lru``: the caches that were unused for longest.
* The name of a plugin in the namespace ``nova_qcache.eviction_policies``.

Related options:

* ``cache_budget``
""",
    ),
    cfg.IntOpt(
        'revalidate_hours',
        default=24,
        min=0,
        help="""
Minimum time between two revalidations of a cache, in hours, while only the times of its base
change.

Nova sets the times of a base at every boot, on each host that shares it, so a boot still plays the
cache. If a boot finds other times than before, and the cache was neither sealed nor revalidated
within these hours, the keeper compares all that is cached with the base, in the background. That
finds a base that was changed in place without an announcement. The hours start again when the host
restarts.

Possible values:

* A number from 0. 0 disables these revalidations; ``nova-qcache verify`` still compares.

Related options:

* ``revalidate_mib_per_second``: the rate at which the base is read for it.
* ``start_keeper``: the keeper does the comparison.
""",
    ),
    cfg.IntOpt(
        'revalidate_mib_per_second',
        default=8,
        min=1,
        help="""
Maximum rate at which a base is read when a cache is revalidated because only the times of the base
changed, in MiB per second.

Revalidations that boots wait for (the base is another file, or was written) and those of
``nova-qcache verify`` are not limited.

Possible values:

* A number from 1.

Related options:

* ``revalidate_hours``
""",
    ),
    cfg.StrOpt(
        'scrub_mib',
        default='256MiB',
        help="""
Amount of sealed caches that each run of Nova's image cache manager scrubs: reads and compares with
their digests.

One cache after the other is read; a damaged one becomes STALE, and no boot uses it again.

Possible values:

* An amount, such as ``256MiB``; without a unit it is MiB. 0 reads nothing.

Related options:

* ``[image_cache] manager_interval``: how often that is.
""",
    ),
    # audits and metrics
    cfg.IntOpt(
        'audit_every',
        default=50,
        min=0,
        help="""
Number of boots that play a cache for each boot that is audited. An audited boot reads a copy of
the cache through a recorder, which measures what such a boot still reads from the base.

No guest waits for an audit: the copy is made in the background, and the next boot is audited.

Possible values:

* A number from 1.
* 0: nothing is audited, and no cache is recorded again.

Related options:

* ``rerecord_miss_percent``: the miss ratio above which a cache is recorded again.
* ``max_recorders``: an audit counts as a recorder.
""",
    ),
    cfg.IntOpt(
        'rerecord_miss_percent',
        default=10,
        min=0,
        max=100,
        help="""
Miss ratio above which the copy of an audit becomes the next revision of the cache: bytes that the
audited boot read from the base, in percent of all bytes that it read from its image.

Possible values:

* A number from 0 to 100. 100 keeps every cache as it is.

Related options:

* ``audit_every``
""",
    ),
    cfg.StrOpt(
        'metrics_file',
        default='',
        help="""
File for metrics in the text format of Prometheus, written whenever Nova's image cache manager
runs.

Possible values:

* An absolute path that ends in ``.prom``, in the folder of node_exporter's textfile collector; the
  user of nova-compute must be able to write to that folder.
* Empty: no file.

Related options:

* ``[image_cache] manager_interval``: how often that is.
""",
    ),
    # programs and services that are not ours
    cfg.StrOpt(
        'libvirt_uri',
        default='qemu:///system',
        help="""
URI of the libvirt whose domains use the caches; asked before a cache is removed, and for guests
that wait for a recorder.

The command ``nova-qcache`` and the keeper use it: nova-compute has its own connection.

Possible values:

* A URI that the user of nova-compute may open, for writing too: the keeper resumes guests,
  and removes chains from their saved state.
* Empty: this host has no guests of libvirt.

Related options:

* ``instances_path``
""",
    ),
    cfg.StrOpt(
        'qemu_img',
        default='qemu-img',
        help="""
Path of the program qemu-img.

Possible values:

* A name, looked up in PATH, or a path.

Related options:

* ``qemu_io`` and ``qemu_storage_daemon``, which should be of the same version.
""",
    ),
    cfg.StrOpt(
        'qemu_io',
        default='qemu-io',
        help="""
Path of the program qemu-io, which comes with qemu-img and compares caches with their bases.

Possible values:

* A name, looked up in PATH, or a path.

Related options:

* ``qemu_img``
""",
    ),
    cfg.StrOpt(
        'qemu_storage_daemon',
        default='qemu-storage-daemon',
        help="""
Path of the program qemu-storage-daemon, version 7.0 or newer, which records.

Possible values:

* A name, looked up in PATH, or a path.

Related options:

* ``qemu_img``
""",
    ),
    cfg.StrOpt(
        'glance_auth_section',
        default='',
        help="""
Section of the configuration with the credentials for asking Glance which images are deleted, so
that their caches are removed.

Possible values:

* The name of a section with the options of keystoneauth (``auth_type``, ``auth_url`` and so on),
  whose user has the role admin. One that is there already, such as ``service_user``, will do if
  its user has: nobody else sees all images.
* Empty: Glance is not asked, and caches of deleted images expire like all others.

Related options:

* ``[image_cache] manager_interval``: how often Glance is asked.
* ``[glance] region_name``, ``valid_interfaces`` and ``endpoint_override``: where it is.
""",
    ),
]

MIB = 1024 * 1024
_LARGEST = 2**63 - 1
"""Bytes of the largest file, and of more than any file system."""

_PERCENT = re.compile(r'([0-9]{1,9}(?:\.[0-9]{1,9})?)%')
_PLAIN = re.compile(r'[0-9]{1,19}')
_AMOUNT = re.compile(r'([0-9]{1,19}(?:\.[0-9]{1,9})?)(k|[KMGTP])(|B|iB)')

_NOVA_OPTS = [
    cfg.StrOpt('state_path', default='/var/lib/nova'),
    cfg.StrOpt('instances_path', default='$state_path/instances'),
]


@dataclasses.dataclass(frozen=True)
class _Lenient:
    """A type that leaves a value as text if it does not fit. nova-compute reads all options when
    it starts, to log them, and would end at such a value; :func:`validate` reports it instead.
    Only an option that ``$name`` names in vain ends it still: oslo.config looks for that first."""

    strict: Callable[[Any], Any]

    def __call__(self, value: Any) -> Any:
        fitting = _fitting(self.strict, value)
        return str(value) if fitting is None else fitting


def _fitting(strict: Callable[[Any], Any], value: Any) -> Any:
    """Return a value as its type has it; None if it does not fit."""
    try:
        return strict(value)
    except ValueError:
        return None


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register copies of the options: oslo.config keeps overrides in what it is given."""
    opts = copy.deepcopy(OPTS)
    for opt in opts:
        opt.type = cast(types.ConfigType, _Lenient(opt.type))
    conf.register_group(copy.deepcopy(GROUP))
    conf.register_opts(opts, group=GROUP.name)


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
    return [(copy.deepcopy(GROUP), copy.deepcopy(OPTS))]


def validate(conf: cfg.ConfigOpts) -> None:
    """Check all options that need nothing but themselves.

    :raises InvalidOption: with the option, its value and the remedy
    :raises InvalidQuota: likewise for the quota
    """
    group = conf.qcache
    for opt in OPTS:
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
    quota_bytes(conf)
    scrub_bytes(conf)
    # What a percentage comes to takes the file system: see pool.limits().
    min_free_bytes(conf, _LARGEST)
    budget_bytes(conf, _LARGEST)


def quota_bytes(conf: cfg.ConfigOpts, given: str | None = None) -> int:
    """Return the quota in bytes.

    :param given: in place of the option, in the same words

    :raises InvalidOption: if it is no amount
    :raises InvalidQuota: if it is not positive, or less than one cluster
    """
    quota = _amount('quota', conf.qcache.quota if given is None else given, MIB)
    cluster = cluster_bytes(conf)
    if quota <= 0:
        reason, remedy = 'leaves no room for anything', 'to 1 or more'
    elif quota > _LARGEST:
        reason, remedy = 'is more than a file can have', 'to a smaller number'
    elif quota < cluster:
        reason = f'is less than one cluster of {cluster} bytes'
        remedy = 'to more, or [qcache] cluster_size to less'
    else:
        return quota
    raise exception.InvalidQuota(quota=quota, reason=reason, remedy=remedy)


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
    try:
        value = conf.qcache[opt.dest]
    except (
        cfg.Error,
        RecursionError,
    ) as e:  # of the text: an unknown option behind a $, or itself
        said = config_files.written(conf).get(opt.dest)
        value = '...' if said is None else repr(said.value)
        _refuse(opt.dest, value, str(e), 'Write $$ for a $')
    if _fitting(opt.type, value) is None:
        kind = 'True or False'
        if isinstance(opt.type, types.Integer):
            most = '' if opt.type.max is None else f' to {opt.type.max}'
            kind = f'a whole number from {opt.type.min}{most}'
        _refuse(opt.dest, repr(value), f'it is not {kind}', f'Give {kind}')


def _refuse(option: str, value: object, reason: str, remedy: str) -> NoReturn:
    raise exception.InvalidOption(option=option, value=value, reason=reason, remedy=remedy)
