# SPDX-License-Identifier: Apache-2.0
"""The command verify: cached bytes against the base."""

import argparse
from typing import Any

from cliff import lister

from nova_qcache.cmd import shell

__all__ = ['Verify']


class Verify(lister.Lister):
    """Compare all cached bytes of an image with its base; retire what differs. Exit code 1 if any
    did."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('image_id', metavar='IMAGE', help='UUID of the image')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        results = shell.manager(self.app).verify(parsed_args.image_id, shell.progress)
        rows = [
            (
                result.key.image_id,
                str(result.key.generation),
                result.compared,
                result.problem or 'equal',
            )
            for result in results
        ]
        self.failed = any(result.problem for result in results)
        return ('Image', 'Generation', 'Bytes compared', 'Result'), rows

    def run(self, parsed_args: argparse.Namespace) -> int:
        code: int = super().run(parsed_args)
        return code or int(self.failed)
