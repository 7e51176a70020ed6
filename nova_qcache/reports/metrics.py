# SPDX-License-Identifier: Apache-2.0
"""Metrics in the text format of Prometheus, for the textfile collector of its node_exporter.

Figures of the host have no label for the image, and go on when images are forgotten. Those of
images have names of their own, so that no sum counts anything twice, and are of the images with
the most boots only: each of them is eight series, and fleets have many hosts.
"""

from collections.abc import Iterator, Mapping, Sequence
import functools
import os
import pathlib
from typing import Any

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
from nova_qcache.reports.snapshot import ImageSnapshot
from nova_qcache.reports.snapshot import Snapshot
from nova_qcache.reports.snapshot import SOURCES
from nova_qcache.stats.counters import Counters
from nova_qcache.system import files

__all__ = ['MOST_IMAGES', 'families', 'text', 'write']

MOST_IMAGES = 100
"""Images that have series of their own."""

_PREFIX = 'nova_qcache'
_MODE = 0o644  # node_exporter has a user of its own
_KNOWN = {
    'plain': [cause.value for cause in Cause],
    'evictions': ['age', 'deleted', 'room', 'stale'],
    'invalidations': [reason.value for reason in Staleness],
    'verifications': ['damaged', 'different', 'equal', 'intact', 'unknown'],
    'states': [State.RECORDING.value, State.READY.value, State.STALE.value, DIRTY, BROKEN],
    'recorders': [phase.value for phase in Phase],
}
"""Values of labels that are written even while they are zero: a rate needs the step from there."""

_SUMS = {
    'fallbacks': 'Plain boots that failed to start with the cache, and then started without it',
    'recorded_bytes': 'Bytes that recordings have read from bases',
    'recording_seconds': 'Seconds from the first guest of a recording to its end',
    'audited_bytes': 'Bytes that audited boots have read from their images',
    'missed_bytes': 'Bytes that audited boots have read from bases',
    'saved_bytes': 'Bytes that plays did not read from bases',
    'evicted_bytes': 'Bytes that were freed by removing caches',
    'base_bytes': 'Measured bytes that were read from bases',
    'served_bytes': 'Bytes that were read from caches instead of bases',
}
"""Help of the sums of the host, by attributes of :class:`Counters`."""


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
    help_text = 'Time of this snapshot, since the epoch'
    yield _gauge('last_run_timestamp_seconds', help_text, 'gathered_at', snapshot.at)


class _Collected(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        return families(self._snapshot)


def _of_boots(host: Counters) -> Iterator[Metric]:
    yield _counter('boots', 'Boots by kind', 'boots', _boots(host), 'kind')
    recordings = {'kept': host.recordings, 'dropped': host.dropped_recordings}
    yield _counter('recordings', 'Recordings by result', 'recordings', recordings, 'result')
    for name, field, label, help_text in (
        ('plain_boots', 'plain', 'cause', 'Plain boots'),
        ('evictions', 'evictions', 'reason', 'Caches that were removed'),
        ('invalidations', 'invalidations', 'reason', 'Caches that became STALE'),
        ('verifications', 'verifications', 'result', 'Verifications of caches'),
    ):
        values = {**dict.fromkeys(_KNOWN[field], 0), **getattr(host, field)}
        yield _counter(name, f'{help_text} by {label}', field, values, label)


def _of_bytes(host: Counters) -> Iterator[Metric]:
    for name, help_text in _SUMS.items():
        yield _counter(name, help_text, name, getattr(host, name))
    if host.hit_ratio is not None:
        help_text = 'Share of reads that caches served'
        yield _gauge('hit_ratio', help_text, 'hit_ratio', host.hit_ratio)


def _of_pool(snapshot: Snapshot) -> Iterator[Metric]:
    pool = snapshot.pool
    for name, help_text, value in (
        ('budget', 'Maximum size of all caches', pool.budget),
        ('min_free', 'Space to leave free on the file system', pool.min_free),
        ('allocated', 'Size of all caches, reservations of recordings included', pool.allocated),
        ('free', 'Free space on the file system', pool.free),
        ('reserved', 'Space that recordings may still take', pool.reserved),
    ):
        yield _gauge(f'pool_{name}_bytes', help_text, 'pool', value)
    states = {**dict.fromkeys(_KNOWN['states'], 0), **snapshot.states}
    yield _gauge('caches', 'Caches by state', 'states', states, 'state')
    phases = {**dict.fromkeys(_KNOWN['recorders'], 0), **snapshot.recorders}
    yield _gauge('recorders', 'Recorders by phase', 'recorders', phases, 'phase')
    yield _gauge('guests', 'Guests that read through recorders', 'guests', snapshot.guests)
    known = 'Images with a cache, counters or a pin'
    yield _gauge('images', known, 'images', len(snapshot.images))
    pinned = sum(image.is_pinned for image in snapshot.images)
    yield _gauge('pinned_images', 'Pinned images', 'pinned_images', pinned)


def _of_images(images: Sequence[ImageSnapshot]) -> Iterator[Metric]:
    of_most = f'of the {MOST_IMAGES} images with the most boots'
    boots = {
        (image.image_id, kind): count
        for image in images
        for kind, count in _boots(image.counters).items()
    }
    yield _counter('image_boots', f'Boots by kind, {of_most}', 'boots', boots, 'image', 'kind')
    for make, name, help_text in (
        (_counter, 'served_bytes', 'Bytes that were read from the cache instead of the base'),
        (_counter, 'base_bytes', 'Measured bytes that were read from the base'),
        (_gauge, 'hit_ratio', 'Share of reads that the cache served'),
    ):
        values = {image.image_id: getattr(image.counters, name) for image in images}
        yield make(f'image_{name}', f'{help_text}, {of_most}', name, values, 'image')
    help_text = f'Size of the caches of the image, {of_most}'
    allocated = {image.image_id: image.allocated for image in images}
    yield _gauge('image_allocated_bytes', help_text, 'allocated_bytes', allocated, 'image')


def _boots(counters: Counters) -> dict[str, int]:
    return {
        'play': counters.plays,
        'record': counters.records,
        'audit': counters.audits,
        'plain': sum(counters.plain.values()),
    }


def _filled(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    help_text: str,
    figure: str,
    value: float | Mapping[Any, float | None],
    *labels: str,
) -> Metric:
    """:param figure: the one whose source the help names
    :param value: by the value of the label, or by those of all, None if there is none; or one
        without labels
    """
    said = f'{help_text}. Source: {SOURCES[figure]}.'
    family = kind(f'{_PREFIX}_{name}', said, labels=labels)
    for key, number in (value if isinstance(value, Mapping) else {(): value}).items():
        if number is not None:
            family.add_metric((key,) if isinstance(key, str) else key, number)
    return family


_counter = functools.partial(_filled, CounterMetricFamily)
_gauge = functools.partial(_filled, GaugeMetricFamily)
