# SPDX-License-Identifier: Apache-2.0
"""The driver as a whole, and what it says about writes of a base."""

import inspect
import logging
from unittest import mock

import libvirt
import nova.privsep.path
from nova.virt import fake
from nova.virt import images
from nova.virt.libvirt import driver as stock
import pytest

from nova_qcache.virt import driver as driver_module
from nova_qcache.virt import imagebackend
from nova_qcache.virt import imagecache
from nova_qcache.virt.driver import QcacheDriver
from tests.unit.builders import IMAGE
from tests.unit.virt import documents
from tests.unit.virt import libvirt_double
from tests.unit.virt.libvirt_double import FakeDomain

CONTEXT = mock.sentinel.context


def test_the_double_is_like_libvirt():
    for name, method in inspect.getmembers(FakeDomain, inspect.isfunction):
        if not name.startswith('_'):
            ours = list(inspect.signature(method).parameters)
            theirs = list(inspect.signature(getattr(libvirt.virDomain, name)).parameters)
            assert ours == theirs, name


# -- writes of a base


@pytest.fixture
def happened(events):
    with (
        mock.patch.object(nova.privsep.path, 'utime', autospec=True) as utime,
        mock.patch.object(images, 'fetch_to_raw', autospec=True) as fetch,
    ):
        utime.side_effect = lambda path: events.append(('touch', path))
        fetch.side_effect = lambda context, image, path: events.append(('fetch', image, path))
        yield events


def test_an_image_that_is_cached_by_request_is_announced(driver, base_path, happened, planner):
    base_path.unlink()
    assert driver.cache_image(CONTEXT, IMAGE) is True
    base = str(base_path)
    assert happened == [('writing', base), ('fetch', IMAGE, base), 'written']
    planner.precached.assert_called_once_with(IMAGE)


def test_an_image_that_is_there_is_touched(driver, base_path, happened, planner):
    assert driver.cache_image(CONTEXT, IMAGE) is False
    base = str(base_path)
    assert happened == [('touch', base)], 'that is no write'
    planner.precached.assert_called_once_with(IMAGE)


def test_an_image_that_cannot_be_had_is_reported_and_not_pinned(
    driver, base_path, happened, planner
):
    base_path.unlink()
    images.fetch_to_raw.side_effect = ConnectionError
    with pytest.raises(ConnectionError):
        driver.cache_image(CONTEXT, IMAGE)
    planner.precached.assert_not_called()


# -- the whole driver


def test_it_is_made_as_nova_makes_it(fake_libvirt):
    made = QcacheDriver(fake.FakeVirtAPI(), False)
    assert type(made.image_backend) is imagebackend.Backend
    assert made.image_backend.backend('qcow2') is imagebackend.Qcow2
    assert type(made.image_cache_manager) is imagecache.ImageCacheManager
    assert made.image_cache_manager._planner is made._planner
    assert made.image_backend._planner is made._planner


@pytest.mark.parametrize('use_cow', [True, False])
def test_use_cow_images_is_heeded(fake_libvirt, nova_conf, use_cow):
    nova_conf.set_override('use_cow_images', use_cow)
    made = QcacheDriver(fake.FakeVirtAPI())
    assert (made.image_backend.backend('default') is imagebackend.Qcow2) is use_cow


def test_its_capabilities_are_stock(fake_libvirt):
    ours, theirs = (
        made(fake.FakeVirtAPI()).capabilities for made in (QcacheDriver, stock.LibvirtDriver)
    )
    assert ours == theirs


def test_the_planner_starts_when_nova_has(driver, domain, planner, chained):
    domain.inactive = documents.PLAIN
    domain.active = chained
    connection = mock.create_autospec(libvirt.virConnect, instance=True)
    connection.getLibVersion.return_value = 9_002_001
    connection.listAllDomains.return_value = [domain]
    driver._host.get_connection.return_value = connection
    happened = mock.Mock()
    planner.start.side_effect = happened.planner
    with mock.patch.object(stock.LibvirtDriver, 'init_host', happened.nova):
        driver.init_host('this host')
    assert [call[0] for call in happened.mock_calls] == ['nova', 'planner']
    happened.nova.assert_called_once_with('this host')
    (domains,), _ = planner.start.call_args
    assert domains.version() == (9, 2, 1)
    assert [text for _, text in domains.documents()] == [chained, documents.PLAIN]


def test_its_warnings_are_of_the_instance(driver, domain, instance, chained, caplog):
    caplog.set_level(logging.WARNING)
    domain.launch_errors = [libvirt_double.error('x')]
    driver._create_guest(CONTEXT, chained, instance)
    record = next(r for r in caplog.records if r.name == driver_module.__name__)
    assert record.instance is instance or documents.INSTANCE in str(record.instance)
