# SPDX-License-Identifier: Apache-2.0
"""nova-qcache-recorder: record the cache of one image and serve its guests meanwhile."""

import asyncio
from collections.abc import Sequence
import logging
import os
import sys

from oslo_config import cfg
from oslo_log import log

from nova_qcache import conf as qcache_conf
from nova_qcache import exception
from nova_qcache import key
from nova_qcache import plugins
from nova_qcache.generation import Generations
from nova_qcache.key import CacheKey
from nova_qcache.paths import Paths
from nova_qcache.qemu_img import QemuImg
from nova_qcache.recorder import launch
from nova_qcache.recorder.finish import Limits
from nova_qcache.recorder.service import Recorder
from nova_qcache.recorder.settings import Settings
from nova_qcache.store import Store

__all__ = ['main']

LOG = logging.getLogger(__name__)

_CLI_OPTS = [
    cfg.StrOpt('image-id', required=True, positional=True, help='UUID of the image'),
    cfg.StrOpt('base', required=True, help='Path or URI of its base'),
    cfg.StrOpt('base-format', default='raw', help='Format of the base: raw or qcow2'),
    cfg.IntOpt('quota-mib', help='Quota in MiB in place of the option quota'),
]


def main(argv: Sequence[str] | None = None) -> int:
    """:return: 0, or ``launch.BUSY`` beside another recorder, or 1 after a message on standard
    error"""
    os.umask(0o077)  # a recording is nobody else's business until it is sealed
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    qcache_conf.register_opts(conf)
    conf.register_cli_opts(_CLI_OPTS)
    try:
        conf(sys.argv[1:] if argv is None else argv, project='nova', prog='nova-qcache-recorder')
        log.setup(conf, 'nova-qcache-recorder')
        asyncio.run(_run(conf))
    except exception.RecorderBusy as e:
        LOG.info('%s', e)
        return launch.BUSY
    except (exception.QcacheError, cfg.Error, OSError) as e:
        print(f'{e}', file=sys.stderr)
        return 1
    return 0


async def _run(conf: cfg.ConfigOpts) -> None:
    qcache_conf.validate(conf)
    group = conf.qcache
    paths = Paths.from_conf(conf)
    paths.prepare()
    image_id = key.canonical_image_id(conf.image_id)
    source = plugins.source(
        conf.base, conf.base_format, reconnect_seconds=group.base_reconnect_seconds
    )
    source.identity()  # what is not there gets no counter either
    generation = Generations(paths, group.lock_timeout_seconds).current(source)
    settings = Settings(
        quota=qcache_conf.quota_bytes(conf, conf.quota_mib),
        cluster_size=group.cluster_size,
        extended_l2=group.extended_l2,
        limits=Limits(
            idle=group.recording_idle_seconds,
            settle=group.recording_settle_seconds,
            longest=group.recording_max_seconds,
            grace=group.guest_grace_seconds,
            lease=group.plan_lease_seconds,
        ),
        storage_daemon=group.qemu_storage_daemon,
    )
    store = Store(paths, group.lock_timeout_seconds)
    recorder = Recorder(
        CacheKey(image_id, generation), source, store, QemuImg(group.qemu_img), settings
    )
    await recorder.run()
    paths.log(CacheKey(image_id, generation)).unlink(missing_ok=True)


if __name__ == '__main__':
    sys.exit(main())
