# SPDX-License-Identifier: Apache-2.0
"""Somebody new, who follows the quick start of the manual."""

import contextlib
import pathlib
import re
import subprocess

import psutil

from tests import documents
from tests.functional import account
from tests.functional import waiting
from tests.functional.site import dismiss
from tests.functional.terminal import field
from tests.functional.terminal import Terminal

__all__ = ['PAGE', 'PATIENT', 'PIP_SECONDS', 'Newcomer', 'recorders']

PAGE = 'doc/source/quickstart.rst'
PIP_SECONDS = 600
PATIENT = """
recording_idle_seconds = 3600
recording_settle_seconds = 3600
recording_max_seconds = 3600
guest_grace_seconds = 3600
plan_lease_seconds = 3600
start_timeout_seconds = 300
lock_timeout_seconds = 300
"""
"""Options beside those of a page: no recording ends before the command that ends it, on however
slow a machine."""


class _Guest:
    """A guest that somebody looks at, on the serial line that qemu shows in the terminal."""

    def __init__(self, terminal: Terminal, text: str, console: pathlib.Path) -> None:
        self.console = console
        with open(console, 'w') as shown:
            self.process = terminal.start(
                text, stdin=subprocess.PIPE, stdout=shown, stderr=subprocess.STDOUT
            )

    def wait_until_it_says(self, line: str, times: int = 1) -> None:
        def look() -> bool:
            said = self._said()
            assert self.process.poll() is None, said
            assert not re.search('QCACHE .*(BAD|error|no-)', said), said
            return said.count(f'QCACHE {line}') >= times

        waiting.until(look, f'{line!r} on {self.console.name}', pause=0.3)

    def require_life(self) -> None:
        """Wait until it says once more that it is well."""
        self.wait_until_it_says('alive', self._said().count('QCACHE alive') + 1)

    def shut_down(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=waiting.PATIENCE)

    def _said(self) -> str:
        return self.console.read_text(errors='replace')


def recorders(folder: pathlib.Path) -> list[psutil.Process]:
    """Return the living recorders of a test, by its folder, and their daemons.

    A daemon has a cache open until it has left, for a moment longer than its recorder is known.
    """
    found = []
    for process in account.processes_of(folder):
        with contextlib.suppress(psutil.NoSuchProcess):
            if re.search('nova_qcache.cmd.recorder|storage-daemon', ' '.join(process.cmdline())):
                found.append(process)
    return found


class Newcomer:
    """Follows the quick start, one command after the other, and looks at what it says."""

    def __init__(self, folder: pathlib.Path, base: pathlib.Path, terminal: Terminal) -> None:
        self.terminal = terminal
        self.folder = folder
        """What the page calls ``/tmp/qcache``."""
        self._base = base
        self._home = pathlib.Path(terminal.environment[account.VARIABLE])
        self._guests: list[_Guest] = []
        terminal.names = {'/tmp/qcache': str(folder), 'BASE': str(base)}

    def follow(self, text: str) -> None:
        if text.startswith('qemu-system'):
            self._boot(text)
            return
        if ' plan ' in text or ' remove ' in text:
            self.shut_down()
        if ' remove ' in text:
            waiting.until(self._has_been_left, 'the end of the recorder')
        if text == 'cd /tmp/qcache':
            self._configure()
        seconds = PIP_SECONDS if 'pip install' in text else waiting.PATIENCE
        said = self.terminal.must(text, seconds=seconds)
        if text.endswith(' check'):
            assert '| ok ' in said
            assert '| error ' not in said
        elif ' record ' in text:
            self.terminal.names['SOCKET'] = field(said, 'socket')
        elif text.endswith(' list'):
            assert '| READY |' in said
            self._guests[0].require_life()
        elif ' plan ' in text:
            assert field(said, 'kind') == 'PLAY'
            self.terminal.names['CACHE'] = field(said, 'cache')
        elif ' remove ' in text:
            assert text.split()[-1] in said

    def shut_down(self) -> None:
        for guest in self._guests:
            guest.shut_down()
        self._guests.clear()

    def _has_been_left(self) -> bool:
        dismiss(self.folder / 'run')  # it would wait for the next guest
        return not recorders(self._home)

    def _configure(self) -> None:
        named = re.search(r'Make a file\s+``(\S+)``', documents.read(PAGE))
        assert named
        path = pathlib.Path(self.terminal.filled(named[1]))
        path.write_text(self.terminal.filled(documents.ini(PAGE)) + PATIENT)
        path.chmod(0o644)

    def _boot(self, text: str) -> None:
        console = self._base.with_name(f'console-{text.partition("file=")[2][:6]}')
        self._guests.append(_Guest(self.terminal, text, console))
        self._guests[-1].wait_until_it_says('data ok 16')
        self._guests[-1].wait_until_it_says('booted')
