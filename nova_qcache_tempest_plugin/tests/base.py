# SPDX-License-Identifier: Apache-2.0
"""What all tests have: images of their own, servers on one host, and a look at that host."""

from collections.abc import Callable
import re
import time
from typing import Any, ClassVar

from oslo_log import log as logging
from tempest import config
from tempest import test
from tempest.common import compute
from tempest.lib import exceptions
from tempest.lib.common.utils import data_utils
from tempest.lib.common.utils import test_utils

from nova_qcache_tempest_plugin import images
from nova_qcache_tempest_plugin.compute_host import ComputeHost
from nova_qcache_tempest_plugin.compute_host import HostError
from nova_qcache_tempest_plugin.compute_host import ProgramMissing
from nova_qcache_tempest_plugin.domain import Boot
from nova_qcache_tempest_plugin.domain import Kind

__all__ = ['POLICY', 'AddCleanup', 'QcacheTest']

CONF = config.CONF
LOG = logging.getLogger(__name__)

POLICY = 'qcache:policy'

AddCleanup = Callable[..., None]
"""``self.addCleanup`` or ``cls.addClassResourceCleanup``."""

_MICROVERSION = '2.86'
"""Of the compute API: servers without networks since 2.37, on a host that is named since 2.74;
values of extra specs are checked since 2.86. Each Nova that nova-qcache supports has it."""


class QcacheTest(test.BaseTestCase):
    """The administrator makes the servers: only he may name a host and see a server's domain."""

    credentials: ClassVar[list[str]] = ['admin']
    compute_host: ClassVar[str]
    host: ClassVar[ComputeHost | None]
    """None if nothing of the host is to be looked at."""

    @classmethod
    def skip_checks(cls) -> None:
        super().skip_checks()
        if not CONF.service_available.qcache:
            raise cls.skipException('[service_available] qcache is false')
        if not (CONF.service_available.nova and CONF.service_available.glance):
            raise cls.skipException('[service_available] nova or glance is false')
        if not CONF.compute_feature_enabled.console_output:
            raise cls.skipException(
                '[compute-feature-enabled] console_output is false, and it is the console that '
                'tells of boots'
            )

    @classmethod
    def setup_credentials(cls) -> None:
        wanted = CONF.qcache.server_networks == 'tenant'
        cls.set_network_resources(network=wanted, subnet=wanted, dhcp=wanted)
        super().setup_credentials()

    @classmethod
    def setup_clients(cls) -> None:
        super().setup_clients()
        cls.servers_client = cls.os_admin.servers_client
        cls.images_client = cls.os_admin.image_client_v2

    @classmethod
    def resource_setup(cls) -> None:
        super().resource_setup()
        cls.setup_api_microversion_fixture(compute_microversion=_MICROVERSION)
        cls.network = None
        if CONF.qcache.server_networks == 'tenant':
            cls.network = cls.get_tenant_network('admin')
        cls.compute_host = CONF.qcache.compute_host or cls._first_compute_host()
        cls.host = None
        if CONF.qcache.host_command:
            cls.host = ComputeHost(
                cls.compute_host,
                CONF.qcache.host_command,
                CONF.qcache.nova_qcache_command,
                CONF.qcache.virsh_command,
                CONF.qcache.host_timeout,
            )
            try:
                cls.host.require_programs()
            except ProgramMissing as e:
                raise cls.skipException(f'nova-qcache is not on {cls.compute_host}: {e}') from e

    @classmethod
    def _first_compute_host(cls) -> str:
        services = cls.os_admin.services_client.list_services(binary='nova-compute')['services']
        for service in services:
            if (service['state'], service['status']) == ('up', 'enabled'):
                return str(service['host'])
        raise cls.skipException('no nova-compute is up and enabled')

    def need_host(self) -> ComputeHost:
        """Return the host, or skip the test."""
        if self.host is None:
            raise self.skipException(
                '[qcache] host_command is empty, and this is seen on the host'
            )
        return self.host

    # What the tests make

    @classmethod
    def make_image(cls, add_cleanup: AddCleanup, **properties: str) -> str:
        """Copy the image of tempest's configuration and return the ID of the copy."""
        source = cls.images_client.show_image(CONF.compute.image_ref)
        wanted = images.description(source, cls._name('image'), properties)
        image_id = str(cls.images_client.create_image(**wanted)['id'])
        add_cleanup(cls._remove_image, image_id)
        images.send(cls.images_client, CONF.compute.image_ref, image_id)
        return image_id

    @classmethod
    def _remove_image(cls, image_id: str) -> None:
        test_utils.call_and_ignore_notfound_exc(cls.images_client.delete_image, image_id)
        cls.images_client.wait_for_resource_deletion(image_id)
        if cls.host is not None:
            try:
                cls.host.forget(image_id)
            except HostError as e:  # it goes with its age
                LOG.warning('The cache of the deleted image %s stays: %s', image_id, e)

    @classmethod
    def make_servers(
        cls, add_cleanup: AddCleanup, image_id: str, count: int = 1, flavor: str | None = None
    ) -> list[str]:
        """Boot servers of an image at once, wait until the console of each says that it is up, and
        return their IDs."""
        asked: dict[str, Any] = {'host': cls.compute_host}
        if CONF.qcache.server_networks == 'none':
            asked['networks'] = 'none'
        if count > 1:
            asked |= {'min_count': count, 'max_count': count}
        began = time.monotonic()
        _, made = compute.create_test_server(
            cls.os_admin,
            tenant_network=cls.network,
            wait_until='ACTIVE',
            name=cls._name('server'),
            image_id=image_id,
            flavor=flavor,
            **asked,
        )
        servers = [str(server['id']) for server in made]
        for server_id in servers:
            add_cleanup(cls.delete_server, server_id)
        for server_id in servers:
            cls.wait_until_booted(server_id)
        LOG.info(
            '%d server(s) of image %s were up %.1f s after the request',
            count,
            image_id,
            time.monotonic() - began,
        )
        return servers

    def boot(self, image_id: str, flavor: str | None = None) -> str:
        """The same with one server, until the end of the test."""
        (server_id,) = self.make_servers(self.addCleanup, image_id, flavor=flavor)
        return server_id

    @classmethod
    def delete_server(cls, server_id: str) -> None:
        def is_gone() -> bool:
            try:
                cls.servers_client.show_server(server_id)
            except exceptions.NotFound:
                return True
            return False

        test_utils.call_and_ignore_notfound_exc(cls.servers_client.delete_server, server_id)
        cls.wait_until(is_gone, f'the end of server {server_id}', CONF.compute.build_timeout)

    @classmethod
    def _name(cls, kind: str) -> str:
        name: str = data_utils.rand_name(f'qcache-{kind}', prefix=CONF.resource_name_prefix)
        return name

    # What they wait for

    @classmethod
    def wait_until(cls, true: Callable[[], bool], what: str, seconds: float) -> None:
        """:raises TimeoutException: with what was waited for"""
        if not test_utils.call_until_true(true, seconds, 1):
            raise exceptions.TimeoutException(f'{what}: not within {seconds} s')

    @classmethod
    def wait_until_booted(cls, server_id: str) -> None:
        """Wait until the console shows the end of a boot: a console begins anew whenever Nova
        starts a guest."""
        pattern = re.compile(CONF.qcache.booted_pattern)
        cls.wait_until(
            lambda: bool(
                pattern.search(cls.servers_client.get_console_output(server_id)['output'])
            ),
            f'[qcache] booted_pattern {pattern.pattern!r} on the console of server {server_id}',
            CONF.qcache.boot_timeout,
        )

    @classmethod
    def wait_for_status(cls, server_id: str, status: str) -> None:
        """Wait until an action has led to that status.

        :raises ServerFault: if it has led to ERROR
        """

        def look() -> bool:
            server = cls.servers_client.show_server(server_id)['server']
            if server['status'] == 'ERROR':
                raise exceptions.ServerFault(f'server {server_id}: {server.get("fault")}')
            return bool(server['status'] == status and server['OS-EXT-STS:task_state'] is None)

        cls.wait_until(look, f'status {status} of {server_id}', CONF.compute.build_timeout)

    @classmethod
    def wait_until_ready(cls, image_id: str) -> None:
        """Wait until the cache of an image is READY; without a look at the host not at all."""
        if cls.host is not None:
            host = cls.host
            cls.wait_until(
                lambda: 'READY' in host.states(image_id),
                f'a READY cache of image {image_id} on {host.name}',
                CONF.qcache.ready_timeout,
            )

    # What they see on the host

    @classmethod
    def require_kind(cls, server_id: str, image_id: str, *kinds: Kind) -> Boot:
        """Find out whether a server has booted in one of these ways; without a look at the host
        all is well.

        :raises AssertionError: if it has not, with what the host has counted
        :raises SkipTest: if nova-qcache had no part in it
        """
        if cls.host is None:
            return Boot(kinds[0])
        server = cls.servers_client.show_server(server_id)['server']
        boot = cls.host.boot(server['OS-EXT-SRV-ATTR:instance_name'], image_id)
        figures = cls.host.figures(image_id)
        if boot.kind is Kind.PLAIN and not figures.get('boots'):
            raise cls.skipException(
                f'nova-qcache is off on {cls.compute_host}: it has counted no boot of image '
                f'{image_id}; set [DEFAULT] compute_driver = qcache.QcacheDriver in its nova.conf '
                'and see the log of nova-compute'
            )
        if boot.kind is Kind.RECORD and Kind.PLAY in kinds and figures.get('audits'):
            LOG.info('The boot of server %s was audited', server_id)
        elif boot.kind not in kinds:
            wanted = ' or '.join(kind.value for kind in kinds)
            raise AssertionError(
                f'server {server_id} has booted {boot.kind.value} and not {wanted}; '
                f'counted of its image: {figures}'
            )
        return boot
