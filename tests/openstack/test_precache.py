# SPDX-License-Identifier: Apache-2.0
"""Nova's API for images that are to be at hand before their first server."""

import hashlib
import pathlib
import uuid

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

        return waiting.until(look, f'the end of the precaching of {image}', 60, 0.5)

    image = cloud.upload(disks / 'calm.raw')
    cloud.at_end(host.forget, image)
    cloud.at_end(host.unpin, image)
    assert '1 cached, 0 existing, 0 errors' in precache(image)
    base = host.host.base_store / hashlib.sha1(image.encode(), usedforsecurity=False).hexdigest()
    assert base.read_bytes() == (disks / 'calm.raw').read_bytes()
    figures = host.image_figures()[image]
    assert figures['is_pinned']
    assert figures['boots'] == 0
    assert '0 cached, 1 existing, 0 errors' in precache(image)

    unknown = str(uuid.uuid4())
    assert '0 cached, 0 existing, 1 errors' in precache(unknown)
    assert unknown not in host.image_figures()
    name = hashlib.sha1(unknown.encode(), usedforsecurity=False).hexdigest()
    assert not (host.host.base_store / name).exists()

    server = cloud.boot(image)
    assert host.kind(server) == 'RECORD', 'no look at the base says that it has changed'
    server.wait_until_booted(boots=1)
    host.seal(image)
    assert '0 cached, 1 existing, 0 errors' in precache(image)
    assert host.kind(cloud.boot(image)) == 'PLAY', 'nor does that'
