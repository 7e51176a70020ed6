# SPDX-License-Identifier: Apache-2.0
"""Which boots record: by their number, by the wish of image or flavor, by how many record."""

import pathlib

import pytest

from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost


@pytest.mark.options(qcache={'record_from_boot': 2, 'max_recorders': 1})
def test_who_records(cloud: Cloud, host: ComputeHost, disks: pathlib.Path, cold_busy: str):
    eager = cloud.upload(disks / 'calm.raw', **{'qcache:policy': 'always'})
    usual = cloud.upload(disks / 'calm.raw')
    for image in (eager, usual):
        cloud.at_end(host.forget, image)
    flavor = cloud.api.compute.create_flavor(name='eager', ram=192, vcpus=1, disk=1)
    cloud.at_end(cloud.api.compute.delete_flavor, flavor.id)
    cloud.api.compute.create_flavor_extra_specs(flavor, {'qcache:policy': 'always'})
    log = len(host.nova_log())

    assert host.kind(cloud.boot(eager)) == 'RECORD', 'the image says always'
    assert host.kind(cloud.boot(usual)) == 'PLAIN'
    assert 'it is boot 1 of the image on this host' in host.nova_log()[log:]

    log = len(host.nova_log())
    assert host.kind(cloud.boot(usual)) == 'PLAIN', 'another one is being recorded'
    assert 'max_recorders' in host.nova_log()[log:]
    assert host.kind(cloud.boot(eager)) == 'RECORD', 'it shares the recorder'

    host.seal(eager)
    third = cloud.boot(usual)
    assert host.kind(third) == 'RECORD'
    host.seal(usual)
    assert host.kind(cloud.boot(cold_busy, 'eager')) == 'RECORD', 'the flavor says always'

    figures = host.image_figures()
    assert figures[usual]['plain'] == {'not-yet': 1, 'recorders': 1}
    assert (figures[usual]['boots'], figures[usual]['records']) == (3, 1)
    assert (figures[eager]['boots'], figures[eager]['records']) == (2, 2)
