# SPDX-License-Identifier: Apache-2.0
"""The root disk asks for a plan; what is on disk stays Nova's."""

import dataclasses
import hashlib
import json
import subprocess
from unittest import mock

from lxml import etree
from nova.virt.libvirt import config as vconfig
from nova.virt.libvirt import imagebackend as stock
import pytest

from nova_qcache.virt import imagebackend
from tests.unit.builders import IMAGE
from tests.unit.virt import documents

MAPPING = {'bus': 'virtio', 'type': 'disk', 'dev': 'vda', 'boot_index': '1'}


@pytest.fixture
def backend(planner):
    return imagebackend.Backend(True, planner)


@pytest.fixture
def disk(backend, instance, overlay_path):
    """The root disk of the instance; its overlay need not be there."""
    overlay_path.parent.mkdir(parents=True, exist_ok=True)
    return backend.by_name(instance, 'disk', disk_info_mapping=MAPPING)


@pytest.fixture
def stock_disk(instance, overlay):
    return stock.Backend(True).by_name(instance, 'disk', disk_info_mapping=MAPPING)


def xml(disk, *args, **kwargs):
    text: str = disk.libvirt_info('none', {}, *args, **kwargs).to_xml()
    return text


def info(path):
    command = ['qemu-img', 'info', '--output=json', str(path)]
    done = subprocess.run(command, check=True, capture_output=True)
    return json.loads(done.stdout)


# -- Backend


@pytest.mark.parametrize('use_cow', [True, False])
def test_only_qcow2_is_another_one(planner, use_cow):
    ours = imagebackend.Backend(use_cow, planner).BACKEND
    theirs = stock.Backend(use_cow).BACKEND
    assert set(ours) == set(theirs)
    for name, backend in theirs.items():
        if backend is stock.Qcow2:
            assert ours[name] is imagebackend.Qcow2
        else:
            assert ours[name] is backend
    assert ours['qcow2'] is imagebackend.Qcow2
    assert (ours['default'] is imagebackend.Qcow2) is use_cow


def test_stock_nova_is_let_alone(backend):
    assert stock.Backend(True).BACKEND['qcow2'] is stock.Qcow2


def test_it_is_what_nova_looks_for(disk):
    assert isinstance(disk, stock.Qcow2)


def test_each_disk_is_made_with_all_that_nova_says(backend, instance, overlay):
    disk = backend.by_name(instance, 'disk', None, MAPPING)
    assert disk.disk_info_mapping == MAPPING
    assert disk.path == str(overlay)


def test_another_backend_for_one_disk(backend, instance, overlay_path, planner):
    overlay_path.parent.mkdir(parents=True)
    disk = backend.by_name(instance, 'disk.config', 'raw', disk_info_mapping=MAPPING)
    assert type(disk) is stock.Flat
    xml(disk)
    planner.plan.assert_not_called()


def test_a_disk_by_its_path_is_stock(backend, instance, overlay, planner):
    """Nova opens disks so for snapshots, and makes no domain of them."""
    disk = backend.by_libvirt_path(instance, str(overlay), 'qcow2')
    disk.disk_info_mapping = MAPPING
    assert '<backingStore' not in xml(disk)
    assert disk.plan({}) is None
    planner.plan.assert_not_called()


# -- libvirt_info


def test_the_plan_is_asked_for(disk, planner, instance, overlay_path):
    extra_specs = {'qcache:policy': 'always'}
    disk.libvirt_info('none', extra_specs)
    planner.plan.assert_called_once_with(instance, 'disk', str(overlay_path), MAPPING, extra_specs)


def test_the_name_of_the_disk_is_the_one_that_nova_says(backend, instance, overlay, planner):
    xml(backend.by_name(instance, 'disk.rescue', disk_info_mapping=MAPPING))
    assert planner.plan.call_args.args[1] == 'disk.rescue'


def test_without_a_plan_the_xml_is_stock(disk, stock_disk):
    assert xml(disk) == xml(stock_disk)
    assert type(disk.libvirt_info('none', {})) is vconfig.LibvirtConfigGuestDisk


def test_without_a_planner_the_xml_is_stock(instance, stock_disk):
    disk = imagebackend.Qcow2(instance, 'disk', disk_info_mapping=MAPPING)
    assert xml(disk) == xml(stock_disk)


def test_with_a_plan_the_xml_is_stock_and_a_chain(disk, stock_disk, planner, plan):
    planner.plan.return_value = plan
    ours = etree.fromstring(xml(disk))
    assert ours.find('backingStore') is not None
    ours.remove(ours.find('backingStore'))
    ours.find('driver').attrib.pop('rerror_policy', None)
    assert documents.same(etree.tostring(ours), xml(stock_disk))


def test_all_that_nova_asks_of_a_disk_is_in_it(disk, stock_disk, planner, play):
    planner.plan.return_value = play
    specs = {'quota:disk_read_bytes_sec': '10000'}
    made = []
    for one in (disk, stock_disk):
        one.disk_info_mapping = {**MAPPING, 'bus': 'scsi'}
        # by name and by place, as different versions of Nova may call it
        made.append(one.libvirt_info('writeback', specs, '3', disk_unit=4))
        one.libvirt_info(cache_mode='none', extra_specs={}, boot_order='1')
    ours, theirs = made
    assert isinstance(ours, vconfig.LibvirtConfigGuestDisk)
    assert {name: vars(ours)[name] for name in vars(theirs)}.keys() == vars(theirs).keys()
    assert (ours.boot_order, ours.disk_read_bytes_sec) == ('3', '10000')
    assert (ours.driver_cache, ours.device_addr.unit) == ('writeback', 4)


def test_what_nova_sets_afterwards_is_in_it(disk, planner, play):
    planner.plan.return_value = play
    made = disk.libvirt_info('none', {})
    made.serial = 'a serial'
    element = made.format_dom()
    assert element.find('serial').text == 'a serial'
    assert element.find('backingStore') is not None


def test_reconnecting_is_the_planners(disk, planner, record):
    planner.plan.return_value = record
    assert '<reconnect' not in xml(disk)
    planner.reconnect_seconds = 30
    assert '<reconnect delay="30"/>' in xml(disk)


def test_an_error_of_novas_is_novas(disk, planner):
    disk.disk_info_mapping = None
    with pytest.raises(AttributeError, match='disk_info_mapping'):
        disk.libvirt_info('none', {})
    planner.plan.assert_not_called()


def test_a_plan_without_a_mapping_is_possible(disk, planner, play):
    """A soft reboot has none."""
    disk.disk_info_mapping = None
    planner.plan.return_value = play
    assert disk.plan({}) is play
    assert planner.plan.call_args.args[3] == {}


def test_the_overlay_is_never_written(disk, overlay, planner, plan):
    planner.plan.return_value = plan
    before = hashlib.sha256(overlay.read_bytes()).digest()
    times = overlay.stat()
    assert '<backingStore' in xml(disk)
    assert hashlib.sha256(overlay.read_bytes()).digest() == before
    assert overlay.stat().st_mtime_ns == times.st_mtime_ns


def test_a_chain_that_is_no_xml_is_left_out(disk, overlay, planner, stock_disk, play, caplog):
    planner.plan.return_value = dataclasses.replace(play, cache='/caches/\x01.qcow2')
    assert xml(disk) == xml(stock_disk)
    assert f'disk {overlay} boots without a cache' in caplog.text


# -- cache


@pytest.fixture
def happened(events):
    """What happens, in order."""
    update = mock.create_autospec(stock._update_utime_ignore_eacces)
    update.side_effect = lambda path: events.append(('touch', path))
    with mock.patch.object(stock, '_update_utime_ignore_eacces', update):
        yield events


@pytest.fixture
def fetch(happened):
    """Nova's fetching of an image: makes the base."""

    def fetch(target, *args, **kwargs):
        happened.append(('fetch', target, args, kwargs))
        with open(target, 'wb') as file:
            file.truncate(1 << 20)

    return fetch


def test_a_write_is_announced_before_the_first_byte(
    disk, base_path, overlay_path, fetch, happened
):
    base_path.unlink()
    disk.cache(
        fetch, filename=documents.BASE_NAME, size=1 << 21, context='context', image_id=IMAGE
    )
    base = str(base_path)
    assert happened == [
        ('writing', base),
        ('fetch', base, (), {'context': 'context', 'image_id': IMAGE}),
        'written',
        ('touch', base),
    ]
    assert info(overlay_path)['backing-filename'] == base


def test_a_base_that_is_there_is_not_announced(disk, base_path, overlay_path, fetch, happened):
    disk.cache(fetch, documents.BASE_NAME, 1 << 21, context='context', image_id=IMAGE)
    base = str(base_path)
    assert happened == [('touch', base)]
    assert info(overlay_path)['backing-filename'] == base


def test_nothing_happens_when_all_is_there(disk, overlay, base_path, fetch, happened):
    disk.cache(fetch, documents.BASE_NAME, image_id=IMAGE)
    assert happened == []


def test_a_fetch_that_fails_was_announced(disk, base_path, overlay_path, happened):
    base_path.unlink()

    def fetch(target, **kwargs):
        raise ConnectionError('Glance is away')

    with pytest.raises(ConnectionError):
        disk.cache(fetch, documents.BASE_NAME, image_id=IMAGE)
    base = str(base_path)
    assert happened == [('writing', base), 'written']
    assert not overlay_path.exists()


@pytest.mark.parametrize(
    'name',
    [
        'swap_512',
        'ephemeral_1_40d1d2c',
        f'{documents.BASE_NAME}_20',
        documents.BASE_NAME[:-1],
        documents.BASE_NAME.upper(),
    ],
)
def test_what_is_no_image_is_not_announced(disk, base_path, fetch, happened, name):
    disk.cache(fetch, name, size=1 << 21, safe=True)
    other = str(base_path.parent / name)
    assert happened == [('fetch', other, (), {}), ('touch', other)]


def test_without_a_planner_everything_is_stock(instance, base_path, overlay_path, fetch, happened):
    overlay_path.parent.mkdir(parents=True)
    disk = imagebackend.Qcow2(instance, 'disk', disk_info_mapping=MAPPING)
    base_path.unlink()
    disk.cache(fetch, documents.BASE_NAME, size=1 << 21)
    base = str(base_path)
    assert happened == [('fetch', base, (), {}), ('touch', base)]


def test_what_is_made_is_what_stock_nova_makes(
    disk, base_path, overlay_path, fetch, planner, plan
):
    planner.plan.return_value = plan
    disk.cache(fetch, documents.BASE_NAME, size=1 << 21, image_id=IMAGE)
    ours = info(overlay_path)
    overlay_path.unlink()
    other = stock.Qcow2(disk_name='disk', path=str(overlay_path), disk_info_mapping=MAPPING)
    other.cache(fetch, documents.BASE_NAME, size=1 << 21, image_id=IMAGE)
    theirs = info(overlay_path)
    for key in ('backing-filename', 'backing-filename-format', 'format', 'virtual-size'):
        assert ours[key] == theirs[key]


def test_the_safety_check_of_a_base_stays(disk, base_path, overlay_path, fetch):
    """Nova refuses a base that has a base itself."""
    other = base_path.parent / 'other'
    base_path.rename(other)
    create = ['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', str(other)]
    subprocess.run([*create, str(base_path)], check=True)
    with pytest.raises(Exception, match='safety check'):
        disk.cache(fetch, documents.BASE_NAME, image_id=IMAGE)
    assert not overlay_path.exists()
