# SPDX-License-Identifier: Apache-2.0
"""A soft reboot starts what is defined, so a plan is there for as long as it takes."""

from unittest import mock

import libvirt
from nova import exception as nova_exception
import pytest

from nova_qcache.virt import chain
from nova_qcache.virt import driver as driver_module
from nova_qcache.virt import imagebackend
from tests.unit.virt import documents
from tests.unit.virt import libvirt_double

CONTEXT = mock.sentinel.context

WITHOUT = 'Failed to add a cache for a soft reboot; rebooting without it'


def warnings(caplog):
    name = driver_module.__name__
    return [record.getMessage() for record in caplog.records if record.name == name]


def moved(xml, overlay):
    """The domain with its disk in the test's own folder."""
    return xml.replace(documents.OVERLAY, str(overlay))


@pytest.fixture
def soft(domain, overlay, nova_conf):
    """A domain that runs plain, and can be rebooted."""
    nova_conf.set_override('wait_soft_reboot_seconds', 1, 'libvirt')
    domain.inactive = moved(documents.PLAIN, overlay)
    domain.active = moved(documents.DETECTED, overlay)
    return domain


def test_a_soft_reboot_starts_through_the_cache(
    driver, soft, instance, overlay, planner, plan, release, caplog
):
    planner.plan.return_value = plan
    instance.flavor.extra_specs = {'qcache:policy': 'auto'}
    plain = soft.inactive
    assert driver._soft_reboot(instance) is True
    planner.plan.assert_called_once_with(
        instance, 'disk', str(overlay), {}, {'qcache:policy': 'auto'}
    )
    assert [xml for xml, _ in soft.starts] == [chain.insert(plain, str(overlay), plan)]
    assert chain.is_in(soft.active)
    assert documents.same(soft.inactive, plain)
    assert release == [soft.inactive]
    assert warnings(caplog) == []
    planner.started.assert_called_once_with(instance)
    planner.fall_back.assert_not_called()


def test_a_soft_reboot_reconnects_as_a_boot_does(driver, soft, instance, planner, record):
    planner.plan.return_value = record
    planner.reconnect_seconds = 30
    driver._soft_reboot(instance)
    assert '<reconnect delay="30"/>' in soft.starts[0][0]


def test_a_soft_reboot_of_a_guest_that_does_not_listen(
    driver, soft, instance, planner, plan, release
):
    planner.plan.return_value = plan
    soft.shuts_down = False
    plain = soft.inactive
    assert driver._soft_reboot(instance) is False
    assert soft.starts == []
    planner.started.assert_not_called()
    assert documents.same(soft.inactive, plain)
    assert len(release) == 1


def test_a_soft_reboot_that_fails(driver, soft, instance, planner, plan, release):
    """Stock Nova goes on with a hard reboot after this error."""
    planner.plan.return_value = plan
    plain = soft.inactive
    soft.launch_errors = [libvirt_double.error('no such socket')]
    with pytest.raises(libvirt.libvirtError, match='no such socket'):
        driver._soft_reboot(instance)
    assert documents.same(soft.inactive, plain)
    assert len(release) == 1
    planner.started.assert_not_called()


def test_a_soft_reboot_without_a_plan_is_stock(driver, soft, instance, planner, release):
    assert driver._soft_reboot(instance) is True
    planner.plan.assert_called_once()
    assert [xml for xml, _ in soft.starts] == [soft.inactive]
    driver._host.write_instance_config.assert_not_called()
    assert len(release) == 1, 'a plan that became plain may have left a lease'


def test_a_disk_that_cannot_be_looked_at_restarts_plain(
    driver, soft, instance, planner, release, caplog
):
    with mock.patch.object(
        driver.image_backend, 'by_name', autospec=True, side_effect=RuntimeError('no such disk')
    ):
        assert driver._soft_reboot(instance) is True
    assert [xml for xml, _ in soft.starts] == [soft.inactive]
    assert warnings(caplog) == [f'{WITHOUT}: no such disk']
    assert len(release) == 1


@pytest.mark.parametrize('where', ['volume', 'raw', 'rbd', 'default'])
def test_a_soft_reboot_of_another_disk_is_stock(
    driver, soft, instance, planner, play, nova_conf, overlay, where
):
    planner.plan.return_value = play
    info = overlay.parent / 'disk.info'
    if where == 'volume':
        instance.image_ref = ''
    else:
        driver.image_backend = imagebackend.Backend(False, planner)
        nova_conf.set_override('images_type', where, 'libvirt')
    assert driver._soft_reboot(instance) is True
    assert [xml for xml, _ in soft.starts] == [soft.inactive]
    planner.plan.assert_not_called()
    driver._host.write_instance_config.assert_not_called()
    assert not info.exists()


@pytest.mark.parametrize('fault', [libvirt_double.error('refused'), ValueError('a fault of ours')])
def test_a_plan_that_cannot_be_defined_is_no_plan(
    driver, soft, instance, planner, plan, release, caplog, fault
):
    planner.plan.return_value = plan
    libvirt_double.refuse(driver, chain.is_in, fault)
    assert driver._soft_reboot(instance) is True
    assert [xml for xml, _ in soft.starts] == [soft.inactive]
    assert warnings(caplog) == [f'{WITHOUT}: {fault}']
    assert len(release) == 1
    names = [name for name, _, _ in planner.mock_calls]
    assert names.index('fall_back') < names.index('started')


def test_a_definition_that_stays_does_no_harm_to_a_soft_reboot(
    driver, soft, instance, planner, play, release, caplog
):
    planner.plan.return_value = play
    libvirt_double.refuse(driver, lambda xml: not chain.is_in(xml), libvirt_double.error('away'))
    assert driver._soft_reboot(instance) is True
    assert warnings(caplog) == [
        'Failed to remove the cache from the persistent domain XML; the cache stays in use: away'
    ]
    assert len(release) == 1


def test_an_instance_that_is_not_there(driver, domain, instance, overlay, planner, play, release):
    planner.plan.return_value = play
    with pytest.raises(nova_exception.InstanceNotFound):
        driver._soft_reboot(instance)
    assert len(release) == 1
