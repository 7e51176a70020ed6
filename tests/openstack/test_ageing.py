# SPDX-License-Identifier: Apache-2.0
"""What Nova's image cache manager removes with its own bases, and what Glance says is deleted."""

import pathlib

import pytest

from tests.openstack import waiting
from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost
from tests.openstack.metrics import Metrics
from tests.openstack.metrics import METRICS_FILE

_SOON = {'manager_interval': 2, 'remove_unused_original_minimum_age_seconds': 1}


@pytest.mark.options(
    qcache=METRICS_FILE, image_cache={**_SOON, 'remove_unused_base_images': False}
)
def test_unused_caches_go_as_unused_bases_do(
    cloud: Cloud, host: ComputeHost, configure, metrics: Metrics, ready_calm: str, cold_busy: str
):
    server = cloud.boot(cold_busy)
    host.seal(cold_busy)
    before = host.image_figures()[ready_calm]['evictions'].get('age', 0)
    metrics.wait_for_run()
    assert host.show(ready_calm)['state'] == 'READY'

    configure(qcache=METRICS_FILE, image_cache=_SOON)
    waiting.until(lambda: not host.caches(ready_calm), 'the end of the unused cache')
    waiting.until(
        lambda: host.image_figures()[ready_calm]['evictions'].get('age') == before + 1,
        'its count',
    )
    metrics.wait_for_run()
    assert host.show(cold_busy)['state'] == 'READY', 'its server may be rebooted'
    server.wait_until_booted(boots=1)


@pytest.mark.options(
    qcache={'glance_auth_section': 'service_user', **METRICS_FILE},
    image_cache={'manager_interval': 2},
)
def test_the_cache_of_a_deleted_image_goes_once_glance_says_so(
    cloud: Cloud,
    host: ComputeHost,
    stack,
    metrics: Metrics,
    disks: pathlib.Path,
    ready_calm: str,
):
    image = cloud.upload(disks / 'calm.raw')
    cloud.at_end(host.forget, image)
    server = cloud.boot(image)
    host.seal(image)
    log = len(host.nova_log())
    stack.stop('glance')
    try:
        metrics.wait_for_run()
        metrics.wait_for_run()
    finally:
        stack.start('glance')
    lines = [
        line
        for line in host.nova_log()[log:].splitlines()
        if 'the caches of deleted images' in line
    ]
    warnings = [line.partition('] ')[2] for line in lines if ' WARNING ' in line]
    # A Glance that is ending gives another reason than one that has gone.
    assert ' WARNING ' in lines[0]
    assert len(set(warnings)) == len(warnings), 'the same is said once'
    assert {host.show(each)['state'] for each in (ready_calm, image)} == {'READY'}

    cloud.api.image.delete_image(image)
    metrics.wait_for_run()
    assert host.show(image)['state'] == 'READY', 'it has a server'
    server.delete()
    waiting.until(lambda: not host.caches(image), 'the end of the cache')
    waiting.until(lambda: host.image_figures()[image]['evictions'] == {'deleted': 1}, 'its count')
    assert host.show(ready_calm)['state'] == 'READY'
