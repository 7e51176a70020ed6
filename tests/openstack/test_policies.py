# SPDX-License-Identifier: Apache-2.0
"""What may not be cached boots plain, and the log says why."""

import pathlib

import pytest

from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost


def test_an_image_that_says_never(cloud: Cloud, host: ComputeHost, disks: pathlib.Path):
    image = cloud.upload(disks / 'calm.raw', **{'qcache:policy': 'never'})
    server = cloud.boot(image)
    assert host.kind(server) == 'PLAIN'
    assert host.show(image) == {}
    assert 'the image property qcache:policy says never' in host.nova_log()


def test_a_flavor_that_says_never(cloud: Cloud, host: ComputeHost, ready_calm: str):
    flavor = cloud.api.compute.create_flavor(name='no-cache', ram=192, vcpus=1, disk=1)
    cloud.at_end(cloud.api.compute.delete_flavor, flavor.id)
    cloud.api.compute.create_flavor_extra_specs(flavor, {'qcache:policy': 'never'})
    server = cloud.boot(ready_calm, 'no-cache')
    assert host.kind(server) == 'PLAIN'
    assert 'the flavor extra spec qcache:policy says never' in host.nova_log()
    with pytest.raises(Exception, match='not one of: auto, always, never'):
        cloud.api.compute.create_flavor_extra_specs(flavor, {'qcache:policy': 'sometimes'})


def test_a_config_drive_and_other_disks_are_not_cached(
    cloud: Cloud, host: ComputeHost, ready_calm: str
):
    flavor = cloud.api.compute.create_flavor(
        name='many-disks', ram=192, vcpus=1, disk=1, ephemeral=1, swap=64
    )
    cloud.at_end(cloud.api.compute.delete_flavor, flavor.id)
    server = cloud.boot(ready_calm, 'many-disks', config_drive=True)
    xml = host.live_xml(server)
    assert xml.count(host.host.cache_path) == 1
    assert host.kind(server) == 'PLAY'
    server.wait_until_booted()


@pytest.mark.options(DEFAULT={'force_raw_images': False})
def test_a_qcow2_image_is_cached_as_such(
    cloud: Cloud, host: ComputeHost, stack, disks: pathlib.Path, tmp_path: pathlib.Path
):
    stack.exec(
        ['qemu-img', 'convert', '-O', 'qcow2', str(disks / 'calm.raw'), f'{tmp_path}/calm.qcow2']
    )
    image = cloud.upload(tmp_path / 'calm.qcow2', 'qcow2')
    cloud.at_end(host.forget, image)
    first = cloud.boot(image)
    assert host.kind(first) == 'RECORD'
    first.wait_until_booted(boots=1)
    host.seal(image)
    second = cloud.boot(image)
    assert host.kind(second) == 'PLAY'
    second.wait_until_booted(boots=1)
