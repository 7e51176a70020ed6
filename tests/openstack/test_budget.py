# SPDX-License-Identifier: Apache-2.0
"""A pool with room for one recording: what goes for the next one, and what does not."""

from typing import Any

import pytest

from tests.openstack import waiting
from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost

_MIB = 1024 * 1024
_BUDGET_MIB = 202
"""Room for one quota, and not for a cache beside it."""


@pytest.mark.options(qcache={'cache_budget': f'{_BUDGET_MIB}MiB'})
def test_what_goes_for_a_recording(
    cloud: Cloud, host: ComputeHost, lone_calm: str, cold_busy: str
):
    before = host.figures()
    cloud.at_end(host.unpin, lone_calm)
    assert host.figures()['pool_budget_bytes'] == _BUDGET_MIB * _MIB

    def plain() -> str:
        log = len(host.nova_log())
        server = cloud.boot(cold_busy)
        assert host.kind(server) == 'PLAIN'
        assert host.show(lone_calm)['state'] == 'READY'
        assert not host.caches(cold_busy)
        server.delete()
        return host.nova_log()[log:]

    plays = cloud.boot(lone_calm)
    assert host.kind(plays) == 'PLAY'
    assert 'no cache can be evicted (1 in use)' in plain()
    plays.delete()

    host.qcache('pin', lone_calm)
    assert 'no cache can be evicted (1 pinned)' in plain()

    host.qcache('unpin', lone_calm)
    log = len(host.nova_log())
    records = cloud.boot(cold_busy)
    assert host.kind(records) == 'RECORD'
    assert f'Removed cache {lone_calm}' in host.nova_log()[log:]
    assert not host.caches(lone_calm)

    after = host.figures()
    assert _more(before, after, 'evictions', 'room') == 1
    assert _more(before, after, 'plain', 'no-room') == 2
    assert after['evicted_bytes'] > before['evicted_bytes']
    assert after['pool_recordings'] == 1
    assert after['pool_allocated_bytes'] <= after['pool_budget_bytes']


def test_a_pool_that_is_over_its_budget_at_the_start(
    cloud: Cloud, host: ComputeHost, configure, cold_busy: str
):
    server = cloud.boot(cold_busy)
    waiting.until(lambda: host.show(cold_busy)['cache_bytes'] > 2 * _MIB, 'a recording')
    host.seal(cold_busy)
    log = len(host.nova_log())
    configure(
        qcache={'cache_budget': '1MiB', 'quota': 1, 'min_free': 0},
        image_cache={'manager_interval': 2},
    )

    def warnings() -> list[str]:
        lines = _lines(host.nova_log()[log:], 'exceed their limits by')
        return [line for line in lines if ' WARNING ' in line]

    assert '1 in use' in warnings()[0]
    server.wait_until_booted(boots=1)
    assert host.show(cold_busy)['state'] == 'READY'
    server.delete()
    waiting.until(lambda: not host.caches(cold_busy), 'the end of the cache')
    assert len(warnings()) == 1


def test_budgets_that_make_no_sense(host: ComputeHost, configure):
    for value, why in (('199MiB', 'quota'), ('101%', 'out of range')):
        log = len(host.nova_log())
        configure(qcache={'cache_budget': value})
        (message,) = _lines(host.nova_log()[log:], 'nova-qcache is off')
        assert f'cache_budget = {value}' in message
        assert why in message


def _lines(log: str, words: str) -> list[str]:
    return [line for line in log.splitlines() if words in line]


def _more(before: dict[str, Any], after: dict[str, Any], figure: str, reason: str) -> Any:
    return after[figure].get(reason, 0) - before[figure].get(reason, 0)
