# SPDX-License-Identifier: Apache-2.0
"""nova-qcache-recorder: record the cache of one image and serve its guests meanwhile."""

import asyncio
from collections.abc import Sequence
import logging
import sys

from oslo_config import cfg

from nova_qcache import conf as qcache_conf
from nova_qcache import config_files
from nova_qcache import exception
from nova_qcache.bases.generation import Generations
from nova_qcache.cache import plugins
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cmd import background
from nova_qcache.keeper import launch as keeper
from nova_qcache.model import key
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.qemu.img import QemuImg
from nova_qcache.recorder import launch
from nova_qcache.recorder.finish import Limits
from nova_qcache.recorder.service import Recorder
from nova_qcache.recorder.settings import Settings
from nova_qcache.system.paths import Paths

__all__ = ['main']

LOG = logging.getLogger(__name__)

_KEEPER_SECONDS = 5

_CLI_OPTS = [
    cfg.StrOpt('image-id', required=True, positional=True, help='UUID of the image'),
    cfg.StrOpt('base', required=True, help='Path or URI of the base of the image'),
    cfg.StrOpt('base-format', default='raw', help='Format of the base: raw or qcow2'),
    cfg.StrOpt('quota', deprecated_name='quota-mib', help='Quota instead of [qcache] quota'),
    cfg.StrOpt('image-hash', default='', help="Glance's hash of the image's content"),
    cfg.BoolOpt('serve-only', help='Record nothing; serve the guests of a recorder that died'),
    cfg.StrOpt('generation', help='Generation of the cache; by default that of the base'),
    cfg.IntOpt('revision', default=1, min=1, help='Revision of the cache'),
    cfg.BoolOpt('audit', help='Audit the cache of the previous revision, on a copy of it'),
]


def main(argv: Sequence[str] | None = None) -> int:
    """:return: 0, or ``launch.BUSY`` beside another recorder, or 1 after a message on standard
    error"""
    try:
        asyncio.run(_run(background.configured('nova-qcache-recorder', argv, _CLI_OPTS)))
    except exception.RecorderBusy as e:
        LOG.info('%s', e)
        return launch.BUSY
    except (exception.QcacheError, cfg.Error, OSError) as e:
        print(exception.sentence(e), file=sys.stderr)
        return 1
    return 0


async def _run(conf: cfg.ConfigOpts) -> None:
    group = conf.qcache
    paths = Paths.from_conf(conf)
    paths.prepare()
    image_id = key.canonical_image_id(conf.image_id)
    source = plugins.source(
        conf.base, conf.base_format, reconnect_seconds=group.base_reconnect_seconds
    )
    generation = _generation(conf.generation) if conf.generation is not None else None
    if generation is None or not conf.serve_only:
        source.identity()  # what is not there gets no counter either
        # The boot has read it as well. Here it is read again, on purpose: a base that was written
        # meanwhile is not recorded under the generation of before.
        current = Generations(paths, group.lock_timeout_seconds).current(source)
        if generation not in (None, current):  # whoever wants it would wait for it in vain
            reason = f'the base was written meanwhile and now has generation {current}'
            raise exception.RecorderFailed(image_id=image_id, reason=reason)
        generation = current
    settings = Settings(
        quota=qcache_conf.quota_bytes(conf, conf.quota),
        cluster_size=qcache_conf.cluster_bytes(conf),
        extended_l2=group.extended_l2,
        limits=Limits(
            idle=group.recording_idle_seconds,
            settle=group.recording_settle_seconds,
            longest=group.recording_max_seconds,
            grace=group.guest_grace_seconds,
            lease=group.plan_lease_seconds,
        ),
        storage_daemon=group.qemu_storage_daemon,
        qemu_io=group.qemu_io,
        image_hash=conf.image_hash,
        audit=bool(conf.audit),
        serve_only=bool(conf.serve_only),
        rerecord_miss_percent=group.rerecord_miss_percent,
        arguments=(*config_files.arguments(conf), *_own_arguments(conf)),
    )
    catalog = Catalog(paths, group.lock_timeout_seconds)
    cache_key = CacheKey(image_id, generation, conf.revision)
    recorder = Recorder(cache_key, source, catalog, QemuImg(group.qemu_img), settings)
    keeping = asyncio.create_task(_keep_the_keeper(conf, paths)) if group.start_keeper else None
    try:
        await recorder.run()
    finally:
        if keeping is not None:
            keeping.cancel()
    paths.log(cache_key).unlink(missing_ok=True)


async def _keep_the_keeper(conf: cfg.ConfigOpts, paths: Paths) -> None:
    """Start the keeper again if it has ended: it restarts recorders, and they restart it."""
    while True:
        await asyncio.sleep(_KEEPER_SECONDS)
        await asyncio.to_thread(keeper.ensure, paths, config_files.arguments(conf))


def _own_arguments(conf: cfg.ConfigOpts) -> list[str]:
    arguments = [f'--base={conf.base}', f'--base-format={conf.base_format}']
    if conf.quota is not None:
        arguments.append(f'--quota={conf.quota}')
    if conf.audit:
        arguments.append('--audit')
    return [*arguments, conf.image_id]


def _generation(text: str) -> Generation:
    epoch, _, n = text.partition('.')
    try:
        return Generation(epoch, int(n))
    except ValueError as e:
        raise exception.InvalidOption(
            option='--generation',
            value=text,
            reason=str(e),
            remedy='Give a generation as `nova-qcache list --long` prints it',
        ) from e


if __name__ == '__main__':
    sys.exit(main())
