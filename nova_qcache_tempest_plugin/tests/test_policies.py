# SPDX-License-Identifier: Apache-2.0
"""The image property and the flavor extra spec qcache:policy."""

from tempest import config
from tempest.lib import decorators
from tempest.lib import exceptions

from nova_qcache_tempest_plugin.domain import Kind
from nova_qcache_tempest_plugin.tests import base

CONF = config.CONF


class PoliciesTest(base.QcacheTest):
    def _flavor(self) -> str:
        """Make a flavor like that of tempest's configuration."""
        client = self.os_admin.flavors_client
        like = client.show_flavor(CONF.compute.flavor_ref)['flavor']
        wanted = {name: like[name] for name in ('ram', 'vcpus', 'disk')}
        flavor_id = str(client.create_flavor(name=self._name('flavor'), **wanted)['flavor']['id'])
        self.addCleanup(client.delete_flavor, flavor_id)
        return flavor_id

    def _require_plain(self, image_id: str, flavor: str | None = None) -> None:
        """A server boots without a cache because of the policy, and its image gets none."""
        host = self.need_host()
        self.require_kind(self.boot(image_id, flavor), image_id, Kind.PLAIN)
        figures = host.figures(image_id)
        self.assertEqual((1, {'policy': 1}), (figures['boots'], figures['plain']))
        self.assertEqual([], host.states(image_id))

    @decorators.idempotent_id('2f9d6c1b-4e8a-4b73-9c05-7a3e1d8f5b60')
    def test_an_image_that_says_always_records_with_its_first_boot(self) -> None:
        self.need_host()
        image_id = self.make_image(self.addCleanup, **{base.POLICY: 'always'})
        self.require_kind(self.boot(image_id), image_id, Kind.RECORD)

    @decorators.idempotent_id('84e5b7a3-0c2f-4d96-b1e8-6d4c9f2a7e15')
    def test_an_image_that_says_never_boots_plain(self) -> None:
        self.need_host()
        self._require_plain(self.make_image(self.addCleanup, **{base.POLICY: 'never'}))

    @decorators.idempotent_id('d3b8f0e4-9a57-4c16-8f2d-1e7b5c6a9083')
    def test_an_image_that_says_nonsense_boots_plain(self) -> None:
        self.need_host()
        self._require_plain(self.make_image(self.addCleanup, **{base.POLICY: 'sometimes'}))

    @decorators.idempotent_id('6a0c4e92-b5d1-4f38-a7c6-3b9e8d1f2075')
    def test_never_of_a_flavor_wins_over_always_of_an_image(self) -> None:
        self.need_host()
        flavor = self._flavor()
        self.os_admin.flavors_client.set_flavor_extra_spec(flavor, **{base.POLICY: 'never'})
        image_id = self.make_image(self.addCleanup, **{base.POLICY: 'always'})
        self._require_plain(image_id, flavor)

    @decorators.attr(type='negative')
    @decorators.idempotent_id('f17e5d29-83c4-4b0a-9d6f-0c2a8b4e6d91')
    def test_a_flavor_that_says_nonsense_is_refused(self) -> None:
        client = self.os_admin.flavors_client
        flavor = self._flavor()
        try:
            client.set_flavor_extra_spec(flavor, **{base.POLICY: 'sometimes'})
        except exceptions.BadRequest as e:
            self.assertIn('never', str(e))  # it says which values there are
            return
        raise self.skipException(
            'nova-qcache is not installed where the compute API runs: it took a flavor with '
            f'{base.POLICY} = sometimes'
        )
