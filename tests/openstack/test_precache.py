# SPDX-License-Identifier: Apache-2.0
"""Nova's API for images that are to be at hand before their first server."""

import hashlib
import pathlib
import uuid

import openstack
import pytest

from tests.openstack import waiting
from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost


@pytest.fixture
def aggregate(cloud: Cloud, host: ComputeHost):
    made = cloud.api.compute.create_aggregate(name='precached')
    cloud.at_end(cloud.api.compute.delete_aggregate, made.id)
    cloud.api.compute.add_host_to_aggregate(made, host.host.name)
    cloud.at_end(cloud.api.compute.remove_host_from_aggregate, made, host.host.name)
    return made


def test_an_image_is_made_ready_for_its_first_server(
    cloud: Cloud, host: ComputeHost, stack, disks: pathlib.Path, aggregate
):
    def precache(image: str) -> str:
        """Return what the conductor says that has come of it."""
        log = stack.log('nova-conductor')
        before = log.stat().st_size
        cloud.api.compute.aggregate_precache_images(aggregate, [image])

        def look() -> str:
            lines = log.read_bytes()[before:].decode(errors='replace').splitlines()
            return next((line for line in lines if 'completed in' in line and image in line), '')

        return waiting.until(look, f'the end of the precaching of {image}')

    image = cloud.upload(disks / 'calm.raw')
    cloud.at_end(host.forget, image)
    cloud.at_end(host.unpin, image)
    assert '1 cached, 0 existing, 0 errors' in precache(image)
    assert _base(host, image).read_bytes() == (disks / 'calm.raw').read_bytes()
    figures = host.image_figures()[image]
    assert figures['is_pinned']
    assert figures['boots'] == 0
    assert '0 cached, 1 existing, 0 errors' in precache(image)

    with pytest.raises(openstack.exceptions.BadRequestException, match='could not be found'):
        precache(str(uuid.uuid4()))
    empty = cloud.api.image.create_image(
        name='empty', disk_format='raw', container_format='bare', allow_duplicates=True
    ).id
    cloud.at_end(cloud.api.image.delete_image, empty)
    assert '0 cached, 0 existing, 1 errors' in precache(empty)
    assert empty not in host.image_figures()
    assert not _base(host, empty).exists()

    server = cloud.boot(image)
    assert host.kind(server) == 'RECORD', 'no look at the base says that it has changed'
    host.seal(image)
    assert '0 cached, 1 existing, 0 errors' in precache(image)
    assert host.kind(cloud.boot(image)) == 'PLAY', 'nor does that'


def _base(host: ComputeHost, image: str) -> pathlib.Path:
    name = hashlib.sha1(image.encode(), usedforsecurity=False).hexdigest()
    return host.host.base_store / name
