# SPDX-License-Identifier: Apache-2.0
"""The command stats: counters and measurements, as tables, data, metrics and pictures."""

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import pathlib
import socket
from typing import Any

from cliff import lister

from nova_qcache.cmd import inspect
from nova_qcache.cmd import shell
from nova_qcache.reports import plot
from nova_qcache.reports import snapshot as snapshot_module
from nova_qcache.reports.snapshot import ImageSnapshot
from nova_qcache.reports.snapshot import Snapshot
from nova_qcache.reports.time_series import Point
from nova_qcache.stats.counters import Counters

__all__ = ['Stats']

_MIB = 1024 * 1024
_BOOTS = {
    'plays': 'boots: play',
    'records': 'boots: record',
    'audits': 'boots: audit',
    'plain': 'boots: plain',
}
"""Labels of these counters in tables; a recording does not need a boot that records."""

Rows = tuple[tuple[str, ...], list[tuple[Any, ...]]]


class Stats(lister.Lister):
    """Show counters and measurements of each image, or of the host. JSON and YAML have all of
    them, in bytes and seconds; tables have the most useful ones."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        shell.add_long(parser)
        parser.add_argument(
            '--host',
            action='store_true',
            help='show the host instead of each image; --long adds where each value comes from',
        )
        parser.add_argument(
            '--plot',
            type=pathlib.Path,
            metavar='FILE',
            help='also draw a picture of the pool, into a file that ends in .png, .svg or .pdf',
        )
        parser.add_argument(
            '--metrics',
            type=pathlib.Path,
            metavar='FILE',
            help='also write the metrics file for Prometheus, as the periodic run does',
        )
        shell.add_examples(
            parser,
            'stats',
            'stats --long',
            'stats --host -f json',
            'stats --plot /tmp/pool.png',
            'stats --metrics /var/lib/prometheus/node-exporter/nova-qcache.prom',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        manager = shell.manager(self.app, looks_only=True)
        snapshot = manager.snapshot()
        # Imported here: cliff imports all commands for each of them.
        if parsed_args.metrics is not None:
            from nova_qcache.reports import metrics

            metrics.write(snapshot, parsed_args.metrics)
        if parsed_args.plot is not None:
            plot.draw(_picture(snapshot, manager.time_series.points()), parsed_args.plot)
        is_for_program = shell.is_for_program(parsed_args)
        if is_for_program:
            return _host_fields(snapshot) if parsed_args.host else _image_fields(snapshot.images)
        is_long = shell.is_long(parsed_args)
        if parsed_args.host:
            return _host_table(snapshot, is_long=is_long)
        return _image_table(snapshot.images, is_long=is_long)

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: Sequence[str],
        data: Iterable[Sequence[Any]],
    ) -> int:
        if not (parsed_args.host and shell.is_for_program(parsed_args)):
            code: int = super().produce_output(parsed_args, column_names, data)
            return code
        # There is one host: an object, and no list of one.
        wanted, selector = self._generate_columns_and_selector(parsed_args, column_names)
        (values,) = data
        if selector:
            values = list(self._compress_iterable(values, selector))
        formatter: Any = self.formatter  # both of these can show one object, too
        formatter.emit_one(wanted, values, self.app.stdout, parsed_args)
        return 0


def _image_table(images: Iterable[ImageSnapshot], *, is_long: bool) -> Rows:
    columns: tuple[str, ...] = ('Image', 'Pinned', 'Boots', 'Hit %', 'Saved MiB')
    if is_long:
        # The kinds of boots as the metrics have them; recordings need no boot.
        columns += ('Play', 'Record', 'Audit', 'Plain', 'Recordings', 'Base MiB')
        columns += ('State', 'MiB', 'Quota MiB', 'Last use')
    rows = [_image_row(image) for image in images]
    return columns, [tuple(row[column] for column in columns) for row in rows]


def _image_row(image: ImageSnapshot) -> dict[str, Any]:
    counters = image.counters
    ratio = counters.hit_ratio
    return {
        'Image': image.image_id,
        'State': image.state,
        'Pinned': 'yes' if image.is_pinned else '',
        'MiB': round(image.allocated / _MIB, 1),
        'Quota MiB': None if image.quota is None else round(image.quota / _MIB),
        'Boots': counters.boots,
        'Play': counters.plays,
        'Record': counters.records,
        'Audit': counters.audits,
        'Plain': sum(counters.plain.values()),
        'Recordings': counters.recordings,
        'Hit %': None if ratio is None else round(100 * ratio, 2),
        'Saved MiB': round(counters.served_bytes / _MIB, 1),
        'Base MiB': round(counters.base_bytes / _MIB, 1),
        'Last use': _when(counters.last_used_at),
    }


def _image_fields(images: Iterable[ImageSnapshot]) -> Rows:
    rows = [
        {
            'image_id': image.image_id,
            'state': image.state,
            'states': list(image.states),
            'is_pinned': image.is_pinned,
            'allocated_bytes': image.allocated,
            'quota_bytes': image.quota,
            **_counted(image.counters),
        }
        for image in images
    ]
    # Without a row there are no columns, and JSON is an empty list all the same.
    return tuple(rows[0]) if rows else (), [tuple(row.values()) for row in rows]


def _host_fields(snapshot: Snapshot) -> Rows:
    fields = {**_of_host(snapshot), 'sources': snapshot_module.SOURCES}
    return tuple(fields), [tuple(fields.values())]


def _host_table(snapshot: Snapshot, *, is_long: bool) -> Rows:
    columns = ('Figure', 'Value', 'Source') if is_long else ('Figure', 'Value')
    return columns, [row[: len(columns)] for row in _host_rows(snapshot)]


def _host_rows(snapshot: Snapshot) -> Iterator[tuple[Any, ...]]:
    for name, value in _of_host(snapshot).items():
        source = snapshot_module.SOURCES['pool' if name.startswith('pool_') else name]
        said = _BOOTS.get(name) or name.replace('_', ' ')
        if not isinstance(value, Mapping):
            yield said, _shown(name, value), source
            continue
        for reason, count in sorted(value.items()) or [('', 0)]:
            yield f'{said}: {reason}'.removesuffix(': '), _shown(name, count), source


def _of_host(snapshot: Snapshot) -> dict[str, Any]:
    pool = snapshot.pool
    counted = _counted(snapshot.host)
    del counted['boot_bytes']  # of one image it says something
    return {
        'gathered_at': _when(snapshot.at),
        **counted,
        'pool_budget_bytes': pool.budget,
        'pool_allocated_bytes': pool.allocated,
        'pool_reserved_bytes': pool.reserved,
        'pool_min_free_bytes': pool.min_free,
        'pool_free_bytes': pool.free,
        'pool_caches': pool.caches,
        'pool_recordings': pool.recordings,
        'states': dict(snapshot.states),
        'images': len(snapshot.images),
        'pinned_images': sum(image.is_pinned for image in snapshot.images),
        'recorders': dict(snapshot.recorders),
        'guests': snapshot.guests,
    }


def _counted(counters: Counters) -> dict[str, Any]:
    """Return counters and values computed from them, under their names in machine-readable
    output."""
    fields = dataclasses.asdict(counters)
    times = {name: _when(value) for name, value in fields.items() if name.endswith('_at')}
    return {
        **fields,
        **times,
        'hit_ratio': counters.hit_ratio,
        'served_bytes': counters.served_bytes,
        'base_bytes': counters.base_bytes,
    }


def _shown(name: str, value: Any) -> Any:
    """Return a figure for people."""
    if name == 'hit_ratio' and value is not None:
        return f'{value:.2%}'
    if name.endswith('_bytes'):
        return _size(value)
    if name.endswith('_seconds'):
        return f'{value:.1f} s'
    return value


def _size(count: float) -> str:
    unit = 'bytes'
    for bigger in ('KiB', 'MiB', 'GiB', 'TiB'):
        if count < 1024:
            break
        count, unit = count / 1024, bigger
    return f'{count:.0f} {unit}' if unit == 'bytes' else f'{count:.1f} {unit}'


def _when(seconds: float) -> str | None:
    return inspect.when(seconds) if seconds else None


def _picture(snapshot: Snapshot, points: Sequence[Point]) -> plot.Picture:
    host, pool = snapshot.host, snapshot.pool
    ratio = host.hit_ratio
    said = [
        f'pool {_size(pool.allocated)} of {_size(pool.budget)}',
        f'{host.boots:,} boots, {host.plays:,} of them from a cache',
        f'hit ratio of audited boots {ratio:.1%}' if ratio is not None else 'no boot audited yet',
        f'{_size(host.served_bytes)} served by caches',
        f'{_when(snapshot.at)}',
    ]
    title = f'Boot caches of {socket.gethostname()}'
    return plot.Picture(title, '  ·  '.join(said), snapshot.images, points)
