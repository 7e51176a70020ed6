# SPDX-License-Identifier: Apache-2.0
"""The command check: preflight checks of this host."""

import argparse

from cliff import lister

from nova_qcache.cmd import shell

__all__ = ['Check']


class Check(lister.Lister):
    """Check whether this host can use caches; each finding has its remedy. Exit code 1 if it
    cannot."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return shell.add_examples(super().get_parser(prog_name), 'check', 'check -f json')

    def take_action(self, parsed_args: argparse.Namespace) -> shell.Rows:
        # Imported here: cliff imports all commands for each of them.
        from nova_qcache.checks import preflight
        from nova_qcache.checks import registry

        rows, self.failed = [], False
        for subject, each in registry.run(preflight.CHECKS, shell.conf(self.app)):
            rows.append((subject, each.grade.name.lower(), each.found, each.remedy))
            self.failed |= each.grade is registry.Grade.ERROR
        if shell.is_for_program(parsed_args):
            data = [tuple(value or None for value in row) for row in rows]
            return ('subject', 'grade', 'found', 'remedy'), data
        return ('Subject', 'Grade', 'Found', 'Remedy'), rows

    def run(self, parsed_args: argparse.Namespace) -> int:
        code: int = super().run(parsed_args)
        return code or int(self.failed)
