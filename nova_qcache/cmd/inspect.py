# SPDX-License-Identifier: Apache-2.0
"""Commands that only read: list, show."""

import argparse
from collections.abc import Collection
import datetime
from typing import Any

from cliff import lister
from cliff import show

from nova_qcache import exception
from nova_qcache.cache.view import CacheView
from nova_qcache.cmd import shell
from nova_qcache.model.states import State

__all__ = ['FIELDS', 'List', 'Show', 'fields', 'one', 'when']

_MIB = 1024 * 1024

FIELDS = (
    *('image_id', 'generation', 'revision', 'state', 'note', 'is_pinned', 'path'),
    *('cache_bytes', 'allocated_bytes', 'quota_bytes', 'cluster_size', 'extended_l2'),
    *('virtual_size', 'base', 'base_format', 'created_at', 'sealed_at', 'digest'),
    *('phase', 'guests', 'recorder_pid', 'daemon_pid'),
)
"""Fields of a cache in machine-readable output, whatever its state."""


class List(lister.Lister):
    """List the caches of this host."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        shell.add_long(parser)
        shell.add_examples(parser, 'list', 'list --long', 'list -f json', 'list -f value -c Base')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> shell.Rows:
        manager = shell.manager(self.app, looks_only=True)
        caches = [fields(view, manager.pins.all()) for view in manager.caches()]
        if shell.is_for_program(parsed_args):
            return FIELDS, [tuple(cache.values()) for cache in caches]
        columns: tuple[str, ...] = ('Image', 'State', 'Pinned', 'MiB', 'Guests')
        if shell.is_long(parsed_args):
            columns += ('Generation', 'Revision', 'Quota MiB', 'Base', 'Note')
        rows = [_row(cache) for cache in caches]
        return columns, [tuple(row[column] for column in columns) for row in rows]


def _row(cache: dict[str, Any]) -> dict[str, Any]:
    """Return what people see of a cache."""
    quota, mib = cache['quota_bytes'], cache['allocated_bytes'] / _MIB
    return {
        'Image': cache['image_id'],
        'State': cache['state'],
        'Pinned': 'yes' if cache['is_pinned'] else '',
        'MiB': round(mib, 1 if mib < 1000 else None),  # a terminal has 80 columns
        'Guests': cache['guests'],
        'Generation': cache['generation'],
        'Revision': cache['revision'],
        'Quota MiB': None if quota is None else round(quota / _MIB),
        'Base': cache['base'],
        'Note': cache['note'],
    }


class Show(show.ShowOne):
    """Show the newest cache of an image."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('image_id', metavar='IMAGE', help='UUID of the image')
        return shell.add_examples(parser, 'show IMAGE', 'show -f value -c state IMAGE')

    def take_action(self, parsed_args: argparse.Namespace) -> shell.Fields:
        manager = shell.manager(self.app, looks_only=True)
        views = manager.caches(parsed_args.image_id)
        if not views:
            raise exception.CacheNotFound(image_id=parsed_args.image_id)
        # A recorder that serves on, of a recording that was dropped, is no cache.
        there = [view for view in views if view.state != State.COLD.value] or views
        return one(parsed_args, fields(there[-1], manager.pins.all()))


def fields(view: CacheView, pinned: Collection[str]) -> dict[str, Any]:
    """Return all that is known of a cache under the names that ``-f json`` prints, which are
    always all of :data:`FIELDS`.

    :param pinned: the images that are
    """
    known: dict[str, Any] = {
        'image_id': view.key.image_id,
        'generation': str(view.key.generation),
        'revision': view.key.revision,
        'state': view.state,
        'note': view.note,
        'is_pinned': view.key.image_id in pinned,
        'path': str(view.path),
        'cache_bytes': view.length,
        'allocated_bytes': view.allocated,
        'guests': view.guests,
    }
    if view.record is not None:
        record = view.record
        known |= {
            'quota_bytes': record.quota,
            'cluster_size': record.cluster_size,
            'extended_l2': record.extended_l2,
            'virtual_size': record.virtual_size,
            'base': record.base,
            'base_format': record.base_format,
            'created_at': when(record.created_at),
        }
        if record.sealed is not None:
            known |= {'sealed_at': when(record.sealed.sealed_at), 'digest': record.sealed.digest}
    if view.recorder is not None:
        known |= {
            'phase': view.recorder.phase.value,
            'recorder_pid': view.recorder.pid,
            'daemon_pid': view.recorder.daemon_pid,
        }
    return dict.fromkeys(FIELDS) | known


def one(parsed_args: argparse.Namespace, known: dict[str, Any]) -> shell.Fields:
    """Return the fields of one object for output: all of them for programs, those with a value for
    people."""
    if parsed_args.formatter == 'table' and not parsed_args.columns:
        known = {name: value for name, value in known.items() if value is not None}
    return tuple(known), tuple(known.values())


def when(seconds: float) -> str:
    """Return a moment, in seconds since the epoch, as people and programs read it."""
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (ValueError, OverflowError, OSError):  # a clock that was very wrong
        return f'{seconds} s after 1970'
    return moment.isoformat(timespec='seconds')
