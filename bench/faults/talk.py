# SPDX-License-Identifier: Apache-2.0
"""A program that answers each line with one JSON object, with a deadline."""

from collections.abc import Sequence
import json
import pathlib
import select
import shutil
import subprocess
from typing import Any

from tests.functional import users
from tests.functional import waiting
from tests.functional.site import Site

__all__ = ['HERE', 'Silent', 'Talk', 'readable']

HERE = pathlib.Path(__file__).resolve().parent


class Silent(Exception):
    """The program has ended, or does not answer."""


def readable(site: Site, name: str) -> str:
    """Copy a program of this folder to where an ordinary user can read it."""
    copy = site.folder / name
    if not copy.exists():
        shutil.copyfile(HERE / name, copy)
        copy.chmod(0o644)
    return str(copy)


class Talk:
    def __init__(self, site: Site, command: Sequence[str], user: users.User) -> None:
        self.process = site.start(
            command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, **user.arguments()
        )

    def ask(self, line: str, seconds: float = waiting.PATIENCE) -> dict[str, Any]:
        """:raises Silent: if there is no answer in time; end it then: a late one would follow"""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(f'{line}\n')
            stdin.flush()
        except OSError as e:
            raise Silent(f'{self.process.args!r}: {e}') from e
        if not select.select([stdout], [], [], seconds)[0]:
            raise Silent(f'no answer to {line!r} within {seconds} s')
        answer = stdout.readline()
        if not answer:
            raise Silent(f'it has ended instead of an answer to {line!r}')
        found: dict[str, Any] = json.loads(answer)
        return found

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
