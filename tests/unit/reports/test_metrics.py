# SPDX-License-Identifier: Apache-2.0
"""The metrics file: read back by Prometheus' own parser."""

import os
import pathlib
import re

from prometheus_client import parser
import pytest

from nova_qcache import exception
from nova_qcache.cache.pool import PoolState
from nova_qcache.model.plan import Cause
from nova_qcache.model.states import Phase
from nova_qcache.model.states import Staleness
from nova_qcache.reports import metrics
from nova_qcache.reports.snapshot import ImageSnapshot
from nova_qcache.reports.snapshot import Snapshot
from nova_qcache.stats.counters import Counters
from tests.unit import builders
from tests.unit.builders import IMAGE

DOCUMENT = pathlib.Path(__file__).parents[3] / 'doc/source/admin/statistics.rst'

COUNTERS = builders.counters(
    recorded_bytes=1000,
    audited_bytes=800,
    missed_bytes=200,
    saved_bytes=5000,
    evictions={'room': 2, 'a word to come': 1},
    evicted_bytes=300,
    invalidations={'changed': 1},
)
IMAGES = (ImageSnapshot(IMAGE, COUNTERS, ('READY', 'STALE'), 4096, 8192, is_pinned=True),)
POOL = PoolState(
    budget=1000, min_free=10, allocated=300, free=500, caches=2, recordings=1, reserved=50
)
FIGURES = Snapshot(
    at=1_700_000_000.5,
    host=COUNTERS,
    images=IMAGES,
    pool=POOL,
    recorders={'recording': 1},
    guests=3,
)


def read(text: bytes) -> dict[tuple[str, str], float]:
    """Return the samples by name and labels, as one writes them."""
    found = {}
    for family in parser.text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))
            key = (sample.name.removeprefix('nova_qcache_'), labels)
            assert key not in found
            found[key] = sample.value
    return found


@pytest.fixture
def seen():
    return read(metrics.text(FIGURES))


@pytest.mark.parametrize(
    ('name', 'labels', 'value'),
    [
        ('boots_total', 'kind=play', 9),
        ('boots_total', 'kind=record', 2),
        ('boots_total', 'kind=audit', 1),
        ('boots_total', 'kind=plain', 8),
        ('plain_boots_total', 'cause=no-room', 5),
        ('fallbacks_total', '', 1),
        ('recordings_total', 'result=kept', 2),
        ('recordings_total', 'result=dropped', 4),
        ('recorded_bytes_total', '', 1000),
        ('recording_seconds_total', '', 12.5),
        ('audited_bytes_total', '', 800),
        ('missed_bytes_total', '', 200),
        ('saved_bytes_total', '', 5000),
        ('base_bytes_total', '', 1200),
        ('served_bytes_total', '', 5600),
        ('hit_ratio', '', 0.75),
        ('evictions_total', 'reason=room', 2),
        ('evictions_total', 'reason=a word to come', 1),
        ('evicted_bytes_total', '', 300),
        ('invalidations_total', 'reason=changed', 1),
        ('verifications_total', 'result=equal', 6),
        ('pool_budget_bytes', '', 1000),
        ('pool_min_free_bytes', '', 10),
        ('pool_allocated_bytes', '', 300),
        ('pool_free_bytes', '', 500),
        ('pool_reserved_bytes', '', 50),
        ('caches', 'state=READY', 1),
        ('caches', 'state=STALE', 1),
        ('recorders', 'phase=recording', 1),
        ('guests', '', 3),
        ('images', '', 1),
        ('pinned_images', '', 1),
        ('last_run_timestamp_seconds', '', 1_700_000_000.5),
        ('image_boots_total', f'image={IMAGE},kind=play', 9),
        ('image_served_bytes_total', f'image={IMAGE}', 5600),
        ('image_base_bytes_total', f'image={IMAGE}', 1200),
        ('image_hit_ratio', f'image={IMAGE}', 0.75),
        ('image_allocated_bytes', f'image={IMAGE}', 4096),
    ],
)
def test_values(seen, name, labels, value):
    assert seen[name, labels] == value


@pytest.mark.parametrize(
    ('name', 'label', 'known'),
    [
        ('plain_boots_total', 'cause', Cause),
        ('invalidations_total', 'reason', Staleness),
        ('recorders', 'phase', Phase),
    ],
)
def test_what_did_not_happen_yet_is_zero(name, label, known):
    """A rate sees nothing of a series that begins with 1."""
    nothing = read(metrics.text(Snapshot(0, Counters(), (), POOL)))
    for each in known:
        assert nothing[name, f'{label}={each.value}'] == 0
    assert nothing['evictions_total', 'reason=room'] == 0
    assert nothing['verifications_total', 'result=damaged'] == 0
    assert nothing['caches', 'state=BROKEN'] == 0


def test_a_ratio_of_nothing_is_not_there():
    nothing = read(
        metrics.text(Snapshot(0, Counters(), (ImageSnapshot(IMAGE, Counters()),), POOL))
    )
    assert not [name for name, _ in nothing if name.endswith('hit_ratio')]


def test_only_the_images_with_the_most_boots_have_series():
    images = tuple(
        ImageSnapshot(f'{number:08}{IMAGE[8:]}', Counters(boots=1000 - number))
        for number in range(metrics.MOST_IMAGES + 7)
    )
    samples = read(metrics.text(Snapshot(0, Counters(boots=5), images, POOL)))
    shown = {labels for name, labels in samples if name == 'image_allocated_bytes'}
    assert shown == {f'image={image.image_id}' for image in images[: metrics.MOST_IMAGES]}
    assert samples['images', ''] == metrics.MOST_IMAGES + 7


def test_series_of_an_image_are_as_many_as_is_said():
    """Operators of large fleets count on it."""
    each = [labels for _, labels in read(metrics.text(FIGURES)) if IMAGE in labels]
    assert len(each) == 8
    assert 'eight series' in (metrics.__doc__ or '')


def test_names_are_as_prometheus_wants_them():
    for family in parser.text_string_to_metric_families(metrics.text(FIGURES).decode()):
        assert re.fullmatch(r'nova_qcache_[a-z_]+', family.name)
        if family.type == 'counter':
            assert all(sample.name.endswith('_total') for sample in family.samples)
        else:
            assert family.type == 'gauge'
            assert not family.name.endswith('_total')


def test_help_says_the_source():
    helps = {family.name: family.documentation for family in metrics.families(FIGURES)}
    for name, said in helps.items():
        assert 'Source: ' in said, name
    assert 'only' in helps['nova_qcache_hit_ratio']


def test_every_metric_is_in_the_documentation():
    text = DOCUMENT.read_text()
    names = {
        sample.name
        for family in parser.text_string_to_metric_families(metrics.text(FIGURES).decode())
        for sample in family.samples
    }
    assert sorted(name for name in names if f'``{name}``' not in text) == []
    written = set(re.findall(r'``(nova_qcache_[a-z_]+)``', text))
    assert sorted(written - names) == []


def test_write(tmp_path):
    path = tmp_path / 'nova-qcache.prom'
    path.write_text('old')
    metrics.write(FIGURES, path)
    assert path.read_bytes() == metrics.text(FIGURES)
    assert path.stat().st_mode & 0o777 == 0o644, 'node_exporter has a user of its own'
    assert os.listdir(tmp_path) == [path.name]


def test_a_missing_folder_is_one_error_that_names_the_option(tmp_path):
    path = tmp_path / 'none' / 'nova-qcache.prom'
    with pytest.raises(exception.MetricsUnwritable) as caught:
        metrics.write(FIGURES, path)
    said = str(caught.value)
    assert str(path) in said
    assert '[qcache] metrics_file' in said
    assert 'No such file' in said


def test_a_folder_in_its_place_is_an_error_and_stays(tmp_path):
    path = tmp_path / 'nova-qcache.prom'
    path.mkdir()
    with pytest.raises(exception.MetricsUnwritable):
        metrics.write(FIGURES, path)
    assert os.listdir(tmp_path) == [path.name]
