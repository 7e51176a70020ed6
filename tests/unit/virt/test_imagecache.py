# SPDX-License-Identifier: Apache-2.0
"""Nova's image cache manager touches bases only between our two looks."""

import os
from unittest import mock

import nova.privsep.path
from nova.virt.libvirt import imagecache as stock
import pytest

from nova_qcache.virt import imagecache
from tests.unit.builders import IMAGE


@pytest.fixture
def happened(events):
    with mock.patch.object(nova.privsep.path, 'utime', autospec=True) as utime:
        utime.side_effect = lambda path: events.append(('touch', path))
        yield events


def used(manager):
    """Let it think that one instance of this host uses the image."""
    manager.used_images = {IMAGE: (1, 0, ['instance-00000001'])}


def test_a_touch_is_inside(planner, happened, base_path):
    manager = imagecache.ImageCacheManager(planner)
    used(manager)
    manager._mark_in_use(IMAGE, str(base_path))
    base = str(base_path)
    assert happened == [('touching', base), ('touch', base), 'touched']
    assert manager.active_base_files == [base]


def test_each_use_that_nova_finds(planner, happened, base_path):
    manager = imagecache.ImageCacheManager(planner)
    used(manager)
    manager._age_and_verify_cached_images(None, [], str(base_path.parent))
    base = str(base_path)
    assert happened == [('touching', base), ('touch', base), 'touched']


def test_an_error_of_novas_is_novas(planner, happened, base_path):
    manager = imagecache.ImageCacheManager(planner)
    used(manager)
    with (
        mock.patch.object(
            stock.ImageCacheManager, '_mark_in_use', autospec=True, side_effect=OSError
        ),
        pytest.raises(OSError),
    ):
        manager._mark_in_use(IMAGE, str(base_path))


def test_without_a_planner_it_is_stock(base_path, happened):
    manager = imagecache.ImageCacheManager()
    used(manager)
    manager._mark_in_use(IMAGE, str(base_path))
    assert happened == [('touch', str(base_path))]


def test_it_is_what_nova_looks_for(planner, nova_conf):
    manager = imagecache.ImageCacheManager(planner)
    assert isinstance(manager, stock.ImageCacheManager)
    assert manager.cache_dir == stock.ImageCacheManager().cache_dir
    assert os.path.dirname(manager.cache_dir) == nova_conf.instances_path


def test_the_periodic_work_reads_caches_after_novas(planner):
    manager = imagecache.ImageCacheManager(planner)
    with mock.patch.object(stock.ImageCacheManager, 'update', autospec=True) as novas:
        novas.side_effect = lambda *_: planner.scrub.assert_not_called()
        manager.update('context', [])
    novas.assert_called_once_with(manager, 'context', [])
    planner.scrub.assert_called_once_with()


def test_the_periodic_work_of_a_stock_one():
    with mock.patch.object(stock.ImageCacheManager, 'update', autospec=True) as novas:
        imagecache.ImageCacheManager().update('context', [])
    novas.assert_called_once()
