# SPDX-License-Identifier: Apache-2.0
"""Run tests of Nova's own with this project's classes in the place of Nova's::

python -m tests.unit.virt.nova_own_tests [--stock] [TEST...]

Without a name, all that is about disks: some minutes. ``--stock`` leaves Nova's classes there:
what fails then as well is no matter of this project.
"""

import re
import sys
import types
from typing import Any
import unittest

from nova.tests.unit.virt.libvirt import test_driver
from nova.tests.unit.virt.libvirt import test_imagebackend
from nova.tests.unit.virt.libvirt import test_imagecache
from nova.virt.libvirt import driver
from nova.virt.libvirt import imagebackend
from nova.virt.libvirt import imagecache
import testtools

from nova_qcache.virt.driver import QcacheDriver
import nova_qcache.virt.imagebackend
import nova_qcache.virt.imagecache
from nova_qcache.virt.planner import Planner

_DISKS = re.compile(
    r'backing|cache|create_guest|create_image|disk|existing_domain_xml|finish_migration'
    r'|finish_revert|live_migration_operation|public_api|reboot|rescue|resume|spawn|suspend'
    r'|swap_volume',
    re.IGNORECASE,
)
"""Tests of Nova's driver that meet ours."""


_OTHERWISE = ('test_driver.LibvirtConnTestCase.test_swap_volume',)
"""Ours asks for the guest once more, to make its definition plain."""


class _Replaced(types.ModuleType):
    """A module of Nova's with other classes, as the tests see it: Nova itself finds the base
    classes by their names."""

    def __init__(self, module: types.ModuleType, **classes: type) -> None:
        super().__init__(module.__name__)
        self.__dict__['_module'] = module
        self.__dict__.update(classes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._module, name, value)  # a test's mock is for Nova's code, too


class _Qcow2(nova_qcache.virt.imagebackend.Qcow2):
    """All that comes before a planner's own work takes part."""

    _planner = Planner()
    _disk_name = 'disk'


class _Backend(nova_qcache.virt.imagebackend.Backend):
    def __init__(self, use_cow: bool) -> None:
        super().__init__(use_cow, Planner())
        self.BACKEND |= {
            name: _Qcow2
            for name, backend in self.BACKEND.items()
            if backend is nova_qcache.virt.imagebackend.Qcow2
        }


class _ImageCacheManager(nova_qcache.virt.imagecache.ImageCacheManager):
    def __init__(self) -> None:
        super().__init__(Planner())


def _replace() -> None:
    test_imagebackend.imagebackend = _Replaced(imagebackend, Backend=_Backend, Qcow2=_Qcow2)
    test_imagecache.imagecache = _Replaced(imagecache, ImageCacheManager=_ImageCacheManager)
    test_driver.libvirt_driver = _Replaced(driver, LibvirtDriver=QcacheDriver)


def _about_disks() -> unittest.TestSuite:
    load = unittest.defaultTestLoader.loadTestsFromModule
    found = [load(test_imagebackend), load(test_imagecache)]
    of_the_driver = (
        test
        for test in testtools.iterate_tests(load(test_driver))
        if _DISKS.search(test.id()) and not test.id().endswith(_OTHERWISE)
    )
    return unittest.TestSuite([*found, *of_the_driver])


def main(arguments: list[str]) -> int:
    if '--stock' not in arguments:
        _replace()
    names = [name for name in arguments if name != '--stock']
    by_name = unittest.defaultTestLoader.loadTestsFromNames
    result = unittest.TextTestRunner(sys.stdout, verbosity=1).run(
        by_name(names) if names else _about_disks()
    )
    return int(not result.wasSuccessful())


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
