# SPDX-License-Identifier: Apache-2.0
"""The commands of tools/openstack.sh, once everything they need is installed."""

import argparse
from collections.abc import Callable, Sequence
import contextlib
import os
import pathlib
import shlex
import signal
import sys
import time
from typing import Any, NoReturn

from qcache_stack import down
from qcache_stack import up
from qcache_stack.process import Process
from qcache_stack.process import StackError
from qcache_stack.process import tail
from qcache_stack.settings import DEFAULT_STATE
from qcache_stack.settings import DRIVERS
from qcache_stack.settings import Layout
from qcache_stack.settings import Options
from qcache_stack.stack import Stack
from qcache_stack.state import logs_of
from qcache_stack.state import State

__all__ = ['main']


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    layout = Layout(pathlib.Path(options.state).absolute())
    try:
        code: int = options.run(layout, options)
    except StackError as e:
        print(f'error: {e}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='tools/openstack.sh', add_help=False)
    parser.add_argument('--state', default=os.environ.get('QCACHE_OPENSTACK') or DEFAULT_STATE)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser('up', add_help=False)
    command.add_argument('--driver', choices=DRIVERS)
    command.add_argument('--base-rate', type=_rate)
    command.add_argument('--port-base', type=int)
    command.add_argument('--set', action='append', default=[], type=_setting, dest='settings')
    command.set_defaults(run=_up)

    command = commands.add_parser('down', add_help=False)
    command.add_argument('--purge', action='store_true')
    command.set_defaults(run=_down)

    commands.add_parser('status', add_help=False).set_defaults(run=_status)

    command = commands.add_parser('exec', add_help=False)
    command.add_argument('--user', default='root')
    command.add_argument('command', nargs=argparse.REMAINDER)
    command.set_defaults(run=_exec)

    command = commands.add_parser('logs', add_help=False)
    command.add_argument('--lines', type=int, default=20)
    command.add_argument('services', nargs='*')
    command.set_defaults(run=_logs)
    return parser


def _rate(text: str) -> str:
    if text in ('none', 'unlimited') or (text.isdigit() and int(text) > 0):
        return text
    raise argparse.ArgumentTypeError('a number of bytes per second, "unlimited" or "none"')


def _setting(text: str) -> tuple[str, str, str]:
    name, equals, value = text.partition('=')
    section, dot, option = name.partition('.')
    if not (equals and dot and section and option):
        raise argparse.ArgumentTypeError(f'{text!r} is not SECTION.OPTION=VALUE')
    return section, option, value


def _say() -> Callable[[str], None]:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f'{time.monotonic() - began:6.1f} s  {text}', file=sys.stderr, flush=True)

    return say


def _up(layout: Layout, options: argparse.Namespace) -> int:
    settings: dict[str, dict[str, str]] = {}
    for section, option, value in options.settings:
        settings.setdefault(section, {})[option] = value
    wanted: dict[str, Any] = {
        'driver': options.driver,
        'base_rate': options.base_rate,
        'port_base': options.port_base,
        'settings': settings or None,
    }
    say = _say()
    stack = Stack(layout)
    with stack.state.exclusive():
        data = stack.data
        living = [name for name, process in _processes(data) if process and process.alive]
        is_up = data.get('status') == 'up' and len(living) == len(_processes(data))
        if living and not is_up:
            missing = [name for name, process in _processes(data) if name not in living]
            raise StackError(
                f'it is half up (without {", ".join(missing) or "its end"}): "down" first'
            )
        if not is_up:
            if data or any(folder.exists() for folder in layout.transient):
                say('removing what a former stack has left')
                down.down(layout, say)
            given = {name: value for name, value in wanted.items() if value is not None}
            up.up(layout, Options(**given), say)
            say('up')
    if is_up:
        up.adjust(layout, wanted, say)
    return _status(layout, options)


def _processes(data: dict[str, Any]) -> list[tuple[str, Process | None]]:
    """Return what should run, by name; None for what was stopped."""
    found: list[tuple[str, Process | None]] = []
    entries = {
        **{name: host['anchor'] or {} for name, host in data.get('hosts', {}).items()},
        **data.get('services', {}),
    }
    for name, entry in entries.items():
        pid = entry.get('pid')
        found.append((name, None if pid is None else Process(pid, entry['start_time'])))
    return found


def _down(layout: Layout, options: argparse.Namespace) -> int:
    if layout.root.is_dir():
        say = _say()
        with State(layout).exclusive():
            down.down(layout, say)
            if options.purge:
                down.purge(layout)
        say('down')
    else:
        print('there is nothing to be ended', file=sys.stderr)
    return 0


def _status(layout: Layout, options: argparse.Namespace) -> int:
    data = Stack(layout).data
    if not data:
        print(f'no stack is up in {layout.root}')
        return 1
    complete = data['status'] == 'up'
    print(f'{"SERVICE":16} {"STATE":5} {"PID":>8}  {"URL"}')
    for name, process in _processes(data):
        alive = process is not None and process.alive
        complete = complete and alive
        number = process.pid if process else '-'
        url = data['services'].get(name, {}).get('url') or ''
        print(f'{name:16} {"up" if alive else "DOWN":5} {number:>8}  {url}'.rstrip())
    host = data['hosts']['host1']
    print(f'\nlibvirt  {host["libvirt_uri"]}\nlogs     {data["logs"]}')
    print(f'driver   {data["options"]["driver"]}, base {data["options"]["base_rate"]}')
    if not complete:
        print('NOT all of it is up')
    return 0 if complete else 1


def _exec(layout: Layout, options: argparse.Namespace) -> int:
    command = options.command[1:] if options.command[:1] == ['--'] else options.command
    if not command:
        raise StackError('exec takes a command')
    stack = Stack.load(layout.root)
    environment = stack.environment(options.user)
    for name in ('TERM', 'COLUMNS'):
        if name in os.environ:
            environment[name] = os.environ[name]
    # The folder of whoever calls, where the namespace has it.
    where = f'cd {shlex.quote(os.getcwd())} 2>/dev/null || cd /\nexec "$@"'
    argv = stack.command(['sh', '-c', where, 'sh', *command], options.user)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os.execvpe(argv[0], argv, environment)


def _logs(layout: Layout, options: argparse.Namespace) -> int:
    logs = logs_of(layout)
    unknown = set(options.services) - {log.stem for log in logs}
    if unknown:
        there = ', '.join(log.stem for log in logs) or 'none'
        raise StackError(f'no log of {", ".join(sorted(unknown))}; there are: {there}')
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as in "logs | head"
    for log in logs:
        if not options.services or log.stem in options.services:
            print(f'== {log}\n{tail(log, options.lines)}')
    return 0
