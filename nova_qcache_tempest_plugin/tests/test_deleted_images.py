# SPDX-License-Identifier: Apache-2.0
"""An image that is deleted while its servers and its cache are there."""

from tempest import config
from tempest.lib import decorators

from nova_qcache_tempest_plugin.domain import Kind
from nova_qcache_tempest_plugin.tests import base

CONF = config.CONF


class DeletedImagesTest(base.QcacheTest):
    @decorators.idempotent_id('c0a1e9d6-7f14-4a39-a6b5-0e2d8f3b7c52')
    def test_a_server_outlives_its_image(self) -> None:
        image_id = self.make_image(self.addCleanup, **{base.POLICY: 'always'})
        server_id = self.boot(image_id)
        self.require_kind(server_id, image_id, Kind.RECORD)
        self.images_client.delete_image(image_id)
        self.servers_client.reboot_server(server_id, type='HARD')
        self.wait_for_status(server_id, 'ACTIVE')
        self.wait_until_booted(server_id)

    @decorators.idempotent_id('93a7d2f8-1b6e-4c2d-8e47-5f0b1c9a6e34')
    def test_its_cache_goes_with_its_last_server(self) -> None:
        host = self.need_host()
        seconds = CONF.qcache.deleted_image_timeout
        if not seconds:
            raise self.skipException(
                '[qcache] deleted_image_timeout is 0: the host does not ask Glance'
            )
        image_id = self.make_image(self.addCleanup, **{base.POLICY: 'always'})
        server_id = self.boot(image_id)
        self.require_kind(server_id, image_id, Kind.RECORD)
        self.wait_until_ready(image_id)
        self.images_client.delete_image(image_id)
        self.assertIn('READY', host.states(image_id))
        self.delete_server(server_id)
        self.wait_until(
            lambda: not host.states(image_id),
            f'the end of the cache of the deleted image {image_id}',
            seconds,
        )
