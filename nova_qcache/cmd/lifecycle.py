# SPDX-License-Identifier: Apache-2.0
"""Commands about the life of a cache: plan, record, seal, invalidate, remove."""

import argparse
import math
from typing import Any

from cliff import lister
from cliff import show

from nova_qcache import conf as qcache_conf
from nova_qcache import exception
from nova_qcache.cmd import inspect
from nova_qcache.cmd import shell
from nova_qcache.model import plan as plan_module
from nova_qcache.model.key import CacheKey
from nova_qcache.model.source import FORMATS

__all__ = ['Invalidate', 'Plan', 'Record', 'Remove', 'Seal']


def _add_image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('image_id', metavar='IMAGE', help='UUID of the image')


def _add_base(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        '--base',
        required=required,
        help='base of the image: a path, nbd://host/export, or nbd+unix:///export?socket=PATH',
    )
    parser.add_argument(
        '--base-format', default='raw', choices=FORMATS, help='format of the base (default: raw)'
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is not a number of seconds above 0')
    return seconds


def _amount(text: str) -> str:
    if qcache_conf.amount(text, qcache_conf.MIB) is None:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not an amount: give a number of MiB, or one with a unit, such as 512M or'
            ' 1GB'
        )
    return text


def _plan_fields(plan: plan_module.Plan) -> dict[str, Any]:
    return {
        'image_id': plan.image_id,
        'kind': plan.kind.value,
        'reason': plan.reason,
        'generation': str(plan.generation) if plan.generation else None,
        'cache': plan.cache,
        'socket': plan.socket,
        'export': plan_module.EXPORT_NAME if plan.socket else None,
        'base': plan.base,
        'base_format': plan.base_format,
    }


class Plan(show.ShowOne):
    """Show what a boot of an image would use now, without starting or changing anything."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _add_image(parser)
        _add_base(parser, required=True)
        return shell.add_examples(
            parser,
            'plan IMAGE --base /srv/base.raw',
            'plan IMAGE --base nbd://10.0.0.1/image --base-format qcow2',
        )

    def take_action(self, parsed_args: argparse.Namespace) -> shell.Fields:
        plan = shell.manager(self.app, looks_only=True).boots.preview(
            parsed_args.image_id, parsed_args.base, parsed_args.base_format
        )
        shown = _plan_fields(plan)
        return tuple(shown), tuple(shown.values())


class Record(show.ShowOne):
    """Start a recorder for an image, or join the one at work; returns when guests can connect."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _add_image(parser)
        _add_base(parser, required=True)
        parser.add_argument(
            '--quota',
            type=_amount,
            metavar='SIZE',
            help='quota instead of the configured one: a number of MiB, or one with a unit, such '
            'as 512M or 1GB',
        )
        return shell.add_examples(
            parser,
            'record IMAGE --base /srv/base.raw',
            'record IMAGE --base nbd+unix:///image?socket=/run/nbd.sock --quota 256M',
        )

    def take_action(self, parsed_args: argparse.Namespace) -> shell.Fields:
        manager = shell.manager(self.app)
        plan = manager.boots.record(
            parsed_args.image_id,
            parsed_args.base,
            parsed_args.base_format,
            quota=parsed_args.quota,
            progress=shell.progress,
        )
        shown = dict.fromkeys(inspect.FIELDS) | _plan_fields(plan)
        for view in manager.caches(parsed_args.image_id):
            if view.key == plan.key:
                shown |= inspect.fields(view, manager.pins.all())
        return inspect.one(parsed_args, shown)


class Seal(show.ShowOne):
    """End the recording of an image now, and seal its cache."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _add_image(parser)
        parser.add_argument('--wait', action='store_true', help='wait until it is READY')
        parser.add_argument(
            '--timeout',
            type=_seconds,
            default=120,
            metavar='SECONDS',
            help='how long to wait for it, in seconds (default: 120)',
        )
        return shell.add_examples(parser, 'seal IMAGE', 'seal --wait --timeout 30 IMAGE')

    def take_action(self, parsed_args: argparse.Namespace) -> shell.Fields:
        manager = shell.manager(self.app)
        view = manager.seal(
            parsed_args.image_id, parsed_args.timeout if parsed_args.wait else 0, shell.progress
        )
        return inspect.one(parsed_args, inspect.fields(view, manager.pins.all()))


class Invalidate(lister.Lister):
    """Mark an image's base as changed; its existing caches are never used again."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _add_image(parser)
        _add_base(parser, required=False)
        return shell.add_examples(
            parser, 'invalidate IMAGE', 'invalidate IMAGE --base nbd://10.0.0.1/image'
        )

    def take_action(self, parsed_args: argparse.Namespace) -> shell.Rows:
        keys = shell.manager(self.app).invalidate(
            parsed_args.image_id, parsed_args.base, parsed_args.base_format
        )
        return _rows(parsed_args, keys)


class Remove(lister.Lister):
    """Remove the caches of an image."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _add_image(parser)
        parser.add_argument(
            '--force',
            action='store_true',
            help='remove also caches in use: guests go on, but their next start may fail',
        )
        parser.add_argument(
            '--forget',
            action='store_true',
            help='remove also its row in stats, even without a cache; host totals keep it',
        )
        return shell.add_examples(
            parser, 'remove IMAGE', 'remove --forget IMAGE', 'remove --force IMAGE'
        )

    def take_action(self, parsed_args: argparse.Namespace) -> shell.Rows:
        manager = shell.manager(self.app)
        try:
            keys = manager.remove(
                parsed_args.image_id, force=parsed_args.force, progress=shell.progress
            )
        except exception.CacheNotFound:
            if not parsed_args.forget:
                raise
            keys = []
        if parsed_args.forget:
            manager.forget(parsed_args.image_id)
        return _rows(parsed_args, keys)


def _rows(parsed_args: argparse.Namespace, keys: list[CacheKey]) -> shell.Rows:
    columns = ('image_id', 'generation')
    if not shell.is_for_program(parsed_args):
        columns = ('Image', 'Generation')
    return columns, [(key.image_id, str(key.generation)) for key in keys]
