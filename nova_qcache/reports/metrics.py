# SPDX-License-Identifier: Apache-2.0
"""Metrics in the text format of Prometheus, for the textfile collector of its node_exporter.

Figures of the host have no label for the image, and go on when images are forgotten. Those of
images have names of their own, so that no sum counts anything twice, and are of the images with
the most boots only: each of them is eight series, and fleets have many hosts.
"""

from collections.abc import Iterable, Iterator, Mapping
import os
import pathlib
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from nova_qcache import exception
from nova_qcache.cache.view import BROKEN
from nova_qcache.cache.view import DIRTY
from nova_qcache.model.plan import Cause
from nova_qcache.model.states import Phase
from nova_qcache.model.states import Staleness
from nova_qcache.model.states import State
from nova_qcache.reports import snapshot as snapshot_module
from nova_qcache.reports.snapshot import ImageSnapshot
from nova_qcache.reports.snapshot import Snapshot
from nova_qcache.stats import counters as counters_module
from nova_qcache.stats.counters import Counters
from nova_qcache.system import files

__all__ = ['MOST_IMAGES', 'families', 'text', 'write']

MOST_IMAGES = 100
"""Images that have series of their own."""

_PREFIX = 'nova_qcache'
_MODE = 0o644  # node_exporter has a user of its own
_EVICTIONS = ('age', 'deleted', 'room', 'stale')
_VERIFICATIONS = ('damaged', 'different', 'equal', 'intact', 'unknown')
_STATES = (State.RECORDING.value, State.READY.value, State.STALE.value, DIRTY, BROKEN)


class _Sum(NamedTuple):
    """A sum of the host; ``name`` is an attribute of :class:`Counters`."""

    name: str
    help: str


_SUMS = (
    _Sum(
        'fallbacks', 'Plain boots that failed to start with the cache, and then started without it'
    ),
    _Sum('recorded_bytes', 'Bytes that recordings have read from bases'),
    _Sum('recording_seconds', 'Seconds from the first guest of a recording to its end'),
    _Sum('audited_bytes', 'Bytes that audited boots have read from their images'),
    _Sum('missed_bytes', 'Bytes that audited boots have read from bases'),
    _Sum('saved_bytes', 'Bytes that plays did not read from bases'),
    _Sum('evicted_bytes', 'Bytes that were freed by removing caches'),
)


class _Table(NamedTuple):
    """Counts of the host by a reason; ``field`` is an attribute of :class:`Counters`."""

    name: str
    field: str
    label: str
    known: Iterable[str]
    """Written even while they are zero: a rate needs the step from there."""
    help: str


_TABLES = (
    _Table('plain_boots', 'plain', 'cause', [cause.value for cause in Cause], 'Plain boots'),
    _Table('evictions', 'evictions', 'reason', _EVICTIONS, 'Caches that were removed'),
    _Table(
        'invalidations',
        'invalidations',
        'reason',
        [reason.value for reason in Staleness],
        'Caches that became STALE',
    ),
    _Table('verifications', 'verifications', 'result', _VERIFICATIONS, 'Verifications of caches'),
)


def text(snapshot: Snapshot) -> bytes:
    """Return the content of a metrics file."""
    registry = CollectorRegistry()
    registry.register(_Collected(snapshot))
    return generate_latest(registry)


def write(snapshot: Snapshot, path: pathlib.Path) -> None:
    """Replace a metrics file atomically: readers get the old or the new one.

    :raises MetricsUnwritable: if its folder is missing, or closed to this user
    """
    try:
        files.replace_atomically(path, text(snapshot), _MODE)
    except OSError as e:
        raise exception.MetricsUnwritable(
            path=str(path), reason=f'{e.strerror or e} (user {os.geteuid()})'
        ) from e


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield all metrics, each with its help and samples."""
    yield from _of_boots(snapshot.host)
    yield from _of_bytes(snapshot.host)
    yield from _of_pool(snapshot)
    yield from _of_images(snapshot.images[:MOST_IMAGES])
    yield _gauge(
        'last_run_timestamp_seconds',
        _said('Time of this snapshot, since the epoch', 'gathered_at'),
        snapshot.at,
    )


class _Collected(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        return families(self._snapshot)


def _of_boots(host: Counters) -> Iterator[Metric]:
    yield _counter('boots', _said('Boots by kind', 'boots'), _boots(host), 'kind')
    yield _counter(
        'recordings',
        _said('Recordings by result', 'recordings'),
        {'kept': host.recordings, 'dropped': host.dropped_recordings},
        'result',
    )
    for name, field, label, known, help_text in _TABLES:
        counted: Mapping[str, int] = getattr(host, field)
        values = {**dict.fromkeys(known, 0), **counted}
        yield _counter(name, _said(f'{help_text} by {label}', field), values, label)


def _of_bytes(host: Counters) -> Iterator[Metric]:
    for name, help_text in _SUMS:
        yield _counter(name, _said(help_text, name), getattr(host, name))
    yield _counter(
        'base_bytes',
        _said('Measured bytes that were read from bases', 'base_bytes'),
        snapshot_module.base_bytes(host),
    )
    yield _counter(
        'served_bytes',
        _said('Bytes that were read from caches instead of bases', 'served_bytes'),
        snapshot_module.served_bytes(host),
    )
    ratio = counters_module.hit_ratio(host)
    if ratio is not None:
        yield _gauge('hit_ratio', _said('Share of reads that caches served', 'hit_ratio'), ratio)


def _of_pool(snapshot: Snapshot) -> Iterator[Metric]:
    pool = snapshot.pool
    for name, help_text, value in (
        ('budget', 'Maximum size of all caches', pool.budget),
        ('min_free', 'Space to leave free on the file system', pool.min_free),
        ('allocated', 'Size of all caches, reservations of recordings included', pool.allocated),
        ('free', 'Free space on the file system', pool.free),
        ('reserved', 'Space that recordings may still take', pool.reserved),
    ):
        yield _gauge(f'pool_{name}_bytes', _said(help_text, 'pool'), value)
    states = {**dict.fromkeys(_STATES, 0), **snapshot.states}
    yield _gauge('caches', _said('Caches by state', 'states'), states, 'state')
    phases = {**dict.fromkeys((phase.value for phase in Phase), 0), **snapshot.recorders}
    yield _gauge('recorders', _said('Recorders by phase', 'recorders'), phases, 'phase')
    yield _gauge('guests', _said('Guests that read through recorders', 'guests'), snapshot.guests)
    known = _said('Images with a cache, counters or a pin', 'images')
    yield _gauge('images', known, len(snapshot.images))
    pinned = sum(image.is_pinned for image in snapshot.images)
    yield _gauge('pinned_images', _said('Pinned images', 'pinned_images'), pinned)


def _of_images(images: Iterable[ImageSnapshot]) -> Iterator[Metric]:
    of_most = f'of the {MOST_IMAGES} images with the most boots'
    boots = CounterMetricFamily(
        f'{_PREFIX}_image_boots',
        _said(f'Boots by kind, {of_most}', 'boots'),
        labels=('image', 'kind'),
    )
    values: dict[str, dict[str, float]] = {
        'served_bytes': {},
        'base_bytes': {},
        'hit_ratio': {},
        'allocated_bytes': {},
    }
    for image in images:
        counters = image.counters
        for kind, count in _boots(counters).items():
            boots.add_metric((image.image_id, kind), count)
        values['served_bytes'][image.image_id] = snapshot_module.served_bytes(counters)
        values['base_bytes'][image.image_id] = snapshot_module.base_bytes(counters)
        values['allocated_bytes'][image.image_id] = image.allocated
        ratio = counters_module.hit_ratio(counters)
        if ratio is not None:
            values['hit_ratio'][image.image_id] = ratio
    yield boots
    for make, name, help_text in (
        (_counter, 'served_bytes', 'Bytes that were read from the cache instead of the base'),
        (_counter, 'base_bytes', 'Measured bytes that were read from the base'),
        (_gauge, 'hit_ratio', 'Share of reads that the cache served'),
        (_gauge, 'allocated_bytes', 'Size of the caches of the image'),
    ):
        help_text = _said(f'{help_text}, {of_most}', name)
        yield make(f'image_{name}', help_text, values[name], 'image')


def _boots(counters: Counters) -> dict[str, int]:
    return {
        'play': counters.plays,
        'record': counters.records,
        'audit': counters.audits,
        'plain': sum(counters.plain.values()),
    }


def _said(help_text: str, figure: str) -> str:
    return f'{help_text}. Source: {snapshot_module.SOURCES[figure]}.'


def _counter(
    name: str, help_text: str, value: float | Mapping[str, float], label: str = ''
) -> Metric:
    return _filled(CounterMetricFamily, name, help_text, value, label)


def _gauge(
    name: str, help_text: str, value: float | Mapping[str, float], label: str = ''
) -> Metric:
    return _filled(GaugeMetricFamily, name, help_text, value, label)


def _filled(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    help_text: str,
    value: float | Mapping[str, float],
    label: str,
) -> Metric:
    """:param value: by the values of the label, or one without a label"""
    family = kind(f'{_PREFIX}_{name}', help_text, labels=(label,) if label else ())
    samples = value.items() if isinstance(value, Mapping) else [('', value)]
    for labelled, number in samples:
        family.add_metric((labelled,) if label else (), number)
    return family
