# SPDX-License-Identifier: Apache-2.0
"""The demo's view of nova-qcache: its command line, and nothing else of it."""

from __future__ import annotations

import json
from pathlib import Path
import subprocess
from typing import Any

__all__ = ['Product']


class Product:
    """`nova-qcache` with a configuration, caches and sockets of its own.

    :param program: the command.
    :param cache_path: folder of the caches.
    :param run_path: folder of the sockets; the configuration is written beside it.
    :param quota_mib: the quota of a cache in MiB.
    :param longest_s: after so many seconds a recording is over at the latest, idle or not.
    """

    def __init__(
        self, program: str, *, cache_path: Path, run_path: Path, quota_mib: int, longest_s: int
    ) -> None:
        self.program = program
        self.config = run_path.with_name('nova-qcache.conf')
        cache_path.mkdir(parents=True, exist_ok=True)
        run_path.mkdir(parents=True, exist_ok=True)
        self.config.write_text(
            '[qcache]\n'
            f'cache_path = {cache_path}\n'
            f'run_path = {run_path}\n'
            f'quota = {quota_mib}\n'
            f'recording_idle_seconds = {longest_s}\n'
            f'recording_max_seconds = {longest_s}\n'
            'libvirt_uri = \n'
            'start_keeper = false\n'  # nothing is killed here
        )

    def text(self, *arguments: str, timeout_s: float = 60) -> str:
        """Run a command and return what it printed."""
        command = [self.program, '--config-file', str(self.config), *arguments]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(
                f'{self._named(arguments)} has not ended in {timeout_s:g} s'
            ) from None
        if done.returncode:
            raise RuntimeError(
                f'{self._named(arguments)} failed (status {done.returncode}): '
                f'{done.stderr.decode(errors="replace").strip()}'
            )
        return done.stdout.decode()

    def json(self, *arguments: str, timeout_s: float = 60) -> dict[str, Any]:
        """Run a command with ``-f json`` and return its answer."""
        output = self.text(*arguments, '-f', 'json', timeout_s=timeout_s)
        try:
            answer: dict[str, Any] = json.loads(output)
        except ValueError:
            raise RuntimeError(f'{self._named(arguments)} printed no JSON: {output!r}') from None
        return answer

    @staticmethod
    def _named(arguments: tuple[str, ...]) -> str:
        return f'nova-qcache {" ".join(arguments)}'
