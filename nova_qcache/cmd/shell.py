# SPDX-License-Identifier: Apache-2.0
"""nova-qcache: see and manage the boot caches of this host."""

import argparse
from collections.abc import Sequence
from importlib import metadata
import logging
import os
import pathlib
import pwd
import sys
from typing import Any, cast

from cliff import app
from cliff import commandmanager
from oslo_config import cfg
from oslo_log import log
import tqdm

from nova_qcache import conf as qcache_conf
from nova_qcache import config_files
from nova_qcache import exception
from nova_qcache import filesystem
from nova_qcache.manager import Manager
from nova_qcache.progress import Done

__all__ = [
    'Shell',
    'add_long',
    'become_owner',
    'conf',
    'is_for_program',
    'is_long',
    'main',
    'manager',
    'progress',
]

COMMANDS = 'nova_qcache.cli'
"""Namespace of the entry points of commands."""


class Shell(app.App):
    """The program; its commands reach its configuration by :func:`conf`."""

    NAME = 'nova-qcache'
    DEFAULT_VERBOSE_LEVEL = 0  # warnings; what an operator asked for is no news

    def __init__(self) -> None:
        super().__init__(
            description=__doc__.partition(': ')[2],
            version=metadata.version('nova-qcache'),
            command_manager=commandmanager.CommandManager(COMMANDS),
            deferred_help=True,
        )
        self.conf = cfg.ConfigOpts()

    def build_option_parser(
        self,
        description: str | None,
        version: str | None,
        argparse_kwargs: dict[str, Any] | None = None,
    ) -> argparse.ArgumentParser:
        parser = super().build_option_parser(description, version, argparse_kwargs)
        parser.add_argument(
            '--config-file',
            action='append',
            metavar='PATH',
            help='configuration file with a [qcache] section; may be repeated '
            '(default: nova.conf where Nova finds it)',
        )
        parser.add_argument(
            '--config-dir',
            action='append',
            metavar='PATH',
            help='folder of configuration files; may be repeated',
        )
        return parser

    def configure_logging(self) -> None:
        super().configure_logging()
        # A scheme that nobody knows is an error of ours, which says so.
        logging.getLogger('stevedore').setLevel(logging.ERROR)

    def initialize_app(self, argv: list[str]) -> None:
        arguments = [f'--config-file={name}' for name in self.options.config_file or []]
        arguments += [f'--config-dir={name}' for name in self.options.config_dir or []]
        log.register_options(self.conf)
        qcache_conf.register_opts(self.conf)
        qcache_conf.register_nova_opts(self.conf)
        config_files.read(self.conf, arguments, 'nova-qcache')
        become_owner(pathlib.Path(self.conf.qcache.cache_path))


def become_owner(cache_path: pathlib.Path) -> None:
    """Act as the user that the caches belong to, if root calls; where there is no folder for them
    yet, as the owner of the one that it is going to be in.

    What root would make there (a folder, a record, a socket) nova-compute could not use.
    """
    if os.geteuid() != 0 or not cache_path.is_absolute():
        return
    owner = filesystem.place(cache_path).stat()
    if owner.st_uid == 0:
        return
    try:
        os.initgroups(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
    except KeyError:
        os.setgroups([])  # a user without a name has no other groups
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)


def conf(program: app.App) -> cfg.ConfigOpts:
    """Return the configuration of the program that a command runs in."""
    return cast(Shell, program).conf


def manager(program: app.App, *, looks_only: bool = False) -> Manager:
    """Return a manager for a command.

    :param looks_only: whether the command changes nothing
    :raises QcacheError: if the configuration makes no sense
    """
    return Manager(conf(program), looks_only=looks_only)


def add_long(parser: argparse.ArgumentParser) -> None:
    """Add the option for all columns of a table."""
    parser.add_argument('--long', action='store_true', help='all columns, wider than a terminal')


def is_long(parsed_args: argparse.Namespace) -> bool:
    """Return whether all columns are wanted, or can be chosen from."""
    return bool(parsed_args.long or parsed_args.columns or parsed_args.formatter != 'table')


def is_for_program(parsed_args: argparse.Namespace) -> bool:
    """Return whether the output is data, and no table."""
    return parsed_args.formatter in ('json', 'yaml')


def progress(what: str, total: float, unit: str = 'B') -> Done:
    """Show a bar on standard error to people who wait: not to programs, nor for what is quick."""
    bar = tqdm.tqdm(
        desc=what,
        total=total,
        unit=unit,
        unit_scale=unit == 'B',
        bar_format=None if unit == 'B' else '{desc}: {bar} {elapsed}',
        delay=1,
        disable=None,
        leave=False,
    )

    def update(done: float) -> None:
        bar.update(done)
        if bar.n >= total:
            bar.close()

    return update


def main(argv: Sequence[str] | None = None) -> int:
    """:return: 0, or 1 after a message on standard error"""
    try:
        code: int = Shell().run(list(sys.argv[1:] if argv is None else argv))
    except (exception.QcacheError, cfg.Error, OSError) as e:
        print(e, file=sys.stderr)
        return 1
    return code


if __name__ == '__main__':
    sys.exit(main())
