# SPDX-License-Identifier: Apache-2.0
"""Runs of the real tempest against the stack, and what became of each test."""

from collections.abc import Mapping
import contextlib
import io
import os
import pathlib
import re
import signal
import subprocess
from typing import NamedTuple

from qcache_stack import ini
from qcache_stack.stack import Stack
import subunit
import testtools

from tests.openstack import waiting

__all__ = ['Outcome', 'Workspace']

_RUN_SECONDS = 3000
_SUBUNIT = b'\xb3'
"""What a stream of results begins with; stestr may have a complaint instead."""


class Outcome(NamedTuple):
    status: str
    """``success``, ``fail``, ``skip`` and so on, as subunit has them."""
    reason: str
    """Why a test was skipped, or the text of its failure."""


class Workspace:
    """A folder of ``tempest init``."""

    def __init__(self, stack: Stack, folder: pathlib.Path) -> None:
        self.folder = folder / 'workspace'
        self._stack = stack
        # Tempest keeps a list of workspaces in the home.
        self._environment = {**stack.environment(), 'HOME': str(folder)}
        self._run(['tempest', 'init', str(self.folder)], folder)

    def configure(self, sections: Mapping[str, Mapping[str, object]]) -> None:
        """Write tempest.conf: what the stack is, and more sections on top of that."""
        path = self.folder / 'etc' / 'tempest.conf'
        path.write_text(ini.render(ini.merge(self._of_the_stack(), sections)))

    def run(self, regex: str, *, concurrency: int) -> dict[str, Outcome]:
        """Run the tests that match, and return what became of each, by its dotted name; a class
        that is skipped as a whole is there under its own name.

        :raises subprocess.TimeoutExpired: if it does not end; nothing of it runs any more then
        """
        command = ['tempest', 'run', f'--regex={regex}', f'--concurrency={concurrency}']
        said = self._run(command, self.folder, check=False)
        last = ['stestr', 'last', '--subunit']
        stream = self._run(last, self.folder, check=False)
        assert stream.startswith(_SUBUNIT), (said + stream).decode(errors='replace')
        outcomes = _outcomes(stream)
        assert outcomes, said.decode(errors='replace')
        return outcomes

    def _of_the_stack(self) -> dict[str, dict[str, object]]:
        auth = self._stack.auth
        return {
            'DEFAULT': {'log_file': self.folder / 'logs' / 'tempest.log'},
            'oslo_concurrency': {'lock_path': self.folder / 'lock'},
            'auth': {
                'admin_username': auth['os_username'],
                'admin_password': auth['os_password'],
                'admin_project_name': auth['os_project_name'],
                'admin_domain_name': auth['os_project_domain_name'],
                'create_isolated_networks': False,
            },
            'identity': {
                'uri_v3': auth['os_auth_url'],
                'auth_version': 'v3',
                'region': auth['os_region_name'],
            },
            'compute': {
                'flavor_ref': 'tiny',
                'flavor_ref_alt': 'small',
                'build_interval': 1,
                'build_timeout': waiting.PATIENCE_SECONDS,
            },
            'compute-feature-enabled': {'resize': True},
            'service_available': {'cinder': False, 'swift': False},
            'validation': {'run_validation': False},
        }

    def _run(self, command: list[str], cwd: pathlib.Path, *, check: bool = True) -> bytes:
        # With a session of its own: stestr starts workers, and all of them end together.
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=_RUN_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.returncode == 0 or not check, said.decode(errors='replace')
        return said


def _outcomes(stream: bytes) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}

    def take(test: dict) -> None:
        details = test['details']
        reason = details.get('reason') or details.get('traceback')
        name = re.sub(r'\[.*\]$', '', test['id'])
        whole_class = re.fullmatch(r'setUpClass \((.*)\)', name)
        name = whole_class[1] if whole_class else name
        found[name] = Outcome(test['status'], reason.as_text() if reason else '')

    result = testtools.StreamToDict(take)
    result.startTestRun()
    subunit.ByteStreamToStreamResult(io.BytesIO(stream)).run(result)
    result.stopTestRun()
    return found
