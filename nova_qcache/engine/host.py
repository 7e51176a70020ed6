# SPDX-License-Identifier: Apache-2.0
"""The parts that the engine works with on this host, made once of the configuration."""

import contextlib

from oslo_config import cfg

from nova_qcache import conf as qcache_conf
from nova_qcache import exception
from nova_qcache.bases.generation import Generations
from nova_qcache.cache import plugins
from nova_qcache.cache import pool
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.leases import Leases
from nova_qcache.cache.pins import Pins
from nova_qcache.cache.pool import Pool
from nova_qcache.cache.usage import Domains
from nova_qcache.cache.usage import Usage
from nova_qcache.cache.view import CacheView
from nova_qcache.model.key import CacheKey
from nova_qcache.model.source import Source
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from nova_qcache.system import control
from nova_qcache.system.libvirt_domains import LibvirtDomains
from nova_qcache.system.paths import Paths

__all__ = ['Host']

_RESERVED_SECONDS = 60
"""Longest reservation of room for a recorder that was started, in seconds."""


class Host:
    def __init__(
        self, conf: cfg.ConfigOpts, domains: Domains | None = None, *, looks_only: bool = False
    ) -> None:
        """:param conf: on which :func:`nova_qcache.conf.register_opts` was called
        :param domains: source of the XML of domains; by default the libvirt of ``libvirt_uri``
        :param looks_only: whether it is to change nothing: then it makes no folders either
        :raises InvalidOption, InvalidQuota: if the configuration makes no sense
        :raises FolderUnfit: if the folders cannot be used
        """
        qcache_conf.validate(conf)
        self.conf = conf
        self.paths = Paths.from_conf(conf)
        self.paths.prepare(make=not looks_only)
        group = conf.qcache
        self.catalog = Catalog(self.paths, group.lock_timeout_seconds)
        self.generations = Generations(self.paths, group.lock_timeout_seconds)
        self.leases = Leases(self.paths.leases, group.plan_lease_seconds)
        if domains is None and group.libvirt_uri:
            domains = LibvirtDomains(group.libvirt_uri)
        instances = qcache_conf.instances_path(conf)
        self.usage = Usage(self.paths, self.leases, instances, domains)
        self.pins = Pins(self.paths, group.lock_timeout_seconds)
        self.pool = Pool(
            self.catalog,
            self.pins,
            self.usage,
            plugins.eviction_policy(group.eviction_policy),
            pool.limits(conf, self.paths.cache_path),
            Leases(self.paths.reservations, group.start_timeout_seconds + _RESERVED_SECONDS),
            group.lock_timeout_seconds,
        )

    def source(self, base: str, base_format: str) -> Source:
        """Return the source of a base; no I/O.

        :raises InvalidBase: for a format, scheme or reference that nobody understands
        """
        return plugins.source(
            base, base_format, reconnect_seconds=self.conf.qcache.base_reconnect_seconds
        )

    def recorder(self, key: CacheKey) -> control.RecorderClient:
        """Return a client of the recorder of a cache, whether one is at work or not."""
        return control.RecorderClient(self.paths.control_socket(key))

    def retire(self, view: CacheView, reason: str, staleness: Staleness) -> None:
        """Take a cache out of use: its recorder drops it, or it becomes STALE."""
        if view.recorder is not None:
            with contextlib.suppress(exception.RecorderUnreachable):
                self.recorder(view.key).drop()
        if view.record is not None and view.record.state is State.READY:
            self.catalog.retire(view.record, reason, staleness)
