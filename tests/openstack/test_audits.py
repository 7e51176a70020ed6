# SPDX-License-Identifier: Apache-2.0
"""Boots whose misses are measured, and what becomes of a cache that misses much; all of it is in
the figures."""

import pathlib

import pytest

from tests.openstack import waiting
from tests.openstack.cloud import Cloud
from tests.openstack.cloud import Server
from tests.openstack.compute import ComputeHost
from tests.openstack.metrics import growth
from tests.openstack.metrics import Metrics

_LONGEST = {'recording_max_seconds': 30}
"""These guests read from their disk again and again: an audit ends when its time is over."""


def _boot_audited(cloud: Cloud, host: ComputeHost, image: str) -> Server:
    """Boot a server that plays, and with it the next one is audited: return that one."""
    plays = cloud.boot(image)
    assert host.kind(plays) == 'PLAY'

    def is_awaited() -> bool:
        (status,) = host.image_figures()[image]['states'][1:] or ('',)
        return status == 'WARMING'

    waiting.until(is_awaited, 'an audit that waits for its guest', pause=0.5)
    audited = cloud.boot(image)
    assert host.kind(audited) == 'RECORD'
    assert host.chain(audited)[1].endswith('.r2.nbd')
    host.require_stock_surroundings(audited)
    audited.wait_until_booted(boots=1)
    return audited


def _end_audit(host: ComputeHost, image: str) -> None:
    """One that has no guest yet waits for it longer than any test."""
    if len(host.caches(image)) > 1:
        host.forget(image)


def test_an_audit_measures_a_boot_and_changes_nothing(
    cloud: Cloud, host: ComputeHost, configure, metrics: Metrics, ready_calm: str
):
    options = {
        **_LONGEST,
        'audit_every': 1,
        'rerecord_miss_percent': 100,
        'metrics_file': metrics.option,
    }
    cloud.at_end(_end_audit, host, ready_calm)
    configure(qcache=options, image_cache={'manager_interval': 2})
    before, measured = host.image_figures()[ready_calm], metrics.read()
    digest = host.show(ready_calm)['digest']

    audited = _boot_audited(cloud, host, ready_calm)
    waiting.until(lambda: len(host.caches(ready_calm)) == 1, 'the end of the audit', 60, 0.5)
    shown = host.show(ready_calm)
    assert (shown['state'], shown['digest'], shown['revision']) == ('READY', digest, 1)
    audited.wait_until_alive()

    figures = host.image_figures()[ready_calm]
    assert figures['audits'] == before['audits'] + 1
    read = figures['audited_bytes'] - before['audited_bytes']
    missed = figures['missed_bytes'] - before['missed_bytes']
    # Where guests are slow, a recording may have ended before its guest read the last of it.
    assert read > shown['cache_bytes'] / 2
    assert missed < read / 2
    ratio = 1 - figures['missed_bytes'] / figures['audited_bytes']
    assert figures['hit_ratio'] == pytest.approx(ratio)

    after = metrics.read()
    boots = growth(measured, after, 'boots_total')
    assert boots == {'play': 1, 'record': 0, 'audit': 1, 'plain': 0}
    assert after['image_hit_ratio', ready_calm] == pytest.approx(figures['hit_ratio'])
    assert after['caches', 'READY'] >= 1
    assert after['guests',] == 1
    served = after['served_bytes_total',] - measured['served_bytes_total',]
    assert served >= read - missed + before['boot_bytes']


def test_a_cache_that_misses_much_is_recorded_again(
    cloud: Cloud, host: ComputeHost, configure, disks: pathlib.Path
):
    image = cloud.upload(disks / 'calm.raw')
    cloud.at_end(host.forget, image)
    first = cloud.boot(image)
    before = host.seal(image)['cache_bytes']  # in the middle of its boot
    first.wait_until_booted(boots=1)
    configure(qcache={**_LONGEST, 'audit_every': 1, 'rerecord_miss_percent': 1})

    audited = _boot_audited(cloud, host, image)

    waiting.until(
        lambda: host.image_figures()[image]['states'] == ['READY', 'STALE'],
        'the next revision',
        60,
        0.5,
    )
    figures = host.image_figures()[image]
    assert figures['invalidations'] == {'revision': 1}
    assert figures['hit_ratio'] < 0.99
    plays = cloud.boot(image)
    assert host.kind(plays) == 'PLAY'
    path = host.chain(plays)[1]
    assert path.endswith('.r2.qcow2')
    assert host.host.outside(path).stat().st_size > before
    plays.wait_until_booted(boots=1)
    audited.wait_until_alive()


@pytest.mark.long
def test_servers_that_vanish_while_they_are_counted(
    cloud: Cloud, host: ComputeHost, configure, metrics: Metrics, ready_calm: str, cold_busy: str
):
    options = {'audit_every': 1, 'metrics_file': metrics.option}
    configure(qcache=options, image_cache={'manager_interval': 1})
    cloud.at_end(_end_audit, host, ready_calm)
    measured = metrics.read()
    log = len(host.nova_log())
    for _ in range(3):
        servers = [cloud.boot(image, wait='') for image in (ready_calm, cold_busy)]
        for server in servers:
            server.wait_for('ACTIVE').delete(wait=False)
    for server in servers:
        server.wait_until_gone()
    boots = growth(measured, metrics.read(), 'boots_total')
    assert sum(boots.values()) == 6
    # Nova's own part of the periodic run fails where a disk vanishes under it; the next is whole.
    assert ' ERROR nova_qcache' not in host.nova_log()[log:]
