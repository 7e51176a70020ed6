# SPDX-License-Identifier: Apache-2.0
"""Run tests of Nova's own with this project's classes in the place of Nova's::

python -m tests.unit.virt.nova_own_tests TEST...
"""

import sys
import types
from typing import Any

from nova.tests.unit.virt.libvirt import test_imagebackend
from nova.tests.unit.virt.libvirt import test_imagecache
from nova.virt.libvirt import imagebackend
from nova.virt.libvirt import imagecache
from testtools import run

import nova_qcache.virt.imagebackend
import nova_qcache.virt.imagecache
from nova_qcache.virt.planner import Planner


class _Replaced(types.ModuleType):
    """A module of Nova's with other classes, as the tests see it: Nova itself finds the base
    classes by their names."""

    def __init__(self, module: types.ModuleType, **classes: type) -> None:
        super().__init__(module.__name__)
        self.__dict__["_module"] = module
        self.__dict__.update(classes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._module, name, value)  # a test's mock is for Nova's code, too


class _Qcow2(nova_qcache.virt.imagebackend.Qcow2):
    """All that comes before a planner's own work takes part."""

    _planner = Planner()
    _disk_name = "disk"


class _ImageCacheManager(nova_qcache.virt.imagecache.ImageCacheManager):
    def __init__(self) -> None:
        super().__init__(Planner())


def main() -> None:
    test_imagebackend.imagebackend = _Replaced(imagebackend, Qcow2=_Qcow2)
    test_imagecache.imagecache = _Replaced(imagecache, ImageCacheManager=_ImageCacheManager)
    run.main([sys.argv[0], *sys.argv[1:]], sys.stdout)


if __name__ == "__main__":
    main()
