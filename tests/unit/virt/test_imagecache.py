# SPDX-License-Identifier: Apache-2.0
"""Nova's image cache manager: its periodic work, and what it reports."""

import os
from unittest import mock

from nova import objects
from nova.virt.libvirt import imagecache as stock
import pytest

from nova_qcache.virt import imagecache
from tests.unit.builders import IMAGE
from tests.unit.builders import OTHER_IMAGE


def test_it_is_what_nova_looks_for(planner, nova_conf):
    manager = imagecache.ImageCacheManager(planner)
    assert isinstance(manager, stock.ImageCacheManager)
    assert manager.cache_dir == stock.ImageCacheManager().cache_dir
    assert os.path.dirname(manager.cache_dir) == nova_conf.instances_path


def an_instance(host, image_ref):
    return objects.Instance(host=host, image_ref=image_ref)


def test_the_periodic_work_looks_after_caches_after_novas(planner, nova_conf):
    manager = imagecache.ImageCacheManager(planner)
    instances = [
        an_instance(nova_conf.host, IMAGE),
        an_instance(nova_conf.host, IMAGE),
        an_instance(nova_conf.host, ''),  # its root disk is a volume
        an_instance('another', OTHER_IMAGE),  # whose bases are these, and its caches its own
    ]
    with mock.patch.object(stock.ImageCacheManager, 'update', autospec=True) as novas:
        novas.side_effect = lambda *_: planner.run_maintenance.assert_not_called()
        manager.update('context', instances)
    novas.assert_called_once_with(manager, 'context', instances)
    planner.run_maintenance.assert_called_once_with({IMAGE})


def test_the_periodic_work_of_a_stock_one():
    with mock.patch.object(stock.ImageCacheManager, 'update', autospec=True) as novas:
        imagecache.ImageCacheManager().update('context', [])
    novas.assert_called_once()


# -- what is reported of the disk


@pytest.fixture
def bases(nova_conf, tmp_path):
    """A folder of bases with one of 64 KiB, on the device of the instances."""
    folder = tmp_path / 'instances' / '_base'
    folder.mkdir(parents=True, exist_ok=True)
    nova_conf.set_override('instances_path', str(tmp_path / 'instances'))
    (folder / 'base').write_bytes(b'x' * 65536)
    return folder


def test_caches_are_reported_with_the_bases(planner, bases):
    manager = imagecache.ImageCacheManager(planner)
    planner.disk_usage.return_value = 0
    before = manager.get_disk_usage()
    assert before == stock.ImageCacheManager().get_disk_usage() >= 65536
    planner.disk_usage.return_value = 1_000_000
    assert manager.get_disk_usage() == before + 1_000_000
    planner.disk_usage.assert_called_with(str(bases.parent))


def test_a_stock_one_reports_what_nova_does(bases):
    usage = imagecache.ImageCacheManager().get_disk_usage()
    assert usage == stock.ImageCacheManager().get_disk_usage()
