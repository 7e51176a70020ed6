# SPDX-License-Identifier: Apache-2.0
"""A qemu-storage-daemon process: started by us, or found alive after its recorder was killed."""

from collections.abc import Sequence
import pathlib
import resource
import signal
import subprocess
import time

from nova_qcache import exception
from nova_qcache.system import processes

__all__ = ['StorageDaemon']

_QUIT_SECONDS = 5
_START_SECONDS = 5
"""Time that a new daemon may take until it listens, in seconds."""
_POLL_SECONDS = 0.005


class StorageDaemon:
    """A qemu-storage-daemon process; :mod:`nova_qcache.qemu.qmp` has its monitor."""

    def __init__(self, process: processes.Process) -> None:
        self.process = process

    @classmethod
    def start(
        cls,
        program: str,
        qmp_socket: pathlib.Path,
        log: pathlib.Path,
        file_limit: int | None = None,
        highest_file_limit: int | None = None,
        options: Sequence[str] = (),
    ) -> 'StorageDaemon':
        """Start a daemon, by default without any node.

        :param file_limit: bytes beyond which it can write to no file, whatever becomes of us: the
            kernel keeps to it. None for one that writes to none
        :param highest_file_limit: the same after :meth:`raise_file_limit`
        :param options: what it opens and serves from its start, as
            :func:`nova_qcache.qemu.block_graph.served` gives it
        :raises ToolMissing: if the program cannot be run
        """
        command = [
            program,
            *('--chardev', _chardev(qmp_socket)),
            *('--monitor', 'chardev=qmp'),
            *options,
        ]
        try:
            with open(log, 'ab') as output:
                # restore_signals=False hands down that Python ignores SIGXFSZ: over its limit the
                # daemon gets EFBIG, which quorum answers from the base, and not a signal that
                # kills it.
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd='/',
                    umask=0o117,  # its sockets: this user and the group
                    start_new_session=True,
                    restore_signals=False,
                )
        except OSError as e:
            raise exception.ToolMissing(
                tool=program,
                reason=e.strerror,
                package='QEMU (Debian: qemu-system-common)',
                option='qemu_storage_daemon',
            ) from e
        if file_limit is not None and highest_file_limit is not None:
            # It knows no cache yet: the limit is there before its first write.
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (file_limit, highest_file_limit))
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (files, files))
        child.returncode = 0  # our handle reaps it: nothing is left to Popen
        return cls(processes.Process(child.pid))

    @classmethod
    def adopt(cls, pid: int) -> 'StorageDaemon':
        """Take over a living daemon that another recorder started.

        :raises ProcessLookupError: if it has just ended
        """
        return cls(processes.Process(pid))

    @staticmethod
    def find(qmp_socket: pathlib.Path) -> int | None:
        """Return the process that listens on the monitor of a daemon, None if nobody does.

        One that was started a moment ago is waited for: whoever started it may have been killed
        since, and another one beside it would take its sockets away.

        :raises OSError: if that cannot be told
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            pid = processes.listener_pid(qmp_socket)
            if pid is not None or processes.with_argument(_chardev(qmp_socket)) is None:
                return pid
            if time.monotonic() >= deadline:
                return None
            time.sleep(_POLL_SECONDS)

    def listens(self, socket: pathlib.Path) -> bool:
        """Return whether the daemon listens on a socket that it was told to serve, as soon as it
        does; it gets a moment. False if it waits for its base, or has ended: its log says why."""
        deadline = time.monotonic() + _START_SECONDS
        while processes.listener_pid(socket) is None:
            if self.process.has_ended(_POLL_SECONDS) or time.monotonic() >= deadline:
                return False
        return True

    def reap(self) -> bool:
        """Take the exit status of a child, and return whether it has ended."""
        if not self.process.has_ended():
            return False
        self.process.reap()
        self.process.close()
        return True

    def raise_file_limit(self) -> None:
        """Raise its limit on file sizes to the highest one that it was started with."""
        highest = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (highest, highest))

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self, asked: bool = True) -> None:
        """End it: nobody is connected any more.

        :param asked: whether it was told to quit over QMP: then it gets a moment to do so
        :raises DeadlinePassed: if not even SIGKILL ends it, as with a hanging mount
        """
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                self.process.signal(number)
            elif not asked:
                continue
            if self.process.has_ended(_QUIT_SECONDS):
                self.process.reap()
                return
        raise exception.DeadlinePassed(
            what=f'Ending process {self.pid} (qemu-storage-daemon)',
            seconds=3 * _QUIT_SECONDS,
            remedy='It is probably waiting for the storage of the base',
        )


def _chardev(qmp_socket: pathlib.Path) -> str:
    path = str(qmp_socket).replace(',', ',,')
    return f'socket,id=qmp,path={path},server=on,wait=off'
