# SPDX-License-Identifier: Apache-2.0
"""nova-qcache-keeper: restart killed recorders, resume their guests, revalidate caches."""

from collections.abc import Sequence
import signal
import sys
import threading

from oslo_config import cfg

from nova_qcache import conf as qcache_conf
from nova_qcache import config_files
from nova_qcache import exception
from nova_qcache.bases.generation import Generations
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.leases import Leases
from nova_qcache.cache.usage import Usage
from nova_qcache.cache.verify import Verifier
from nova_qcache.cmd import background
from nova_qcache.keeper.guests import Guests
from nova_qcache.keeper.lifecycle import Lifecycle
from nova_qcache.keeper.respawner import Respawner
from nova_qcache.keeper.revalidation import Requests
from nova_qcache.keeper.revalidation import Revalidator
from nova_qcache.keeper.saved import SavedGuests
from nova_qcache.keeper.service import Keeper
from nova_qcache.qemu.img import QemuImg
from nova_qcache.qemu.io import QemuIo
from nova_qcache.recorder import launch
from nova_qcache.system.libvirt_domains import LibvirtDomains
from nova_qcache.system.paths import Paths

__all__ = ['main']


def main(argv: Sequence[str] | None = None) -> int:
    """:return: 0, or ``launch.BUSY`` beside another keeper, or 1 after a message on standard
    error"""
    try:
        keeper = _keeper(background.configured('nova-qcache-keeper', argv))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: keeper.stop())
        keeper.run()
    except exception.LockTimeout:
        return launch.BUSY
    except (exception.QcacheError, cfg.Error, OSError) as e:
        print(exception.sentence(e), file=sys.stderr)
        return 1
    return 0


def _keeper(conf: cfg.ConfigOpts) -> Keeper:
    group = conf.qcache
    paths = Paths.from_conf(conf)
    paths.prepare()
    catalog = Catalog(paths, group.lock_timeout_seconds)
    generations = Generations(paths, group.lock_timeout_seconds)
    verifier = Verifier(catalog, generations, QemuImg(group.qemu_img), QemuIo(group.qemu_io))
    requests = Requests(paths.revalidations)
    domains = LibvirtDomains(group.libvirt_uri) if group.libvirt_uri else None
    leases = Leases(paths.leases, group.plan_lease_seconds)
    guests = saved = None
    if domains is not None:
        guests = Guests(paths, domains, config_files.arguments(conf))
        happened = threading.Event()
        events = Lifecycle(group.libvirt_uri, happened.set)
        saved = SavedGuests(paths, leases, LibvirtDomains(group.libvirt_uri), events, happened)
    usage = Usage(paths, leases, qcache_conf.instances_path(conf), domains)
    revalidator = Revalidator(
        catalog,
        generations,
        verifier,
        usage,
        requests,
        group.base_reconnect_seconds,
        group.revalidate_mib_per_second * qcache_conf.MIB,
    )
    respawner = Respawner(paths, catalog, group.qemu_storage_daemon, group.base_reconnect_seconds)
    return Keeper(paths, respawner, requests, revalidator, guests, saved)


if __name__ == '__main__':
    sys.exit(main())
