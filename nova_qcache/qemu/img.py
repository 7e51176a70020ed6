# SPDX-License-Identifier: Apache-2.0
"""The program qemu-img."""

from collections.abc import Callable, Sequence
import json
import os
import pathlib
import re
import subprocess
from typing import Any, TypeVar

from nova_qcache import exception
from nova_qcache.model.source import Node
from nova_qcache.system import processes

__all__ = [
    'OLDEST_QEMU',
    'QemuImg',
    'alone',
    'json_filename',
    'require_recent',
    'require_version',
    'run',
]

OLDEST_QEMU = (7, 0)
"""blockdev-reopen is stable since 6.1 and open-timeout of NBD nodes exists since 7.0."""

_FORMATS = re.compile(r'^Supported (?:image )?formats:\s*(.*?)\n\n', re.MULTILINE | re.DOTALL)
"""One line before qemu 10.0, a paragraph of several lines since."""

_SECONDS = 60
_MFD_NOEXEC_SEAL = 0x8
_T = TypeVar('_T')


def run(
    command: Sequence[str], *, option: str, seconds: float = _SECONDS, stdin: str | None = None
) -> str:
    """Run one of qemu's tools and return its output.

    :param option: the ``[qcache]`` option that says where the tool is
    :raises ToolMissing: if it cannot be started
    :raises ToolFailed: if it ended with an error
    :raises DeadlinePassed: if it did not end in time; it is killed then, and not waited for
    """
    try:
        done = processes.run(command, seconds=seconds, stdin=stdin)
    except OSError as e:
        raise exception.ToolMissing(
            tool=command[0], reason=e.strerror, package='QEMU (Debian: qemu-utils)', option=option
        ) from e
    except subprocess.TimeoutExpired as e:
        raise exception.DeadlinePassed(
            what=f'{" ".join(command):.200}',
            seconds=seconds,
            remedy='Check whether the storage of its files hangs',
        ) from e
    if done.returncode != 0:
        raise exception.ToolFailed(
            command=f'{" ".join(command):.300}',
            code=done.returncode,
            reason=_last_words(done.stderr or done.stdout),
        )
    return done.stdout


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ' / '.join(lines[-3:]) or 'it printed no error'


def require_version(tool: str, option: str) -> tuple[int, ...]:
    """Return the version of one of qemu's tools.

    :raises ToolMissing, ToolTooOld: if it cannot be used
    """
    banner = run([tool, '--version'], option=option)
    match = re.search(r'version (\d+(?:\.\d+)+)', banner)
    if match is None:
        raise exception.ToolMissing(
            tool=tool,
            reason=f'it prints {banner[:60]!r} instead of its version',
            package='QEMU',
            option=option,
        )
    version = tuple(int(part) for part in match[1].split('.'))
    require_recent(tool, version)
    return version


def require_recent(tool: str, version: tuple[int, ...]) -> None:
    """:raises ToolTooOld: if a tool of this version lacks what is needed"""
    if version < OLDEST_QEMU:
        raise exception.ToolTooOld(
            tool=tool,
            version='.'.join(map(str, version)),
            needed='.'.join(map(str, OLDEST_QEMU)),
            package='QEMU',
        )


def json_filename(node: Node) -> str:
    """Return a node tree in the only spelling in which qemu-img takes one."""
    return 'json:' + json.dumps(
        {name: value for name, value in node.items() if name != 'node-name'}
    )


def _in_memory(name: str) -> int:
    """Return the descriptor of a file that is on no disk.

    :raises OSError: if there can be none
    """
    try:
        return os.memfd_create(name)
    except PermissionError:  # vm.memfd_noexec=2 wants MFD_NOEXEC_SEAL, which Linux 6.3 brought
        return os.memfd_create(name, os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)


class QemuImg:
    def __init__(self, program: str = 'qemu-img') -> None:
        self.program = program

    def version(self) -> tuple[int, ...]:
        return require_version(self.program, 'qemu_img')

    def drivers(self) -> set[str]:
        """Return the block drivers that this build of qemu has; its other tools have the same."""
        match = _FORMATS.search(self._run('--help'))
        return set(match[1].split()) if match else set()

    def _run(self, *arguments: str, seconds: float = _SECONDS) -> str:
        return run([self.program, *arguments], option='qemu_img', seconds=seconds)

    def info(self, node: Node) -> dict[str, Any]:
        """Describe an image without opening its backing file."""
        answer = self._run('info', '--output=json', json_filename(node))
        return _parsed(answer, lambda described: {**described})

    def first_bytes(self, node: Node, count: int, seconds: float = _SECONDS) -> bytes:
        """Return the first ``count`` bytes of what a protocol node reaches, or the sectors of 512
        bytes that there are."""
        source = json_filename({'driver': 'raw', 'read-only': True, 'file': node})
        # In memory: qemu-img syncs what it has written, and a boot waits for it.
        with open(_in_memory('first-bytes'), 'rb') as file:
            place = f'/proc/{os.getpid()}/fd/{file.fileno()}'
            self._run(
                'dd',
                '-f',
                'raw',
                '-O',
                'raw',
                f'bs={count}',
                'count=1',
                f'if={source}',
                f'of={place}',
                seconds=seconds,
            )
            return file.read()

    def create_cache(
        self,
        path: pathlib.Path,
        virtual_size: int,
        *,
        backing: str,
        backing_format: str,
        cluster_size: int,
        extended_l2: bool,
    ) -> None:
        """Make an empty qcow2 file whose header names its base, which is not opened for that."""
        # One bit for each cluster's reference count, since a cache shares none. So one block of
        # counts covers 2 GiB of a file even with clusters of 16 KiB, and none has to be placed
        # beyond the quota, where it could not be written: the seal would fail.
        options = (
            f'cluster_size={cluster_size},extended_l2={"on" if extended_l2 else "off"},'
            'refcount_bits=1'
        )
        self._run(
            *(
                'create',
                '-q',
                '-u',
                '-f',
                'qcow2',
                '-o',
                options,
                '-b',
                backing,
                '-F',
                backing_format,
            ),
            *(str(path), str(virtual_size)),
        )

    def check(self, path: pathlib.Path) -> int:
        """Check the tables of a qcow2 file, without repairing anything.

        :return: up to where its tables use it, in bytes
        :raises ToolFailed: if they are corrupt or leak clusters
        """
        arguments = ('check', '--output=json', '-f', 'qcow2', json_filename(alone(path)))
        answer = self._run(*arguments, seconds=600)
        return _parsed(answer, lambda checked: int(checked['image-end-offset']))

    def cached_extents(
        self, path: pathlib.Path, *, is_written: bool = False, seconds: float = 600
    ) -> list[tuple[int, int]]:
        """Return the (offset, length) in bytes of all that a qcow2 file holds itself, zeros too.

        :param is_written: as :func:`alone` takes it; what is not in the file yet is not returned
        """
        node = alone(path, is_written=is_written)
        answer = self._run('map', '--output=json', json_filename(node), seconds=seconds)
        # "present" is false for what the file leaves to its backing file. qemu < 6.1 lacks it.
        return _parsed(
            answer,
            lambda extents: [
                (int(extent['start']), int(extent['length']))
                for extent in extents
                if extent['present']
            ],
        )


def alone(path: pathlib.Path, *, is_written: bool = False) -> Node:
    """A cache file without its base, which need not be reachable for looking at its tables.

    :param is_written: somebody may be writing to it, and its tables may be behind. Otherwise it is
        sealed or idle, and cannot be opened if it is not
    """
    file = {'driver': 'file', 'filename': str(path)}
    node: Node = {'driver': 'qcow2', 'backing': None, 'file': file}
    return {**node, 'read-only': True, 'force-share': True} if is_written else node


def _parsed(answer: str, read: Callable[[Any], _T]) -> _T:
    """Read what qemu-img printed as JSON.

    :raises ToolFailed: if it is not what was expected
    """
    try:
        return read(json.loads(answer))
    except (ValueError, KeyError, TypeError) as e:
        reason = f'its output {answer[:80]!r} cannot be parsed ({e})'
        raise exception.ToolFailed(command='qemu-img', code=0, reason=reason) from e
