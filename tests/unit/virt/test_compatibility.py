# SPDX-License-Identifier: Apache-2.0
"""This Nova is one that the package knows, and each kind of change is found."""

import importlib
import inspect
import sys

from nova.virt.libvirt import driver as libvirt_driver
import pytest

from nova_qcache.virt import compatibility
from nova_qcache.virt import driver
from nova_qcache.virt import imagebackend
from nova_qcache.virt import imagecache

LIBVIRT = 'nova.virt.libvirt'
NAMES = {**compatibility._METHODS, **compatibility._FUNCTIONS}


def place(name):
    """The module or class that holds a seam, and its last name."""
    module, *path = name.split('.')
    holder = importlib.import_module(f'{LIBVIRT}.{module}')
    for part in path[:-1]:
        holder = getattr(holder, part)
    return holder, path[-1]


def test_nothing_has_moved():
    assert list(compatibility.moved()) == []


@pytest.mark.parametrize('name', NAMES)
def test_what_is_gone(name, monkeypatch):
    holder, last = place(name)
    # A class may have it from another one; that is as good as its own.
    owners = holder.__mro__[:-1] if isinstance(holder, type) else [holder]
    for owner in owners:
        if last in vars(owner):
            monkeypatch.delattr(owner, last)
    if last == '__init__':  # object has one
        said = f'{LIBVIRT}.{name} takes '
    else:
        said = f'{LIBVIRT}.{name} is missing ('
    found = list(compatibility.moved())
    assert any(clause.startswith(said) for clause in found), found


@pytest.mark.parametrize('name', NAMES)
def test_what_is_no_function_any_more(name, monkeypatch):
    holder, last = place(name)
    monkeypatch.setattr(holder, last, None)
    (clause,) = compatibility.moved()
    assert clause.startswith(f'{LIBVIRT}.{name} is missing (')


@pytest.mark.parametrize('name', [name for name, parameters in NAMES.items() if parameters])
def test_a_parameter_with_another_name(name, monkeypatch):
    holder, last = place(name)
    parameters = ['self'] * (name in compatibility._METHODS) + NAMES[name].split()
    parameters[-1] = 'renamed'
    planted = eval(f'lambda {", ".join(parameters)}: None')
    monkeypatch.setattr(holder, last, planted)
    assert list(compatibility.moved()) == [f'{LIBVIRT}.{name} takes {", ".join(parameters)}']


def test_a_parameter_too_few(monkeypatch):
    monkeypatch.setattr(libvirt_driver.LibvirtDriver, 'suspend', lambda self, context: None)
    assert list(compatibility.moved()) == [
        f'{LIBVIRT}.driver.LibvirtDriver.suspend takes self, context'
    ]


def test_parameters_in_another_order(monkeypatch):
    monkeypatch.setattr(
        libvirt_driver.LibvirtDriver, 'suspend', lambda self, instance, context: None
    )
    assert len(list(compatibility.moved())) == 1


def test_parameters_behind_are_welcome(monkeypatch):
    monkeypatch.setattr(
        libvirt_driver.LibvirtDriver,
        'suspend',
        lambda self, context, instance, *, more=None, **others: None,
    )
    assert list(compatibility.moved()) == []


@pytest.mark.parametrize('module', sorted({name.partition('.')[0] for name in NAMES}))
def test_a_module_that_is_gone(module, monkeypatch):
    monkeypatch.setitem(sys.modules, f'{LIBVIRT}.{module}', None)
    found = list(compatibility.moved())
    assert found
    assert all(clause.startswith(f'{LIBVIRT}.{module}.') for clause in found)
    assert {clause.split()[0] for clause in found} == {
        f'{LIBVIRT}.{name}' for name in NAMES if name.startswith(f'{module}.')
    }


def test_a_class_that_is_gone(monkeypatch):
    monkeypatch.delattr(libvirt_driver, 'LibvirtDriver')
    assert all('LibvirtDriver' in clause for clause in compatibility.moved())
    assert len(list(compatibility.moved())) == sum('LibvirtDriver' in name for name in NAMES)


@pytest.mark.parametrize(
    ('name', 'parameter'),
    [
        ('guest.Guest.migrate', 'destination_xml'),
        ('guest.Guest.get_xml_desc', 'dump_inactive'),
        ('guest.Guest.get_xml_desc', 'dump_sensitive'),
        ('driver.LibvirtDriver._create_guest', 'post_xml_callback'),
    ],
)
def test_what_is_used_by_name_is_checked(name, parameter):
    assert parameter in NAMES[name].split()


OURS = (
    driver.QcacheDriver,
    imagebackend.Backend,
    imagebackend.ChainedDisk,
    imagebackend.Qcow2,
    imagecache.ImageCacheManager,
)


def overridden(ours):
    """The names of what a class takes from Nova's."""
    (theirs,) = ours.__bases__
    return {name for name in vars(ours) if callable(getattr(theirs, name, None))}


@pytest.mark.parametrize('ours', OURS)
def test_all_that_is_overridden_is_checked(ours):
    """Whatever the classes here take from Nova by name is looked at."""
    seen = {name.rpartition('.')[2] for name in compatibility._METHODS}
    assert overridden(ours) - seen <= {'__init__'}


PASS_ON = {
    '_create_guest_with_network',
    '_get_existing_domain_xml',
    '_get_guest_xml',
    '_hard_reboot',
    'cache',
}
"""Not of the public interface: what they are given beyond what they need, goes on as it came."""


@pytest.mark.parametrize('ours', OURS)
def test_what_is_overridden_has_the_signature_of_novas(ours):
    for name in overridden(ours) - PASS_ON - {'__init__'}:
        own, theirs = (
            inspect.getfullargspec(getattr(each, name))[:-1] for each in (ours, ours.__bases__[0])
        )
        assert own == theirs, name
