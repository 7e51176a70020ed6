# SPDX-License-Identifier: Apache-2.0
"""What may be cached, and of which image a base is."""

import hashlib

from nova import objects
from nova.compute import task_states
from nova.compute import vm_states
import pytest

from nova_qcache.model.plan import Boot
from nova_qcache.model.plan import Cause
from nova_qcache.model.plan import Policy
from nova_qcache.virt import eligibility
from tests.unit.builders import IMAGE
from tests.unit.builders import OTHER_IMAGE
from tests.unit.virt import documents


def refusal(instance, disk_name='disk', mapping=None, extra_specs=None):
    return eligibility.refusal_of(instance, disk_name, mapping or {}, extra_specs or {})


def refused(*arguments, **more):
    found = refusal(*arguments, **more)
    return found.reason if found else None


def base_name(image_id):
    return hashlib.sha1(image_id.encode()).hexdigest()


def test_nothing_speaks_against_a_root_disk(instance):
    assert refused(instance) is None


@pytest.mark.parametrize(
    'name', ['disk.local', 'disk.eph0', 'disk.swap', 'disk.config', 'disk.rescue', 'kernel', '']
)
def test_only_the_root_disk(instance, name):
    assert refused(instance, name) == f'{name} is not a root disk'


@pytest.mark.parametrize(
    ('field', 'value'),
    [('task_state', task_states.RESCUING), ('vm_state', vm_states.RESCUED)],
)
def test_a_rescued_instance(instance, field, value):
    setattr(instance, field, value)
    assert refused(instance) == 'a rescued instance boots without a cache'


@pytest.mark.parametrize('state', [task_states.UNRESCUING, task_states.SPAWNING])
def test_other_tasks(instance, state):
    instance.task_state = state
    assert refused(instance) is None


def test_a_disk_that_nova_encrypts(instance):
    mapping = {'bus': 'virtio', 'encrypted': True, 'encryption_format': 'luks'}
    assert refused(instance, mapping=mapping) == 'its disk is encrypted'
    assert refused(instance, mapping={**mapping, 'encrypted': False}) is None


def test_an_instance_with_a_key(instance):
    instance.ephemeral_key_uuid = OTHER_IMAGE
    assert refused(instance) == 'its disk is encrypted'


# -- certificates and signatures

VALIDATED = 'its image is subject to certificate validation'


def test_trusted_certificates(instance):
    instance.trusted_certs = objects.TrustedCerts(ids=['a', 'b'])
    assert refused(instance) == VALIDATED


def test_an_empty_list_of_certificates(instance):
    instance.trusted_certs = objects.TrustedCerts(ids=[])
    assert refused(instance) is None


@pytest.fixture
def without_certificates(instance):
    """An instance as a reboot brings it along: certificates are loaded when asked for."""
    values = {name: getattr(instance, name) for name in instance.obj_what_changed()}
    del values['trusted_certs']
    return objects.Instance(**values)


@pytest.mark.parametrize(('ids', 'answer'), [(['a'], VALIDATED), (None, None)])
def test_certificates_that_nova_has_not_loaded_yet(without_certificates, monkeypatch, ids, answer):
    def load(self, name):
        assert name == 'trusted_certs'
        self.trusted_certs = ids and objects.TrustedCerts(ids=ids)

    monkeypatch.setattr(objects.Instance, 'obj_load_attr', load)
    assert refused(without_certificates) == answer


def test_certificates_are_not_asked_for_in_vain(without_certificates, monkeypatch):
    monkeypatch.setattr(objects.Instance, 'obj_load_attr', None)
    assert refused(without_certificates, extra_specs={eligibility.POLICY: 'never'})
    assert refused(without_certificates, 'disk.swap')


@pytest.mark.parametrize(
    ('verifies', 'signature', 'answer'),
    [
        (True, 'c2lnbmF0dXJl', VALIDATED),
        (True, None, None),
        (False, 'c2lnbmF0dXJl', None),
        (False, None, None),
    ],
)
def test_signatures_of_glance(instance, nova_conf, verifies, signature, answer):
    nova_conf.set_override('verify_glance_signatures', verifies, 'glance')
    if signature:
        instance.system_metadata['image_img_signature'] = signature
    assert refused(instance) == answer


# -- policies


@pytest.mark.parametrize('policy', ['auto', 'always'])
def test_policies_that_allow(instance, policy):
    instance.system_metadata[f'image_{eligibility.POLICY}'] = policy
    assert refused(instance) is None
    assert refused(instance, extra_specs={eligibility.POLICY: policy}) is None


def test_an_image_that_says_never(instance):
    instance.system_metadata['image_qcache:policy'] = 'never'
    assert refused(instance) == 'the image property qcache:policy says never'


def test_a_flavor_that_says_never(instance):
    answer = refused(instance, extra_specs={'qcache:policy': 'never'})
    assert answer == 'the flavor extra spec qcache:policy says never'


@pytest.mark.parametrize(
    ('image', 'flavor'), [('never', 'always'), ('always', 'never'), ('never', 'never')]
)
def test_one_never_is_enough(instance, image, flavor):
    instance.system_metadata['image_qcache:policy'] = image
    assert 'says never' in refused(instance, extra_specs={'qcache:policy': flavor})


@pytest.mark.parametrize('policy', ['', 'Never', 'no', 'NEVER ', 'sometimes', 'always,never'])
def test_a_policy_that_makes_no_sense_allows_nothing(instance, policy):
    answer = f'the flavor extra spec qcache:policy is {policy!r}; set it to one of auto, always, '
    assert refused(instance, extra_specs={'qcache:policy': policy}) == f'{answer}never'
    instance.system_metadata['image_qcache:policy'] = policy
    assert refused(instance) == f'{answer}never'.replace('flavor extra spec', 'image property')


def test_the_policy_of_another_name_is_none_of_ours(instance):
    instance.system_metadata['qcache:policy'] = 'never'
    instance.system_metadata['image_other:policy'] = 'never'
    assert refused(instance, extra_specs={'other:policy': 'never'}) is None


@pytest.mark.parametrize(
    ('image', 'flavor', 'policy'),
    [
        (None, None, Policy.AUTO),
        ('auto', 'auto', Policy.AUTO),
        ('always', None, Policy.ALWAYS),
        (None, 'always', Policy.ALWAYS),
        ('auto', 'always', Policy.ALWAYS),
    ],
)
def test_a_policy_of_the_image_or_the_flavor(instance, image, flavor, policy):
    if image:
        instance.system_metadata['image_qcache:policy'] = image
    extra_specs = {'qcache:policy': flavor} if flavor else {}
    assert eligibility.requested_policy(instance, extra_specs) is policy


def test_what_is_counted_of_a_refusal(instance):
    assert refusal(instance, 'disk.swap').cause is Cause.INELIGIBLE
    assert refusal(instance, extra_specs={'qcache:policy': 'never'}).cause is Cause.POLICY


# -- images of one boot


@pytest.mark.parametrize(
    ('vm_state', 'task_state', 'image_ref', 'base_image_ref', 'once'),
    [
        (vm_states.SHELVED_OFFLOADED, task_states.SPAWNING, OTHER_IMAGE, IMAGE, True),
        (vm_states.ACTIVE, task_states.RESIZE_FINISH, OTHER_IMAGE, IMAGE, True),
        # a resize in the same cell, a volume's or a user's snapshot, an ordinary boot
        (vm_states.ACTIVE, task_states.RESIZE_FINISH, OTHER_IMAGE, OTHER_IMAGE, False),
        (vm_states.SHELVED_OFFLOADED, task_states.SPAWNING, OTHER_IMAGE, OTHER_IMAGE, False),
        (vm_states.BUILDING, task_states.SPAWNING, OTHER_IMAGE, IMAGE, False),
        (vm_states.ACTIVE, None, OTHER_IMAGE, IMAGE, False),
    ],
)
def test_the_snapshot_that_nova_moves_a_server_with(
    instance, vm_state, task_state, image_ref, base_image_ref, once
):
    instance.vm_state, instance.task_state = vm_state, task_state
    instance.image_ref = image_ref
    instance.system_metadata['image_base_image_ref'] = base_image_ref
    assert eligibility.boots_once(instance, OTHER_IMAGE) is once
    assert not eligibility.boots_once(instance, IMAGE)  # Nova has rebased the disk on it


# -- whose base it is


def test_the_base_of_the_image(instance):
    assert eligibility.image_id(instance, documents.BASE_NAME) == IMAGE


def test_an_unshelved_instance_stands_on_the_base_of_its_first_image(instance):
    instance.image_ref = OTHER_IMAGE  # the snapshot
    assert eligibility.image_id(instance, base_name(IMAGE)) == IMAGE
    assert eligibility.image_id(instance, base_name(OTHER_IMAGE)) == OTHER_IMAGE


@pytest.mark.parametrize('image_ref', [OTHER_IMAGE, '', None])
def test_an_instance_that_does_not_know_its_first_image(instance, image_ref):
    instance.image_ref = image_ref
    instance.system_metadata.clear()
    assert eligibility.image_id(instance, base_name(IMAGE)) is None


@pytest.mark.parametrize(
    'name',
    [
        f'{documents.BASE_NAME}_20',
        documents.BASE_NAME.upper(),
        documents.BASE_NAME[:-1],
        f'{documents.BASE_NAME}.part',
        'swap_512',
        'ephemeral_1_40d1d2c',
        IMAGE,
        '',
    ],
)
def test_other_bases_are_of_no_image(instance, name):
    assert eligibility.image_id(instance, name) is None


@pytest.mark.parametrize('image_ref', ['', None])
def test_no_image_has_the_base_of_nothing(instance, image_ref):
    instance.image_ref = image_ref
    instance.system_metadata['image_base_image_ref'] = image_ref or ''
    assert eligibility.image_id(instance, base_name('')) is None


# -- all of it, as one question


def asked(instance, overlay, **changes):
    values = {'disk_name': 'disk', 'mapping': {}, 'extra_specs': {}, **changes}
    return eligibility.boot(
        instance, path=str(overlay), image_meta=None, no_recording='closed', **values
    )


def test_what_a_plan_is_asked_for_with(instance, overlay, base_path):
    assert asked(instance, overlay, extra_specs={'qcache:policy': 'always'}) == Boot(
        IMAGE,
        str(base_path),
        'raw',
        consumer=documents.INSTANCE,
        policy=Policy.ALWAYS,
        no_recording='closed',
    )


def test_what_speaks_against_it_is_said_before_the_disk_is_looked_at(instance):
    found = asked(instance, '/missing', disk_name='disk.swap')
    assert found == eligibility.Refusal('disk.swap is not a root disk')


def test_a_disk_that_cannot_be_looked_at(instance, tmp_path):
    found = asked(instance, tmp_path / 'missing')
    assert isinstance(found, eligibility.Refusal)
    assert (found.cause, 'missing' in found.reason) == (Cause.INELIGIBLE, True)
