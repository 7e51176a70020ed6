# SPDX-License-Identifier: Apache-2.0
"""Commands that protect the caches of an image from eviction and expiry: pin, unpin."""

import argparse
import math
import time

from cliff import command
from cliff import show

from nova_qcache import exception
from nova_qcache.cmd import inspect
from nova_qcache.cmd import shell
from nova_qcache.model.states import State

__all__ = ['Pin', 'Unpin']

_MOST_HOURS = 1_000_000


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0 < hours <= _MOST_HOURS:
        raise argparse.ArgumentTypeError(f'{text} is not a number of hours up to {_MOST_HOURS}')
    return hours


class Pin(show.ShowOne):
    """Pin an image: its caches, present and future, are neither evicted to make room nor
    expired."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('image_id', metavar='IMAGE', help='UUID of the image')
        parser.add_argument(
            '--for',
            dest='hours',
            type=_hours,
            metavar='HOURS',
            help='hours to pin it for (default: until it is unpinned); a longer pin is kept',
        )
        return shell.add_examples(parser, 'pin IMAGE', 'pin --for 48 IMAGE')

    def take_action(self, parsed_args: argparse.Namespace) -> shell.Fields:
        manager = shell.manager(self.app)
        hours = parsed_args.hours
        until = None if hours is None else math.ceil(time.time() + hours * 3600)
        pin = manager.pins.pin(parsed_args.image_id, until)
        views = manager.caches(parsed_args.image_id)
        caches = sum(view.state != State.COLD.value for view in views)
        shown = {
            'image_id': pin.image_id,
            'until': None if pin.until is None else inspect.when(pin.until),
            'caches': caches,
            'note': 'they stay' if caches else 'no cache yet; the next one stays',
        }
        return tuple(shown), tuple(shown.values())


class Unpin(command.Command):
    """Unpin an image: its caches may be evicted and expired again."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('image_id', metavar='IMAGE', help='UUID of the image')
        return shell.add_examples(parser, 'unpin IMAGE')

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        if not shell.manager(self.app).pins.unpin(parsed_args.image_id):
            raise exception.NotPinned(image_id=parsed_args.image_id)
