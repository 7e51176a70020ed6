# SPDX-License-Identifier: Apache-2.0
"""The program qemu-io, as a reader that compares two images range by range."""

from collections.abc import Iterable, Iterator, Sequence
import os
import re
import selectors
import subprocess
import tempfile

from nova_qcache import exception
from nova_qcache.model.source import Node
from nova_qcache.qemu import img
from nova_qcache.system import processes
from nova_qcache.system.progress import Done
from nova_qcache.system.progress import ignore

__all__ = ['QemuIo']

_CHUNK = 1024 * 1024
_STALL_SECONDS = 300
_GROUP = 'rate'

_DONE = re.compile(r'read (\d+)/\d+ bytes at offset (\d+)')
_FAILED = 'read failed: '
_MISMATCH = re.compile(r'blkverify: .*contents mismatch at offset (-?\d+)')


class QemuIo:
    def __init__(self, program: str = 'qemu-io') -> None:
        self.program = program

    def first_difference(
        self,
        one: Node,
        other: Node,
        extents: Iterable[tuple[int, int]],
        progress: Done = ignore,
        rate: int = 0,
    ) -> int | None:
        """Read the same ranges of two images and compare them byte by byte.

        Both sides are read by qemu itself through its ``blkverify`` driver, so all formats and
        protocols of a base are open to it, and what is compared is what a guest would be given.

        :param one, other: node trees without node names, both read-only
        :param extents: (offset, length) in bytes
        :param progress: called with the number of bytes compared since its last call
        :param rate: bytes of the other one that are read in a second at the most; 0 is no limit
        :return: the offset of the first byte that differs, or None if all are equal
        :raises ToolFailed: if something could not be read
        :raises DeadlinePassed: if no byte came for five minutes
        """
        throttle = []
        if rate:
            throttle = ['--object', f'throttle-group,id={_GROUP},x-bps-read={rate}']
            other = {'driver': 'throttle', 'throttle-group': _GROUP, 'file': other}
        filename = img.json_filename(
            {'driver': 'blkverify', 'test': one, 'raw': other, 'read-only': True}
        )
        command = [self.program, *throttle, '-r', filename]
        with tempfile.TemporaryFile('w+') as script:
            expected = 0
            for offset, length in _chunks(extents):
                script.write(f'read {offset} {length}\n')
                expected += length
            script.flush()
            script.seek(0)
            try:
                process = subprocess.Popen(
                    command,
                    stdin=script,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    bufsize=0,
                )
            except OSError as e:
                raise self._missing(e) from e
        try:
            return self._follow(process, expected, progress)
        finally:
            processes.end(process)

    def readable(
        self, image: Node, extents: Sequence[tuple[int, int]], seconds: float
    ) -> dict[int, bool]:
        """Read ranges of an image one by one, and return whether each can be read, by its offset.

        If that takes longer than ``seconds``, the range that it hangs at counts as one that it
        does not give, and nothing is said of those after it.

        :param image: a node tree without node names, read-only
        :param extents: (offset, length) in bytes, each within the image
        :raises ToolMissing: if the program cannot be run
        """
        script = ''.join(f'read {offset} {length}\n' for offset, length in extents)
        command = [self.program, '-r', img.json_filename(image)]
        try:
            said = processes.run(command, seconds=seconds, stdin=script).stdout
            asked = len(extents)
        except OSError as e:
            raise self._missing(e) from e
        except subprocess.TimeoutExpired as e:
            said = (e.stdout or b'').decode(errors='replace')
            asked = len(_DONE.findall(said)) + said.count(_FAILED) + 1
        read = {int(offset) for _, offset in _DONE.findall(said)}
        return {offset: offset in read for offset, _ in extents[:asked]}

    def _missing(self, error: OSError) -> exception.ToolMissing:
        return exception.ToolMissing(
            tool=self.program,
            reason=error.strerror,
            package='QEMU (Debian: qemu-utils)',
            option='qemu_io',
        )

    def _follow(
        self,
        process: 'subprocess.Popen[bytes]',
        expected: int,
        progress: Done,
    ) -> int | None:
        said = ''
        compared = 0
        for line in _lines(process):
            mismatch = _MISMATCH.search(line)
            if mismatch:
                return int(mismatch[1])
            done = _DONE.search(line)
            if done:
                compared += int(done[1])
                progress(int(done[1]))
            elif 'failed' in line or 'error' in line.lower():
                raise exception.ToolFailed(command=self.program, code=1, reason=line.strip())
            elif line.strip():
                said = line.strip()
        if _exit_code(process) == 0 and compared != expected:
            said = f'it compared {compared} of {expected} bytes / {said}'
        if process.returncode != 0 or compared != expected:
            raise exception.ToolFailed(command=self.program, code=process.returncode, reason=said)
        return None


def _exit_code(process: 'subprocess.Popen[bytes]') -> int:
    """Return how it ended, which comes soon after the end of its output."""
    try:
        return process.wait(timeout=10)
    except subprocess.TimeoutExpired as e:
        raise exception.DeadlinePassed(
            what='The end of qemu-io', seconds=10, remedy='Check whether the base hangs'
        ) from e


def _chunks(extents: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for offset, length in extents:
        for start in range(offset, offset + length, _CHUNK):
            yield start, min(_CHUNK, offset + length - start)


def _lines(process: 'subprocess.Popen[bytes]') -> Iterator[str]:
    """Yield what the process prints, with a deadline on its silence."""
    assert process.stdout is not None
    rest = b''
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(_STALL_SECONDS):
                raise exception.DeadlinePassed(
                    what='Comparing a cache with its base',
                    seconds=_STALL_SECONDS,
                    remedy='Check whether the base hangs',
                )
            piece = os.read(process.stdout.fileno(), 65536)
            *lines, rest = (rest + piece).split(b'\n')
            yield from (line.decode(errors='replace') for line in lines)
            if not piece:
                yield rest.decode(errors='replace')
                return
