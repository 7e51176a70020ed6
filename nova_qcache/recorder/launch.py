# SPDX-License-Identifier: Apache-2.0
"""Start a recorder process that outlives whoever starts it, and wait until guests can connect."""

from collections.abc import Sequence
import logging
import os
import subprocess
from typing import IO

from nova_qcache import exception
from nova_qcache.model.key import CacheKey
from nova_qcache.system import control
from nova_qcache.system import processes
from nova_qcache.system import waiting
from nova_qcache.system.paths import Paths
from nova_qcache.system.progress import Progress
from nova_qcache.system.progress import silent

__all__ = ['BUSY', 'reap', 'spawn', 'start']

LOG = logging.getLogger(__name__)

BUSY = 75
"""Exit code of a recorder that found another one at work (EX_TEMPFAIL of sysexits.h)."""

_POLL_SECONDS = 0.01
_started: list['subprocess.Popen[bytes]'] = []


def start(
    paths: Paths,
    key: CacheKey,
    arguments: Sequence[str],
    seconds: float,
    progress: Progress = silent,
) -> control.Status:
    """Start a recorder unless one is at work, and return its status once it serves.

    :param arguments: of nova-qcache-recorder
    :raises RecorderFailed: with what it said, if it ended
    :raises DeadlinePassed: if it does not serve within ``seconds``; it may later, and is found by
        the next boot
    """
    reap()
    log = paths.log(key)
    client = control.RecorderClient(paths.control_socket(key))
    # Held open: whoever starts another recorder at the same time may clear the name away.
    with open(log, 'ab+') as said:
        already = said.seek(0, os.SEEK_END)
        process = spawn(said, arguments)

        def serves() -> control.Status | None:
            nonlocal process
            ended = process.poll()
            try:
                status = client.expect_guest() if ended == BUSY else client.status()
                # Another one may be sooner than ours, which has not noticed yet: it waits for its
                # own guest, and would leave before this one comes.
                is_told = ended == BUSY or status.pid == process.pid
                return status if is_told else client.expect_guest()
            except exception.RecorderUnreachable:
                if ended == BUSY:
                    # The other one does not listen yet, or has closed its socket and is leaving.
                    process = spawn(said, arguments)
                elif ended is not None:
                    log.unlink(missing_ok=True)  # the error has what it says
                    raise exception.RecorderFailed(
                        image_id=key.image_id, reason=_last_words(said, already)
                    ) from None
                return None

        return waiting.until(
            serves,
            what=f'Starting the recorder of image {key.image_id}',
            seconds=seconds,
            remedy=f'See {str(log)!r}',
            poll_seconds=_POLL_SECONDS,
            progress=progress,
        )


def spawn(output: IO[bytes], arguments: Sequence[str]) -> 'subprocess.Popen[bytes]':
    """Start a recorder process and wait for nothing.

    :param output: where it writes its log
    :raises OSError: if it cannot be started
    """
    process = processes.start_module('nova_qcache.cmd.recorder', arguments, output)
    _started.append(process)
    return process


def reap() -> None:
    """Forget the recorders of former calls that have ended; they would stay zombies."""
    _started[:] = [process for process in _started if process.poll() is None]


def _last_words(said: IO[bytes], start_at: int) -> str:
    """Return the last line written since."""
    try:
        said.seek(start_at)
        lines = said.read().decode(errors='replace').splitlines()
    except OSError:
        return 'it printed no error'
    return next((line for line in reversed(lines) if line.strip()), 'it printed no error')
