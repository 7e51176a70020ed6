# SPDX-License-Identifier: Apache-2.0
"""A compute host, looked at with the commands that its operator has."""

from collections.abc import Sequence
import dataclasses
import json
import re
import shlex
import subprocess
from typing import Any

from nova_qcache_tempest_plugin import domain

__all__ = ['ComputeHost', 'HostError', 'ProgramMissing']

_NOT_FOUND = 127
"""What a shell, env, nsenter and ssh end with when there is no such program on the host."""
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]*')
"""ssh lets a shell of the host read what it is given."""


class HostError(Exception):
    """A command on a compute host did not do what it is for."""


class ProgramMissing(HostError):
    """The host has no such program."""


@dataclasses.dataclass(frozen=True)
class ComputeHost:
    """All methods raise :class:`HostError` if a command fails, does not end in time, or prints
    what makes no sense."""

    name: str
    """Of its nova-compute."""
    host_command: str
    """What is put before a command; ``{host}`` stands for the name."""
    nova_qcache_command: str = 'nova-qcache'
    virsh_command: str = 'virsh'
    timeout: int = 60
    """Of each command, in seconds."""

    def require_programs(self) -> None:
        """:raises ProgramMissing: if one is not there"""
        for option in ('nova_qcache_command', 'virsh_command'):
            self._run(option, '--version')

    def states(self, image_id: str) -> list[str]:
        """Return the states of all caches of an image that are there."""
        rows = self._nova_qcache('list')
        return [
            row['state'] for row in rows if row['image_id'] == image_id and row['state'] != 'COLD'
        ]

    def show(self, image_id: str) -> dict[str, Any]:
        """Return what is known of the newest cache of an image, which must exist."""
        shown: dict[str, Any] = self._nova_qcache('show', image_id)
        return shown

    def figures(self, image_id: str) -> dict[str, Any]:
        """Return what was counted of the boots of an image; nothing if nothing was."""
        rows = self._nova_qcache('stats')
        return next((row for row in rows if row['image_id'] == image_id), {})

    def forget(self, image_id: str) -> None:
        """Remove the caches of an image that no server stands on any more."""
        if self.states(image_id):
            self._run('nova_qcache_command', 'remove', '--force', _checked(image_id))

    def boot(self, instance_name: str, image_id: str) -> domain.Boot:
        """Return how a running server of that image has booted.

        :param instance_name: what Nova calls its domain
        """
        xml = self._run('virsh_command', 'dumpxml', _checked(instance_name))
        try:
            return domain.boot(xml, image_id)
        except ValueError as e:
            raise HostError(f'the domain {instance_name} on {self.name}: {e}') from e

    def _nova_qcache(self, *arguments: str) -> Any:
        words = [_checked(argument) for argument in arguments]
        text = self._run('nova_qcache_command', *words, '-f', 'json')
        try:
            return json.loads(text)
        except ValueError as e:
            raise HostError(
                f'nova-qcache {" ".join(arguments)} on {self.name} printed no JSON but {text!r}'
            ) from e

    def _run(self, option: str, *arguments: str) -> str:
        """Run the program of an option and return what it printed."""
        before = shlex.split(self.host_command.replace('{host}', self.name))
        argv = [*before, *shlex.split(getattr(self, option)), *arguments]
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors='replace',
                timeout=self.timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as e:
            raise HostError(
                f'{shlex.join(argv)} took longer than {self.timeout} s; '
                f'see [qcache] host_command and host_timeout'
            ) from e
        except OSError as e:
            raise HostError(f'{shlex.join(argv)}: {e}; see [qcache] host_command') from e
        if done.returncode == 0:
            return done.stdout
        # sudo ends with 1 in this case.
        kind = HostError
        if done.returncode == _NOT_FOUND or 'command not found' in done.stderr:
            kind = ProgramMissing
        raise kind(_told(argv, done, self.name, option))


def _checked(word: str) -> str:
    if not _NAME.fullmatch(word):
        raise HostError(f'{word!r} is no name that a command on a compute host is given')
    return word


def _told(
    argv: Sequence[str], done: 'subprocess.CompletedProcess[str]', host: str, option: str
) -> str:
    said = (done.stderr.strip() or done.stdout.strip())[-500:]
    return (
        f'{shlex.join(argv)} ended with {done.returncode} for {host}: {said}; '
        f'see [qcache] host_command and {option}'
    )
