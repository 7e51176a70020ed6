# SPDX-License-Identifier: Apache-2.0
"""What can be done with a server that has booted from a cache: it boots again after each of it."""

from typing import ClassVar

from tempest import config
from tempest.common import compute
from tempest.lib import decorators

from nova_qcache_tempest_plugin.domain import Kind
from nova_qcache_tempest_plugin.tests import base

CONF = config.CONF


class PlayedServersTest(base.QcacheTest):
    image_id: ClassVar[str]

    @classmethod
    def resource_setup(cls) -> None:
        super().resource_setup()
        cls.image_id = cls.make_image(cls.addClassResourceCleanup, **{base.POLICY: 'always'})
        (first,) = cls.make_servers(cls.addClassResourceCleanup, cls.image_id)
        cls.require_kind(first, cls.image_id, Kind.RECORD)
        cls.wait_until_ready(cls.image_id)
        cls.delete_server(first)

    def _play(self) -> str:
        server_id = self.boot(self.image_id)
        self.require_kind(server_id, self.image_id, Kind.PLAY)
        return server_id

    @decorators.idempotent_id('5d0c3f0a-6a8e-4a5e-8a39-b8f5c1f1b0d7')
    def test_a_snapshot_boots(self) -> None:
        if not CONF.compute_feature_enabled.snapshot:
            raise self.skipException('[compute-feature-enabled] snapshot is false')
        server_id = self._play()
        client = self.os_admin.compute_images_client
        snapshot = client.create_image(server_id, name=self._name('snapshot'))['image_id']
        self.addCleanup(self._remove_image, snapshot)
        self.wait_until(
            lambda: self.images_client.show_image(snapshot)['status'] == 'active',
            f'the snapshot {snapshot}',
            CONF.image.build_timeout,
        )
        self.wait_for_status(server_id, 'ACTIVE')
        self.boot(snapshot)

    @decorators.idempotent_id('b6c83a5e-2d35-4e0a-a4a5-8d1b9a2b6c41')
    def test_a_rebuild_plays(self) -> None:
        server_id = self._play()
        self.servers_client.rebuild_server(server_id, self.image_id)
        self.wait_for_status(server_id, 'ACTIVE')
        self.wait_until_booted(server_id)
        self.require_kind(server_id, self.image_id, Kind.PLAY)

    @decorators.idempotent_id('e8f4f3ac-93d1-4a41-8f0c-3f0f5d0a7b19')
    def test_a_resized_server_boots(self) -> None:
        if not CONF.compute_feature_enabled.resize:
            raise self.skipException('[compute-feature-enabled] resize is false')
        if CONF.compute.flavor_ref_alt in (None, CONF.compute.flavor_ref):
            raise self.skipException('[compute] flavor_ref_alt is no other flavor')
        server_id = self._play()
        self.servers_client.resize_server(server_id, CONF.compute.flavor_ref_alt)
        self.wait_for_status(server_id, 'VERIFY_RESIZE')
        self.wait_until_booted(server_id)
        self.servers_client.confirm_resize_server(server_id)
        self.wait_for_status(server_id, 'ACTIVE')

    @decorators.idempotent_id('1a6b0a63-0d1c-4b57-93be-6e3f4f2c9d05')
    def test_an_unshelved_server_boots(self) -> None:
        if not CONF.compute_feature_enabled.shelve:
            raise self.skipException('[compute-feature-enabled] shelve is false')
        server_id = self._play()
        compute.shelve_server(self.servers_client, server_id, force_shelve_offload=True)
        self.servers_client.unshelve_server(server_id)
        self.wait_for_status(server_id, 'ACTIVE')
        self.wait_until_booted(server_id)
