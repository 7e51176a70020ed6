# SPDX-License-Identifier: Apache-2.0
"""Those who read through a recorder or from a sealed cache, as the user that qemu runs as."""

import hashlib
import json
import pathlib
import re
import select
import shutil
import subprocess
from types import TracebackType
from typing import Any, Self

from tests.functional import users
from tests.functional import waiting
from tests.functional.site import Site

__all__ = [
    'Load',
    'NbdGuest',
    'file_node',
    'play_chain',
    'read_chain',
    'require_equal',
    'uri',
    'wait_until_served',
]

_HERE = pathlib.Path(__file__).parent
_REPOSITORY = _HERE.parents[1]
_DISTRIBUTION_PYTHON = '/usr/bin/python3'
_LOAD_SECONDS = waiting.PATIENCE + 60
"""For a load, which counts what is not done at its own deadline as errors."""


def uri(plan: dict[str, Any]) -> str:
    return f'nbd+unix:///{plan["export"]}?socket={plan["socket"]}'


def _readable_copy(site: Site, script: pathlib.Path) -> str:
    # The checkout may lie where an ordinary user cannot read.
    copy = site.folder / script.name
    if not copy.exists():
        shutil.copyfile(script, copy)
        copy.chmod(0o644)
    return str(copy)


class NbdGuest:
    """One connection to a recorder, from a process of its own."""

    def __init__(self, site: Site, plan: dict[str, Any], user: users.User = users.GUEST) -> None:
        script = _readable_copy(site, _HERE / 'guest_client.py')
        self.process = site.start(
            [_DISTRIBUTION_PYTHON, script, uri(plan)], stdin=subprocess.PIPE, **user.arguments()
        )
        try:
            self.greeting = self._answer()
        except BaseException:
            self.leave()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    @property
    def connected(self) -> bool:
        return self.greeting.startswith('connected')

    def read(self, offset: int, length: int) -> str:
        """Return the SHA-256 of a range, or "error" and the reason."""
        self._say(f'{offset} {length}')
        return self._answer()

    def begin(self, offset: int, length: int) -> None:
        """Begin to read a range: the recorder's daemon is asked for it when this returns."""
        self._say(f'{offset} {length} tell')
        assert self._answer() == 'asked'

    @property
    def waits(self) -> bool:
        """Whether what was begun has no answer yet."""
        assert self.process.stdout is not None
        return not select.select([self.process.stdout], [], [], 0)[0]

    def finish(self, base: pathlib.Path, offset: int, length: int) -> None:
        """Wait for what was begun, and compare it with the base, given as a raw file."""
        with open(base, 'rb') as file:
            file.seek(offset)
            wanted = hashlib.sha256(file.read(length)).hexdigest()
        answer = self._answer()
        assert answer == wanted, f'{length} bytes at {offset}: {answer}'

    def require(self, base: pathlib.Path, offset: int, length: int) -> None:
        """Read a range and compare it with the base, given as a raw file."""
        self._say(f'{offset} {length}')
        self.finish(base, offset, length)

    def leave(self) -> None:
        """Disconnect without a word, as a guest does whose qemu ends."""
        self.process.kill()
        self.process.communicate()

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f'{line}\n')
        self.process.stdin.flush()

    def _answer(self) -> str:
        stdout = self.process.stdout
        assert stdout is not None
        assert select.select([stdout], [], [], waiting.PATIENCE)[0], 'a guest waits for ever'
        line: str = stdout.readline()
        assert line, 'a guest has ended'
        return line.strip()


def wait_until_served(site: Site, plan: dict[str, Any]) -> None:
    """Wait until guests can connect to the socket of a plan, whose daemon was killed."""

    def served() -> bool:
        if not pathlib.Path(plan['socket']).exists():
            return False
        with NbdGuest(site, plan) as guest:
            return guest.connected

    waiting.until(served, 'the same socket, served again')


class Load:
    """Many NBD clients at once, every read compared (bench/nbd_load.py)."""

    def __init__(
        self, site: Site, plan: dict[str, Any], reference: pathlib.Path, *options: str
    ) -> None:
        script = _readable_copy(site, _REPOSITORY / 'bench' / 'nbd_load.py')
        self.process = site.start(
            [
                *(_DISTRIBUTION_PYTHON, script, f'--uri={uri(plan)}'),
                *(f'--reference={reference}', f'--deadline={waiting.PATIENCE}', *options),
            ],
            **users.GUEST.arguments(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def wait_until_read(self) -> None:
        """Wait until all reads of a load with ``--hold`` are answered."""
        assert self.process.stderr is not None
        assert select.select([self.process.stderr], [], [], _LOAD_SECONDS)[0], (
            'a load does not end'
        )
        assert self.process.stderr.readline() == 'holding\n'

    def result(self) -> dict[str, Any]:
        """Wait for its end and return what it counted."""
        stdout, stderr = self.process.communicate(timeout=_LOAD_SECONDS)
        assert self.process.returncode == 0, stderr
        counted: dict[str, Any] = json.loads(stdout)
        return counted

    def require_faultless(self) -> dict[str, Any]:
        """Wait for its end; every read was answered with the bytes of the base."""
        counted = self.result()
        assert (counted['errors'], counted['wrong']) == (0, 0), counted
        assert counted['reads'] > 0, counted
        return counted


def file_node(path: pathlib.Path) -> dict[str, Any]:
    """Return the node of a base that is a file, as :func:`play_chain` takes it."""
    return {'driver': 'file', 'filename': str(path)}


def play_chain(
    cache: str, base: dict[str, Any] | None, base_format: str = 'raw'
) -> dict[str, Any]:
    """Return the chain of a playing guest, less its overlay.

    :param base: the node that reaches the base's bytes. None for what the header of the cache
        names: qemu-img would mix that with the options of any node but a file's.
    """
    chain: dict[str, Any] = {
        'driver': 'qcow2',
        'read-only': True,
        'file': {'driver': 'file', 'filename': cache},
    }
    if base is not None:
        chain['backing'] = {'driver': base_format, 'read-only': True, 'file': base}
        if base_format == 'qcow2':
            chain['backing']['backing'] = None
    return chain


def read_chain(site: Site, chain: dict[str, Any], ranges: list[tuple[int, int]]) -> None:
    """Read ranges through a chain as a guest's qemu does."""
    command = ['qemu-io', '-r', f'json:{json.dumps(chain)}']
    for offset, length in ranges:
        command += ['-c', f'read {offset} {length}']
    done = site.run(command, users.GUEST)
    assert done.returncode == 0, done
    assert len(re.findall(r'^read \d+/\d+ bytes', done.stdout, re.MULTILINE)) == len(ranges), done


def require_equal(site: Site, chain: dict[str, Any], reference: pathlib.Path) -> None:
    """Read a whole chain as the guest's user, by reads and not by block status, and compare."""
    out = site.folder / 'out'
    out.mkdir(exist_ok=True)
    out.chmod(0o777)
    copy = out / 'copy.raw'
    command = ['qemu-img', 'convert', '-q', '-O', 'raw', f'json:{json.dumps(chain)}', str(copy)]
    done = site.run(command, users.GUEST)
    assert done.returncode == 0, done
    # A base whose length is no multiple of 512 is followed by zeros.
    done = site.run(['cmp', f'--bytes={reference.stat().st_size}', str(copy), str(reference)])
    assert done.returncode == 0, done
    copy.unlink()
