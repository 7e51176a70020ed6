# SPDX-License-Identifier: Apache-2.0
"""Others on the host, who leave little of it: programs that compute, and programs that write and
sync without end."""

from collections.abc import Iterator, Mapping
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

__all__ = ['KINDS', 'burning']

_COMPUTERS = 12
_WRITERS = 2
_WRITE = 'while :; do dd if=/dev/zero of="$0" bs=1M count=400 conv=fsync 2>/dev/null; done'

KINDS = {'cpu': _COMPUTERS, 'disk': _WRITERS}
"""How many programs there are of each kind, unless another number is asked for."""


@contextlib.contextmanager
def burning(kinds: Mapping[str, int]) -> Iterator[None]:
    """Run so many of each kind beside what is tried, on the file system where the hosts have their
    folders."""
    with contextlib.ExitStack() as undo:
        folder = pathlib.Path(tempfile.mkdtemp(prefix='qct-burn-', dir='/tmp'))
        undo.callback(shutil.rmtree, folder)
        for kind, count in kinds.items():
            for number in range(count):
                written = folder / str(number)
                script = 'while :; do :; done' if kind == 'cpu' else _WRITE
                # Each in a session of its own: the kernel shares its time out by session. None
                # outlives us, however we end.
                burner = subprocess.Popen(
                    ['setpriv', '--pdeathsig', 'KILL', 'sh', '-c', script, str(written)],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
                undo.callback(_end, burner)
        yield


def _end(burner: 'subprocess.Popen[bytes]') -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(burner.pid, signal.SIGKILL)
    burner.wait()
