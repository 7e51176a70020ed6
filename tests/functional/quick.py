# SPDX-License-Identifier: Apache-2.0
"""Commands of the product without the time that a Python takes to start and to import them.

Most tests type a dozen commands, and that would be most of what they do. What runs is the same, in
a process of its own with the rights and the environment of its user; see quick_server.py.
"""

from collections.abc import Mapping
import json
import os
import pathlib
import select
import socket
import subprocess

from tests.functional import users
from tests.functional import waiting

__all__ = ['Commands']

_SERVER = pathlib.Path(__file__).with_name('quick_server.py')


class Commands:
    """What runs the commands of one installation, until :meth:`end`.

    :param python: that has it
    :param more: the environment variables by which it finds it
    """

    def __init__(self, python: str, more: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        environment = {'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL': 'C.UTF-8'}
        with theirs:
            self._server = subprocess.Popen(
                [python, '-P', str(_SERVER), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**environment, **more},
                cwd='/',
            )

    def end(self) -> None:
        self._socket.close()
        self._server.wait(waiting.PATIENCE)

    def run(
        self,
        words: list[str],
        user: users.User,
        environment: Mapping[str, str],
        program: str | None = None,
    ) -> 'subprocess.CompletedProcess[str]':
        """Run nova-qcache to its end.

        :param words: its command line
        :param program: run this with the product's Python instead, as with its option -c
        """
        task = {
            'words': words,
            'program': program,
            'environment': dict(environment),
            'user': user.uid,
            'group': user.gid,
            'groups': user.groups,
        }
        ours, theirs = socket.socketpair()
        with (
            ours,
            open(os.devnull, 'rb') as nothing,
            open(os.memfd_create('stdout'), 'r+b') as stdout,
            open(os.memfd_create('stderr'), 'r+b') as stderr,
        ):
            with theirs:
                fds = [each.fileno() for each in (nothing, stdout, stderr, theirs)]
                socket.send_fds(self._socket, [b'!'], fds)
            ours.sendall(f'{json.dumps(task)}\n'.encode())
            if not select.select([ours], [], [], waiting.PATIENCE)[0]:
                raise subprocess.TimeoutExpired(words, waiting.PATIENCE)
            code = int(ours.recv(64))
            said = [each.read().decode() for each in (stdout, stderr) if not each.seek(0)]
        return subprocess.CompletedProcess(words, code, *said)
