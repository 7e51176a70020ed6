# SPDX-License-Identifier: Apache-2.0
"""The flavor's policy, as Nova's API checks it: the entry point is the installed one."""

from nova import exception
from nova.api.validation.extra_specs import validators
import pytest

from nova_qcache.virt import eligibility
from nova_qcache.virt import extra_specs


def test_nova_has_found_it():
    assert eligibility.POLICY in validators.VALIDATORS


@pytest.mark.parametrize('policy', ['auto', 'always', 'never'])
def test_a_policy(policy):
    validators.validate('qcache:policy', policy)


@pytest.mark.parametrize('policy', ['sometimes', '', 'Never', 'never ', 'true'])
def test_a_policy_that_makes_no_sense(policy):
    with pytest.raises(exception.ValidationError, match='not one of: auto, always, never'):
        validators.validate('qcache:policy', policy)


@pytest.mark.parametrize('name', ['qcache:other', 'qcache:policies', 'qcache:'])
def test_another_name(name):
    with pytest.raises(exception.ValidationError, match='does not appear to be a valid'):
        validators.validate(name, 'never')


def test_what_is_none_of_ours_is_let_alone():
    validators.validate('other:policy', 'sometimes')


def test_the_words_are_those_of_the_driver():
    (validator,) = extra_specs.register()
    assert validator.name == eligibility.POLICY
    assert tuple(validator.value['enum']) == eligibility.POLICIES
    assert 'never' in validator.description
