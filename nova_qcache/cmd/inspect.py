# SPDX-License-Identifier: Apache-2.0
"""Commands that look: list, show."""

import argparse
import datetime
from typing import Any

from cliff import lister
from cliff import show

from nova_qcache import exception
from nova_qcache.cmd import shell
from nova_qcache.inspection import CacheView

__all__ = ['List', 'Show', 'fields', 'when']

_MIB = 1024 * 1024


class List(lister.Lister):
    """List the caches of this host."""

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        columns = ('Image', 'State', 'Generation', 'MiB', 'Quota MiB', 'Guests', 'Base', 'Note')
        return columns, [self._row(view) for view in shell.manager(self.app).caches()]

    def _row(self, view: CacheView) -> tuple[Any, ...]:
        return (
            view.key.image_id,
            view.state,
            str(view.key.generation),
            round(view.length / _MIB, 1),
            round(view.record.quota / _MIB) if view.record else None,
            view.guests,
            view.record.base if view.record else None,
            view.note,
        )


class Show(show.ShowOne):
    """Show the newest cache of an image."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('image_id', metavar='IMAGE', help='UUID of the image')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        views = shell.manager(self.app).caches(parsed_args.image_id)
        if not views:
            raise exception.CacheNotFound(image_id=parsed_args.image_id)
        shown = fields(views[-1])
        return tuple(shown), tuple(shown.values())


def fields(view: CacheView) -> dict[str, Any]:
    """Return all that is known of a cache under the names that ``-f json`` prints."""
    shown: dict[str, Any] = {
        'image_id': view.key.image_id,
        'generation': str(view.key.generation),
        'state': view.state,
        'note': view.note,
        'path': str(view.path),
        'cache_bytes': view.length,
        'allocated_bytes': view.allocated,
    }
    if view.record is not None:
        record = view.record
        shown |= {
            'quota_bytes': record.quota,
            'cluster_size': record.cluster_size,
            'extended_l2': record.extended_l2,
            'virtual_size': record.virtual_size,
            'base': record.base,
            'base_format': record.base_format,
            'revision': view.key.revision,
            'created_at': when(record.created_at),
        }
        if record.sealed is not None:
            shown |= {'sealed_at': when(record.sealed.sealed_at), 'digest': record.sealed.digest}
    if view.recorder is not None:
        shown |= {
            'phase': view.recorder.phase.value,
            'guests': view.recorder.guests,
            'recorder_pid': view.recorder.pid,
            'daemon_pid': view.recorder.daemon_pid,
        }
    return shown


def when(seconds: float) -> str:
    """Return a moment, in seconds since the epoch, as people and programs read it."""
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (ValueError, OverflowError, OSError):  # a clock that was very wrong
        return f'{seconds} s after 1970'
    return moment.isoformat(timespec='seconds')
