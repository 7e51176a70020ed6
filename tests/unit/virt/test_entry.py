# SPDX-License-Identifier: Apache-2.0
"""What nova-compute loads, and what it gets where Nova does not fit."""

import logging
import pathlib
import sys
from unittest import mock

import nova.virt
from nova.virt import driver as virt_driver
from nova.virt import fake
from nova.virt.libvirt import driver as libvirt_driver

import nova_qcache.virt
from nova_qcache.virt import compatibility
from nova_qcache.virt import entry
from nova_qcache.virt.driver import QcacheDriver

ROOT = pathlib.Path(__file__).parents[3]


def errors(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_it_is_our_driver(caplog):
    assert entry.driver_class() is QcacheDriver
    assert errors(caplog) == []


def test_an_interface_that_moved_is_stock_nova_and_one_error(caplog):
    with mock.patch.object(compatibility, 'moved', autospec=True) as moved:
        moved.return_value = iter(['this is gone', 'that takes x'])
        assert entry.driver_class() is libvirt_driver.LibvirtDriver
    (said,) = errors(caplog)
    assert 'all instances boot without a cache: this is gone; that takes x. Upgrade' in said
    assert caplog.records[-1].levelno == logging.ERROR


def test_an_interface_that_really_moved(caplog, monkeypatch):
    monkeypatch.delattr(libvirt_driver.LibvirtDriver, '_soft_reboot')
    assert entry.driver_class() is libvirt_driver.LibvirtDriver
    (said,) = errors(caplog)
    assert 'nova.virt.libvirt.driver.LibvirtDriver._soft_reboot is missing' in said


def test_a_module_of_ours_that_does_not_load_is_stock_nova_and_one_error(caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, 'nova_qcache.virt.driver', None)
    monkeypatch.delattr(nova_qcache.virt, 'driver')
    assert entry.driver_class() is libvirt_driver.LibvirtDriver
    (said,) = errors(caplog)
    assert 'nova_qcache.virt.driver' in said


def loaded():
    return virt_driver.load_compute_driver(fake.FakeVirtAPI(), 'qcache.QcacheDriver')


def test_nova_loads_it_through_the_shim(fake_libvirt):
    made = loaded()
    assert type(made) is QcacheDriver
    assert isinstance(made, virt_driver.ComputeDriver)


def test_nova_loads_it_by_its_configuration(fake_libvirt, nova_conf):
    nova_conf.set_override('compute_driver', 'qcache.QcacheDriver')
    assert type(virt_driver.load_compute_driver(fake.FakeVirtAPI())) is QcacheDriver


def test_nova_gets_a_driver_where_it_does_not_fit(fake_libvirt, monkeypatch, caplog):
    monkeypatch.delitem(sys.modules, 'nova.virt.qcache', raising=False)
    monkeypatch.delattr(nova.virt, 'qcache', raising=False)
    with mock.patch.object(
        compatibility, 'moved', autospec=True, return_value=iter(['x is gone'])
    ):
        assert type(loaded()) is libvirt_driver.LibvirtDriver
    monkeypatch.delitem(sys.modules, 'nova.virt.qcache')
    assert 'x is gone' in caplog.text


def test_the_shim_is_all_that_is_added_to_nova():
    files = [path for path in (ROOT / 'nova').rglob('*.*') if '__pycache__' not in path.parts]
    assert files == [ROOT / 'nova' / 'virt' / 'qcache' / '__init__.py']
