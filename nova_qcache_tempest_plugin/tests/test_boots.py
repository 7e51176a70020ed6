# SPDX-License-Identifier: Apache-2.0
"""The first servers of an image on a host."""

from tempest import config
from tempest.lib import decorators

from nova_qcache_tempest_plugin.domain import Kind
from nova_qcache_tempest_plugin.tests import base

CONF = config.CONF


class BootsTest(base.QcacheTest):
    @decorators.attr(type='smoke')
    @decorators.idempotent_id('7c1e1b52-6c3b-4c0f-9b7e-2f6a30d4a1c8')
    def test_the_first_server_records_and_the_second_plays(self) -> None:
        """The times of both boots are in the log as figures."""
        image_id = self.make_image(self.addCleanup)
        for _ in range(CONF.qcache.record_from_boot - 1):
            self.require_kind(self.boot(image_id), image_id, Kind.PLAIN)
        self.require_kind(self.boot(image_id), image_id, Kind.RECORD)
        self.wait_until_ready(image_id)

        second = self.boot(image_id)
        played = self.require_kind(second, image_id, Kind.PLAY)
        if self.host is not None and played.kind is Kind.PLAY:
            shown = self.host.show(image_id)
            self.assertEqual('READY', shown['state'])
            self.assertEqual(shown['path'], played.path)

    @decorators.idempotent_id('0d1f7a0e-51b9-4f5c-8a34-9d7c6a9be2f3')
    def test_servers_that_boot_at_once_share_a_recorder(self) -> None:
        image_id = self.make_image(self.addCleanup, **{base.POLICY: 'always'})
        servers = self.make_servers(self.addCleanup, image_id, CONF.qcache.servers_at_once)
        self.assertEqual(CONF.qcache.servers_at_once, len(set(servers)))
        boots = {self.require_kind(server_id, image_id, Kind.RECORD) for server_id in servers}
        self.assertEqual(1, len(boots), boots)
