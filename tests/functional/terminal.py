# SPDX-License-Identifier: Apache-2.0
"""Where commands are typed as a page has them."""

import ast
from collections.abc import Sequence
import os
import pathlib
import re
import shlex
import subprocess
import sys
from typing import Any

from tests.functional import users
from tests.functional import waiting

__all__ = ['Terminal', 'field']

_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'


class Terminal:
    """Somebody's shell, which is in some folder.

    :param enter: the beginning of a command that runs the rest of it elsewhere
    """

    def __init__(
        self, user: users.User, folder: pathlib.Path, enter: Sequence[str] = (), **environment: str
    ) -> None:
        self.folder = folder
        self.names: dict[str, str] = {}
        """What is typed in the place of words of a page."""
        self.environment = {
            'PATH': _PATH,
            'HOME': str(folder),
            'LC_ALL': 'C.UTF-8',
            **_index(),
            'PIP_DISABLE_PIP_VERSION_CHECK': '1',
            **environment,
        }
        self._user = user
        self._enter = list(enter)

    def filled(self, text: str) -> str:
        """Return a text of a page as it is typed here."""
        for name, value in self.names.items():
            text = re.sub(rf'(?<![\w/]){re.escape(name)}(?!\w)', value, text)
        return text

    def start(self, text: str, **more: Any) -> 'subprocess.Popen[str]':
        """Type a command that stays; the caller ends it."""
        # Without the shell in between, or that would be what is ended.
        line = f'cd {shlex.quote(str(self.folder))} && exec {self.filled(text)}'
        return subprocess.Popen(
            [*self._enter, 'bash', '-c', line],
            env=self.environment,
            cwd='/',
            text=True,
            **self._user.arguments(),
            **more,
        )

    def run(
        self, text: str, answer: str = '', seconds: float = waiting.PATIENCE
    ) -> 'subprocess.CompletedProcess[str]':
        """Type a command, and wait for its end."""
        if text.startswith('cd '):
            self.folder = pathlib.Path(self.filled(text).removeprefix('cd '))
            assert self.folder.is_dir(), text
            return subprocess.CompletedProcess(text, 0, '', '')
        pipes = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.PIPE)
        with self.start(text, **pipes) as process:
            try:
                stdout, stderr = process.communicate(answer, seconds)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(text, process.returncode, stdout, stderr)

    def must(self, text: str, answer: str = '', seconds: float = waiting.PATIENCE) -> str:
        """Type a command that has to succeed, and return what it prints."""
        done = self.run(text, answer, seconds)
        assert done.returncode == 0, done
        return done.stdout


def _index() -> dict[str, str]:
    """Return variables by which a pip of anybody's reaches what that of the tests does, whose user
    may have set an index, a proxy or certificates."""
    done = subprocess.run(
        [sys.executable, '-m', 'pip', 'config', 'list'],
        capture_output=True,
        text=True,
        timeout=waiting.PATIENCE,
    )
    found = {
        name: value
        for name, value in os.environ.items()
        if name.lower().endswith('_proxy') or name.startswith('SSL_CERT_')
    }
    for line in done.stdout.splitlines():
        name, _, value = line.partition('=')
        option = name.rpartition('.')[2].replace('-', '_').upper()
        found[f'PIP_{option}'] = ' '.join(ast.literal_eval(value).split())
    return found


def field(table: str, name: str) -> str:
    """Return what a table of two columns says of something."""
    found = re.search(rf'^\| {name} +\| (\S+) +\|$', table, re.MULTILINE)
    assert found, table
    return found[1]
