# SPDX-License-Identifier: Apache-2.0
"""nova-qcache: see and manage the boot caches of this host."""

import argparse
from collections.abc import Sequence
import difflib
from importlib import metadata
import io
import logging
import os
import pathlib
import pwd
import sys
from typing import Any, cast, TextIO, TYPE_CHECKING

from cliff import app
from cliff import commandmanager
from oslo_config import cfg

from nova_qcache import conf as qcache_conf
from nova_qcache import config_files
from nova_qcache import exception
from nova_qcache.system import files
from nova_qcache.system.progress import Done

if TYPE_CHECKING:
    from nova_qcache.engine.manager import Manager

__all__ = [
    'Fields',
    'Rows',
    'Shell',
    'add_examples',
    'add_long',
    'become_owner',
    'conf',
    'is_for_program',
    'is_long',
    'main',
    'manager',
    'progress',
]

_UNWRITABLE = 'Standard output cannot be written: {}.'

_FAILED = 1
_MISUSED = 2
_INTERRUPTED = 130
_NO_READER = 141

Fields = tuple[tuple[str, ...], tuple[Any, ...]]
"""Names and values of one object, as cliff shows it."""
Rows = tuple[tuple[str, ...], list[tuple[Any, ...]]]
"""Names of the columns, and the rows of a table."""

COMMANDS = 'nova_qcache.cli'
"""Namespace of the entry points of commands."""


class _Output:
    """Standard output, whose trouble is none of a cache's files."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            raise
        except OSError as e:
            raise exception.QcacheError(reason=_UNWRITABLE.format(e.strerror)) from e


class Shell(app.App):
    """The program; its commands reach its configuration by :func:`conf`."""

    NAME = 'nova-qcache'
    DEFAULT_VERBOSE_LEVEL = 0  # warnings; what an operator asked for is no news

    def __init__(self) -> None:
        super().__init__(
            description=__doc__.partition(': ')[2],
            version=metadata.version('nova-qcache'),
            command_manager=commandmanager.CommandManager(COMMANDS),
            stdout=cast(TextIO, _Output(sys.stdout)),
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
        self.LOG.addFilter(_plainly)
        try:
            super().configure_logging()
        except OSError as e:
            path, self.options.log_file = self.options.log_file, None
            super().configure_logging()  # to say so
            raise exception.FileUnfit(
                what='The log file',
                path=path,
                reason=e.strerror or str(e),
                remedy='Name another one with --log-file',
            ) from e
        # A scheme that nobody knows is an error of ours, which says so.
        logging.getLogger('stevedore').setLevel(logging.ERROR)

    def run_subcommand(self, argv: list[str]) -> int:
        try:
            self.command_manager.find_command(argv)
        except ValueError:
            names = [name for name, _ in self.command_manager]
            near = difflib.get_close_matches(argv[0], names, 1)
            meant = f'did you mean `nova-qcache {near[0]}`' if near else 'which one do you mean'
            self.stderr.write(
                f'nova-qcache has no command {argv[0]!r}; {meant}? '
                '`nova-qcache --help` lists all.\n'
            )
            return _MISUSED
        return int(super().run_subcommand(argv))

    def initialize_app(self, argv: list[str]) -> None:
        if not argv and not self.options.deferred_help:  # cliff would read commands
            self.parser.exit(
                _MISUSED, 'nova-qcache needs a command. `nova-qcache --help` lists all.\n'
            )
        qcache_conf.register_opts(self.conf)
        qcache_conf.register_nova_opts(self.conf)
        config_files.read(self.conf, config_files.arguments(self.options), 'nova-qcache')
        become_owner(pathlib.Path(self.conf.qcache.cache_path))


def become_owner(cache_path: pathlib.Path) -> None:
    """Act as the owner of the caches if root calls; without a folder of caches, as the owner of
    the folder in which it will be made.

    What root would make there (a folder, a record, a socket) nova-compute could not use.
    """
    if os.geteuid() != 0 or not cache_path.is_absolute():
        return
    owner = files.place(cache_path).stat()
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


def manager(program: app.App, *, looks_only: bool = False) -> 'Manager':
    """Return a manager for a command.

    :param looks_only: whether the command changes nothing
    :raises QcacheError: if the configuration makes no sense
    """
    # Imported here: it takes longer than all else, and help does without.
    from nova_qcache.engine.manager import Manager

    return Manager(conf(program), looks_only=looks_only)


def add_examples(parser: argparse.ArgumentParser, *examples: str) -> argparse.ArgumentParser:
    """End the help of a command with examples, and return its parser.

    :param examples: command lines without the program; ``IMAGE`` is a UUID
    """
    image = '571967d4-6860-4b23-8649-8ffe1f34d7a6'
    lines = [f'  nova-qcache {example.replace("IMAGE", image)}' for example in examples]
    parser.epilog = '\n'.join(['Examples::', '', *lines])
    wrapped = parser.formatter_class

    class Formatter(wrapped):  # type: ignore[misc, valid-type]
        def _fill_text(self, text: str, width: int, indent: str) -> str:
            if text == parser.epilog:
                return text
            return str(super()._fill_text(text, width, indent))

    parser.formatter_class = Formatter
    return parser


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
    import tqdm  # seldom needed

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


def _plainly(record: logging.LogRecord) -> bool:
    """Make cliff log a sentence in place of an error."""
    if isinstance(record.msg, Exception):
        record.msg = exception.sentence(record.msg)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """:return: the exit code that the manual has, with a message on standard error unless it is 0
    or 141"""
    if not _has_output():
        return _FAILED
    code = _INTERRUPTED
    try:
        code = Shell().run(list(sys.argv[1:] if argv is None else argv))
    except (exception.QcacheError, cfg.Error, OSError) as e:
        print(exception.sentence(e), file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:  # before anything was done
        pass
    if code == _INTERRUPTED:
        print('Interrupted. What was started may go on; see `nova-qcache list`.', file=sys.stderr)
    return _flushed(code)


def _has_output() -> bool:
    """Make sure of standard error; return whether there is standard output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # A file that is opened next would get its number, and what others print.
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, 'w')
    if sys.stdout is None:
        print('Standard output is closed. Redirect it, for example to /dev/null.', file=sys.stderr)
        return False
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')  # names of files may be any bytes
    return True


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError as e:
        # Python would try again at its end, and say so in its own words.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(e, BrokenPipeError):
            return _NO_READER
        if not code:
            print(_UNWRITABLE.format(e.strerror), file=sys.stderr)
        return code or _FAILED
    return code


if __name__ == '__main__':
    sys.exit(main())
