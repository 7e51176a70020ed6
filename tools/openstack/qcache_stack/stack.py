# SPDX-License-Identifier: Apache-2.0
"""A running stack, as tests see it."""

from collections.abc import Mapping, Sequence
import os
import pathlib
import signal
import subprocess
from typing import Any

from qcache_stack import compute_conf
from qcache_stack import ini
from qcache_stack import service
from qcache_stack.host import Host
from qcache_stack.process import PATIENCE_SECONDS
from qcache_stack.process import Process
from qcache_stack.process import StackError
from qcache_stack.settings import DEFAULT_STATE
from qcache_stack.settings import environment
from qcache_stack.settings import Layout
from qcache_stack.settings import Options
from qcache_stack.state import State

__all__ = ['Stack']


class Stack:
    """Access to a stack that ``openstack.sh up`` has started.

    All that ``state.json`` says is in :attr:`data`, as it is at that moment.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.state = State(layout)

    @classmethod
    def load(cls, folder: str | os.PathLike[str] | None = None) -> 'Stack':
        """Return the stack of a state folder, or of QCACHE_OPENSTACK or the default.

        :raises StackError: if there is none
        """
        chosen = folder or os.environ.get('QCACHE_OPENSTACK') or DEFAULT_STATE
        stack = cls(Layout(pathlib.Path(chosen)))
        if not stack.data:
            raise StackError(f'no stack is up in {chosen}')
        return stack

    @property
    def data(self) -> dict[str, Any]:
        return self.state.read()

    @property
    def auth(self) -> dict[str, str]:
        """The administrator's credentials: os_auth_url, os_username, os_password and so on."""
        return dict(self.data['auth'])

    @property
    def options(self) -> Options:
        return Options(**self.data['options'])

    @property
    def host(self) -> Host:
        """Host 1: its paths inside and outside."""
        anchor = self.data['hosts']['host1']['anchor']
        return Host(self.layout, 1, Process(anchor['pid'], anchor['start_time']))

    def process(self, name: str) -> Process | None:
        """Return the process of a service; None if it was stopped."""
        entry = self._entry(name)
        if entry.get('pid') is None:
            return None
        return Process(entry['pid'], entry['start_time'])

    def log(self, name: str) -> pathlib.Path:
        return pathlib.Path(self._entry(name)['log'])

    def _entry(self, name: str) -> dict[str, Any]:
        services = self.data['services']
        if name not in services:
            raise StackError(f'there is no service {name!r}; there are {", ".join(services)}')
        entry: dict[str, Any] = services[name]
        return entry

    # Services

    def start(self, name: str) -> None:
        """Start a service that was stopped, and wait until it is ready.

        :raises StackError: with the end of its log, if it is not ready in time
        """
        with self.state.exclusive():
            wait = service.start(self.state, service.load(self._entry(name)))
        wait()

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """Send a signal and wait until the service is gone, with what it runs in its session.

        Recorders and guests have sessions of their own and stay.
        """
        with self.state.exclusive():
            service.stop(self.state, name, number)

    def restart(
        self,
        name: str,
        *,
        driver: str | None = None,
        kill: bool = False,
        config: ini.Sections | None = None,
    ) -> None:
        """Stop a service and start it again.

        :param driver: ``qcache`` or ``stock``; for nova-compute
        :param kill: SIGKILL in place of SIGTERM
        :param config: what :meth:`nova_compute_conf` takes; None keeps what is there
        """
        self.stop(name, signal.SIGKILL if kill else signal.SIGTERM)
        if driver is not None:
            self.set_driver(driver)
        if config is not None:
            self.nova_compute_conf(config)
        self.start(name)

    def nova_compute_conf(self, options: ini.Sections) -> None:
        """Set options of nova-compute, as sections, for its next start; they win over all others.

        They take the place of what was set this way before; ``{}`` takes them away.
        """
        compute_conf.write_snippet(self.host, compute_conf.TEST_SNIPPET, options)

    def set_driver(self, driver: str) -> None:
        """Choose nova-compute's driver for its next start."""
        compute_conf.write_driver(self.host, driver)
        with self.state.change() as data:
            data['options']['driver'] = driver

    # Commands

    def environment(self, user: str = 'root') -> dict[str, str]:
        """Return what ``exec`` runs commands with: the PATH and the administrator's OS_*."""
        home = self.host.state_path if user == 'nova' else str(self.host.root_home)
        auth = {name.upper(): value for name, value in self.auth.items()}
        return environment(self.layout, home, auth)

    def command(self, argv: Sequence[str], user: str = 'root') -> list[str]:
        """Return a command that runs another one on host 1; for what needs a Popen of its own."""
        return self.host.enter(argv, user)

    def exec(
        self,
        argv: Sequence[str],
        *,
        user: str = 'root',
        seconds: float = PATIENCE_SECONDS,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on host 1.

        :raises subprocess.CalledProcessError: if it fails, unless ``check`` is false
        :raises subprocess.TimeoutExpired: after ``seconds``
        """
        return subprocess.run(
            self.command(argv, user),
            env={**self.environment(user), **(environment or {})},
            cwd='/',
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=check,
        )
