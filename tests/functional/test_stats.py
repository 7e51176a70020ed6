# SPDX-License-Identifier: Apache-2.0
"""What an operator sees of real boots: nova-qcache stats, the metrics file, the picture."""

import json
import os
import pathlib
import re
import subprocess
import sysconfig
from typing import Any

from prometheus_client import parser
import pytest

from tests.functional import users
from tests.functional.guests import NbdGuest
from tests.functional.site import MIB
from tests.functional.site import Site


def _tend(site: Site) -> 'subprocess.CompletedProcess[str]':
    """Do what Nova's image cache manager does now and then."""
    return site.manage('manager.maintenance.run([], None)')


def _samples(path: pathlib.Path) -> dict[str, float]:
    """Return the samples of a metrics file as one writes them, without the common prefix."""
    found = {}
    for family in parser.text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            labels = ','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))
            name = sample.name.removeprefix('nova_qcache_')
            found[f'{name}{{{labels}}}' if labels else name] = sample.value
    return found


@pytest.fixture
def boots(site: Site, base: pathlib.Path) -> dict[str, Any]:
    """One boot that recorded 8 MiB and two that play them; returns what is said of the image."""
    plan = site.boot_plan(base)
    assert plan['kind'] == 'RECORD', plan
    with NbdGuest(site, {**plan, 'export': 'top'}) as guest:
        guest.require(base, 0, 8 * MIB)
        site.ask('seal', site.image_id, '--wait')
    site.see_off()
    assert [site.boot_plan(base)['kind'] for _ in range(2)] == ['PLAY', 'PLAY']
    (row,) = site.ask('stats')
    assert isinstance(row, dict)
    return row


@pytest.mark.core
def test_stats_of_an_image(site: Site, boots: dict[str, Any]) -> None:
    assert boots['image_id'] == site.image_id
    assert (boots['state'], boots['states'], boots['is_pinned']) == ('READY', ['READY'], False)
    assert (boots['boots'], boots['plays'], boots['records']) == (3, 2, 1)
    assert (boots['plain'], boots['recordings'], boots['audits']) == ({}, 1, 0)
    assert 8 * MIB <= boots['recorded_bytes'] < 9 * MIB
    assert boots['base_bytes'] == boots['recorded_bytes']
    assert 8 * MIB <= boots['boot_bytes'] < 9 * MIB
    assert boots['saved_bytes'] == boots['served_bytes'] == 2 * boots['boot_bytes']
    assert boots['recording_seconds'] > 0
    assert boots['hit_ratio'] is None
    assert boots['quota_bytes'] == 64 * MIB
    facts = pathlib.Path(site.show()['path']).stat()
    assert boots['allocated_bytes'] == facts.st_blocks * 512
    table = site.qcache('stats', '--long')
    assert (table.returncode, table.stderr) == (0, '')
    assert re.search(rf'\| {site.image_id} \| .*\| READY ', table.stdout)


def test_stats_of_the_host(site: Site, boots: dict[str, Any]) -> None:
    host = site.ask('stats', '--host')
    assert (host['boots'], host['plays'], host['images']) == (3, 2, 1)
    assert host['pool_allocated_bytes'] == boots['allocated_bytes']
    assert host['pool_budget_bytes'] > 0
    assert host['pool_free_bytes'] > 0
    assert (host['states'], host['recorders'], host['guests']) == ({'READY': 1}, {}, 0)
    site.ask('pin', site.image_id)
    site.ask('verify', site.image_id)
    site.ask('invalidate', site.image_id, warnings=1)
    host = site.ask('stats', '--host')
    assert host['verifications'] == {'equal': 1}
    assert host['invalidations'] == {'operator': 1}
    assert (host['pinned_images'], host['states']) == (1, {'STALE': 1})
    table = site.qcache('stats', '--host', '--long')
    assert 'starts of domains' in table.stdout


def test_figures_outlive_the_cache(site: Site, boots: dict[str, Any]) -> None:
    site.ask('remove', site.image_id)
    (row,) = site.ask('stats')
    assert (row['state'], row['allocated_bytes'], row['quota_bytes']) == ('COLD', 0, None)
    assert (row['boots'], row['saved_bytes']) == (3, boots['saved_bytes'])


def test_a_row_can_be_dropped(site: Site, boots: dict[str, Any]) -> None:
    site.ask('remove', site.image_id, '--forget')
    assert site.ask('stats') == []
    assert site.ask('remove', site.image_id, '--forget') == []
    host = site.ask('stats', '--host')
    assert (host['boots'], host['saved_bytes']) == (3, boots['saved_bytes'])


def test_a_recorder_at_work(site: Site, base: pathlib.Path) -> None:
    with NbdGuest(site, site.record(base)) as guest:
        guest.require(base, 0, MIB)
        host = site.ask('stats', '--host')
        assert (host['recorders'], host['guests']) == ({'recording': 1}, 1)
        assert host['states'] == {'RECORDING': 1}
        assert host['pool_recordings'] == 1


def test_the_periodic_run_writes_metrics_and_history(site: Site, boots: dict[str, Any]) -> None:
    folder = site.make_folder('textfiles')
    path = folder / 'nova-qcache.prom'
    site.configure(metrics_file=path)
    _tend(site)
    samples = _samples(path)
    assert samples['boots_total{kind=play}'] == 2
    assert samples['boots_total{kind=record}'] == 1
    assert samples['served_bytes_total'] == boots['served_bytes']
    assert samples['pool_allocated_bytes'] == boots['allocated_bytes']
    assert samples[f'image_boots_total{{image={site.image_id},kind=play}}'] == 2
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(folder) == [path.name]
    before = samples['last_run_timestamp_seconds']
    _tend(site)
    assert _samples(path)['last_run_timestamp_seconds'] > before
    history = json.loads((site.cache_path / 'statistics' / 'history.json').read_text())
    assert [point[1] for point in history['points']] == [boots['served_bytes']] * 2


def test_a_metrics_file_that_cannot_be_written(site: Site, boots: dict[str, Any]) -> None:
    path = site.folder / 'none' / 'nova-qcache.prom'
    site.configure(metrics_file=path)
    done = _tend(site)  # goes on all the same
    (line,) = done.stderr.splitlines()
    assert '[qcache] metrics_file' in line
    done = site.qcache('stats', f'--metrics={path}')
    assert (done.returncode, done.stdout) == (1, ''), done
    (line,) = done.stderr.splitlines()
    assert str(path) in line


@pytest.fixture
def matplotlib(site: Site) -> None:
    """See to it that the product has the extra "plot": a copy of it has no extras."""
    path = site.product.environment.get('PYTHONPATH')
    if path is not None:
        packages = site.make_folder('packages')
        site.mount(packages, '--bind', sysconfig.get_path('platlib'))
        site.environment['PYTHONPATH'] = f'{path}:{packages}'


@pytest.mark.usefixtures('matplotlib')
def test_a_picture(site: Site, boots: dict[str, Any]) -> None:
    folder = site.make_folder('pictures')
    _tend(site)
    _tend(site)
    path = folder / 'pool.png'
    (row,) = site.ask('stats', f'--plot={path}')
    assert row['boots'] == 3
    assert path.read_bytes().startswith(b'\x89PNG\r\n')
    assert path.stat().st_uid == users.PRODUCT.uid
    site.ask('stats', f'--plot={folder / "pool.svg"}')
    text = (folder / 'pool.svg').read_text()
    assert f'{site.image_id}  3 boots' in text
    assert 'served by caches' in text


@pytest.mark.usefixtures('matplotlib')
def test_root_is_told_whose_right_is_missing(site: Site, boots: dict[str, Any]) -> None:
    folder = site.folder / 'of root'
    folder.mkdir(mode=0o700)
    command = site.command('stats', f'--plot={folder / "pool.png"}')
    done = site.run(command, users.ROOT)
    assert (done.returncode, done.stdout) == (1, ''), done
    (line,) = done.stderr.splitlines()
    assert f'Permission denied (user {users.PRODUCT.uid})' in line
    assert 'root acts as' in line
