# SPDX-License-Identifier: Apache-2.0
"""A compute host before nova-qcache is there: folders, users and a Python of its own.

It is a mount namespace with another /etc, /run and /var/lib, so that commands which change a host
can be run as they are written. Nothing of the machine's own changes.
"""

import os
import pathlib
import subprocess

from tests.functional import account
from tests.functional import terminal
from tests.functional import users
from tests.functional import waiting

__all__ = ['FreshHost']

_NOVA = users.PRODUCT.uid
_MOUNTS = {'etc': '/etc', 'run': '/run', 'lib': '/var/lib'}
"""Folders of the host below its own, and where they are mounted."""


class FreshHost:
    """A host until the end of the test."""

    def __init__(self, book: account.Account) -> None:
        self.folder = book.folder
        self.venv = self.folder / 'venv'
        """Where nova-compute would be installed."""
        self._make_etc()
        self._make_folder('run')
        self._make_folder('lib')
        self._make_folder('lib/nova', _NOVA)
        self._make_folder('lib/nova/instances', _NOVA)
        self._make_folder('lib/nova/instances/_base', _NOVA)
        python = ['/usr/bin/python3', '-m', 'venv', str(self.venv)]
        subprocess.run(python, check=True, timeout=waiting.PATIENCE)
        anchor = self._start(book)
        home = self._make_folder('root')
        self.root = terminal.Terminal(
            users.ROOT,
            home,
            ['nsenter', f'--mount=/proc/{anchor.pid}/ns/mnt', '--'],
            **{account.VARIABLE: str(self.folder), 'PIP_ROOT_USER_ACTION': 'ignore'},
        )
        """Root there, with the programs of the Python first."""
        self.root.environment['PATH'] = f'{self.venv}/bin:{self.root.environment["PATH"]}'

    def outside(self, path: str) -> pathlib.Path:
        """Return where a path of the host is seen from outside."""
        for name, target in _MOUNTS.items():
            if path.startswith(f'{target}/'):
                return self.folder / name / path.removeprefix(f'{target}/')
        return pathlib.Path(path)

    def write(self, path: str, text: str) -> None:
        """Write a file of the host, and the folders that it is in."""
        file = self.outside(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def _make_folder(self, name: str, owner: int = 0) -> pathlib.Path:
        path = self.folder / name
        path.mkdir()
        os.chown(path, owner, owner)
        return path

    def _make_etc(self) -> None:
        etc = self.folder / 'etc'
        subprocess.run(['cp', '-a', '/etc', str(etc)], check=True, timeout=waiting.PATIENCE)
        resolver = etc / 'resolv.conf'
        if resolver.is_symlink():  # into a /run that is not there
            text = pathlib.Path('/etc/resolv.conf').read_text()
            resolver.unlink()
            resolver.write_text(text)
        for name, line in (
            ('passwd', f'nova:x:{_NOVA}:{_NOVA}::/var/lib/nova:/bin/false\n'),
            ('group', f'nova:x:{_NOVA}:\n'),
            ('shadow', 'nova:*:20000:0:99999:7:::\n'),
            ('gshadow', 'nova:!::\n'),
        ):
            lines = (etc / name).read_text().splitlines(keepends=True)
            others = [known for known in lines if not known.startswith('nova:')]
            (etc / name).write_text(''.join([*others, line]))

    def _start(self, book: account.Account) -> 'subprocess.Popen[str]':
        mounts = [f'mount --bind {self.folder}/{name} {at}' for name, at in _MOUNTS.items()]
        # It ends when nobody can write to it any more, so also with the tests.
        script = ' && '.join([*mounts, 'echo ready', 'exec cat'])
        anchor = subprocess.Popen(
            ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script],
            env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', account.VARIABLE: str(self.folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        book.is_server(anchor.pid)
        book.surroundings.callback(anchor.communicate, timeout=waiting.PATIENCE)
        assert anchor.stdout is not None
        assert anchor.stdout.readline() == 'ready\n'
        return anchor
