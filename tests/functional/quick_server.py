# SPDX-License-Identifier: Apache-2.0
"""The product's modules, imported once; each command is a process that begins with them.

Usage: quick_server.py FD, by the Python that has the product. FD is a socket on which each message
brings four descriptors: standard input, output and error of a command, and a socket. On that a
line comes, one JSON object that says what to run as whom; the exit code is sent back. A command
whose socket is closed before it has ended is killed. The server ends when FD is closed.
"""

import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
from typing import Any

_LEFT_OUT = ('nova_qcache.virt', 'nova_qcache.cmd.status')
"""They need what is not installed, or take long and are seldom used."""


def _import_all() -> None:
    sys.argv[0] = 'nova-qcache'  # cliff notes it when it is imported
    package = importlib.import_module('nova_qcache')
    for module in pkgutil.walk_packages(package.__path__, 'nova_qcache.'):
        if not module.name.startswith(_LEFT_OUT):
            importlib.import_module(module.name)


def _run(task: dict[str, Any], stdio: list[int]) -> int:
    """Be the command."""
    for number, fd in enumerate(stdio):
        os.dup2(fd, number)
        os.close(fd)
    os.setgroups(task['groups'])
    os.setgid(task['group'])
    os.setuid(task['user'])
    os.environ.clear()
    os.environ.update(task['environment'])
    os.chdir('/')
    sys.argv = task['words']
    if task['program'] is None:
        code: int = importlib.import_module('nova_qcache.cmd.shell').main()
        return code
    exec(compile(task['program'], '<string>', 'exec'), {'__name__': '__main__'})  # as with -c
    return 0


def _see_to(stdio: list[int], fd: int) -> int:
    """Start a command and tell how it ended."""
    with socket.socket(fileno=fd) as client:
        with client.makefile('r') as lines:
            task = json.loads(lines.readline())
        pid = os.fork()
        if not pid:
            client.close()
            return _run(task, stdio)
        ended = os.pidfd_open(pid)
        if ended not in select.select([ended, client.fileno()], [], [])[0]:
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        client.sendall(f'{code}\n'.encode())
    os._exit(0)


def main() -> int:
    control = socket.socket(fileno=int(sys.argv[1]))
    _import_all()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those below
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1, 4)
        if not message:
            return 0
        if not os.fork():
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _see_to(fds[:3], fds[3])
        for fd in fds:
            os.close(fd)


if __name__ == '__main__':
    sys.exit(main())
