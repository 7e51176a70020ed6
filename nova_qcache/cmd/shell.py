# SPDX-License-Identifier: Apache-2.0
"""nova-qcache: see and manage the boot caches of this host."""

import argparse
import sys
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import tqdm
from cliff import app
from cliff import commandmanager
from oslo_config import cfg
from oslo_log import log
from pbr import version

from nova_qcache import conf as qcache_conf
from nova_qcache import exception
from nova_qcache.manager import Manager

__all__ = ['Shell', 'main', 'progress']

COMMANDS = 'nova_qcache.cli'
"""Namespace of the entry points of commands."""


class Shell(app.App):  # type: ignore[misc]  # cliff has no types
    """The program; ``conf`` and ``manager()`` are there for its commands."""

    def __init__(self) -> None:
        super().__init__(
            description=__doc__.partition(': ')[2],
            version=version.VersionInfo('nova-qcache').version_string(),
            command_manager=commandmanager.CommandManager(COMMANDS),
            deferred_help=True,
        )
        self.conf = cfg.ConfigOpts()

    def build_option_parser(self, description: str, version: str, **kwargs: Any) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().build_option_parser(description, version, **kwargs)
        parser.add_argument(
            '--config-file',
            action='append',
            metavar='PATH',
            help='configuration file with a [qcache] section; may be repeated (default: nova.conf where Nova finds it)',
        )
        parser.add_argument(
            '--config-dir', action='append', metavar='PATH', help='folder of configuration files; may be repeated'
        )
        return parser

    def initialize_app(self, argv: Sequence[str]) -> None:
        arguments = [f'--config-file={name}' for name in self.options.config_file or []]
        arguments += [f'--config-dir={name}' for name in self.options.config_dir or []]
        log.register_options(self.conf)
        qcache_conf.register_opts(self.conf)
        self.conf(arguments, project='nova', prog='nova-qcache')

    def manager(self) -> Manager:
        """:raises QcacheError: if the configuration makes no sense"""
        return Manager(self.conf)


def progress(what: str, total: int) -> Callable[[int], object]:
    """A bar on standard error, for people who wait; nothing is shown to programs or for what is done at once."""
    bar = tqdm.tqdm(desc=what, total=total, unit='B', unit_scale=True, delay=0.5, disable=None, leave=False)

    def update(done: int) -> None:
        bar.update(done)
        if bar.n >= total:
            bar.close()

    return update


def main(argv: Sequence[str] | None = None) -> int:
    """:return: 0, or 1 after a message on standard error"""
    try:
        code: int = Shell().run(list(sys.argv[1:] if argv is None else argv))
    except (exception.QcacheError, cfg.Error) as e:
        print(e, file=sys.stderr)
        return 1
    return code


if __name__ == '__main__':
    sys.exit(main())
