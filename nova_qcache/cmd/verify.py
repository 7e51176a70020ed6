# SPDX-License-Identifier: Apache-2.0
"""The command verify: comparison of cached bytes with the base."""

import argparse

from cliff import lister

from nova_qcache.cmd import shell

__all__ = ['Verify']


class Verify(lister.Lister):
    """Compare sealed caches with their digests, and their content with their bases; retire those
    that differ. Exit code 1 if any differs or cannot be compared."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument('image_id', metavar='IMAGE', nargs='?', help='UUID of the image')
        which.add_argument('--all', action='store_true', help='all sealed caches of this host')
        return shell.add_examples(parser, 'verify IMAGE', 'verify --all -f json')

    def take_action(self, parsed_args: argparse.Namespace) -> shell.Rows:
        manager = shell.manager(self.app)
        results = list(manager.verify(parsed_args.image_id, shell.progress))
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
        if shell.is_for_program(parsed_args):
            return ('image_id', 'generation', 'compared_bytes', 'result'), rows
        return ('Image', 'Generation', 'Bytes compared', 'Result'), rows

    def run(self, parsed_args: argparse.Namespace) -> int:
        code: int = super().run(parsed_args)
        return code or int(self.failed)
