# SPDX-License-Identifier: Apache-2.0
"""Respawner: restarts recorders that were killed, which their daemons and guests need.

The guests come first. Where the daemon is gone, too, another one is started here that serves them,
before anything else: an interpreter takes long to start on a busy machine, and a disk that others
write to may take longer to answer than guests wait. Nothing on that way is written to a disk.

The recorder that is started then records nothing: it takes over the daemon, and leaves as soon as
nobody needs it.
"""

from collections.abc import Sequence
import dataclasses
import logging
import subprocess
import time

from nova_qcache import exception
from nova_qcache.cache import plugins
from nova_qcache.cache.catalog import Catalog
from nova_qcache.model.key import CacheKey
from nova_qcache.model.source import Node
from nova_qcache.model.states import State
from nova_qcache.qemu import block_graph
from nova_qcache.qemu.storage_daemon import StorageDaemon
from nova_qcache.recorder import launch
from nova_qcache.recorder import respawn
from nova_qcache.system import locks
from nova_qcache.system import processes
from nova_qcache.system.paths import Paths

__all__ = ['Respawner']

LOG = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 4
"""Guests wait meanwhile."""
_STEADY_SECONDS = 10
"""A recorder that has been at work for so long was started well: what ends it then is new."""
_MOST_ATTEMPTS = 900
"""About an hour: a base that is away for longer has cost its guests their reads anyway."""


@dataclasses.dataclass
class _Attempts:
    """Attempts to start one recorder."""

    count: int = 0
    last_at: float = 0.0
    """Time of the monotonic clock, in seconds, as the next one."""
    again_at: float = 0.0
    process: 'subprocess.Popen[bytes] | None' = None
    may_serve: bool = True
    """True until a daemon has failed after the last start."""

    @property
    def is_starting(self) -> bool:
        """True while the recorder that was started last runs."""
        return self.process is not None and self.process.poll() is None


class Respawner:
    def __init__(
        self, paths: Paths, catalog: Catalog, storage_daemon: str, reconnect_seconds: int
    ) -> None:
        """:param storage_daemon: the program qemu-storage-daemon
        :param reconnect_seconds: for how long reads wait for a base that went away
        """
        self._paths = paths
        self._catalog = catalog
        self._storage_daemon = storage_daemon
        self._reconnect_seconds = reconnect_seconds
        self._attempts: dict[CacheKey, _Attempts] = {}
        self._daemons: list[StorageDaemon] = []
        """Children of this process, whoever sees to them."""

    def run_once(self) -> int:
        """Restart all recorders that have died.

        :return: how many recorders there are or should be
        :raises OSError: if the folders cannot be read
        """
        launch.reap()
        self._daemons = [each for each in self._daemons if not each.reap()]
        keys = set(respawn.keys(self._paths))
        for key in set(self._attempts) - keys:
            del self._attempts[key]
        for key in sorted(keys):
            now = time.monotonic()
            attempts = self._attempts.get(key, _Attempts())
            if self._answers(key):
                if now - attempts.last_at >= _STEADY_SECONDS:
                    self._attempts.pop(key, None)
            elif attempts.is_starting or now >= attempts.again_at:
                self._respawn(key, attempts, now)
        return len(keys)

    def _answers(self, key: CacheKey) -> bool:
        try:
            return processes.listener_pid(self._paths.control_socket(key)) is not None
        except OSError as e:  # its queue is full, for example: it lives
            LOG.debug('Failed to connect to recorder %s; taking it for alive: %s', key.stem, e)
            return True

    def _respawn(self, key: CacheKey, attempts: _Attempts, now: float) -> None:
        try:
            # A recorder has it from its start to its end, long before and after it answers.
            with locks.recorder(self._paths.locks, key):
                arguments = respawn.read(self._paths, key)
                if arguments is None:  # it has ended in good order
                    return
                if attempts.count >= _MOST_ATTEMPTS:
                    LOG.error('Recorder for image %s fails to start; giving up', key.image_id)
                    respawn.forget(self._paths, key)
                    return
                is_new = not attempts.is_starting
                if is_new:
                    pause = min(_LONGEST_PAUSE_SECONDS, 2.0**attempts.count)
                    attempts.count += 1
                    attempts.last_at, attempts.again_at = now, now + pause
                    attempts.may_serve = True
                    self._attempts[key] = attempts
                # Also while a recorder starts: its daemon may have died after the one before.
                if attempts.may_serve:
                    attempts.may_serve = self._serve(key, arguments)
        except exception.RecorderBusy:
            return
        if not is_new:
            return
        with open(self._paths.log(key), 'ab') as output:
            attempts.process = launch.spawn(
                output,
                [
                    '--serve-only',
                    f'--generation={key.generation}',
                    f'--revision={key.revision}',
                    *arguments,
                ],
            )
        LOG.warning('Recorder for image %s died; restarting it', key.image_id)

    def _serve(self, key: CacheKey, arguments: Sequence[str]) -> bool:
        """Start a daemon for the guests of a dead one, unless a daemon lives; return whether there
        is a daemon that serves."""
        monitor, socket = self._paths.qmp_socket(key), self._paths.nbd_socket(key)
        try:
            pid = StorageDaemon.find(monitor)
            if pid is not None:
                daemon = StorageDaemon.adopt(pid)
                listens = daemon.listens(socket)
                daemon.process.close()
            elif processes.listener_pid(socket) is not None:
                return True
            else:
                options = block_graph.served(self._nodes(key, arguments), socket)
                log = self._paths.log(key)
                daemon = StorageDaemon.start(self._storage_daemon, monitor, log, options=options)
                self._daemons.append(daemon)
                listens = daemon.listens(socket)
            if not listens:
                return False
            # Also that of one that lives: whoever started it may have been killed before.
            self._paths.share(socket)
        except (exception.QcacheError, OSError) as e:  # the recorder may know better
            LOG.warning(
                'Failed to start a qemu-storage-daemon for the guests of image %s; retrying: %s',
                key.image_id,
                e,
            )
            return False
        return True

    def _nodes(self, key: CacheKey, arguments: Sequence[str]) -> list[Node]:
        source = plugins.source(
            _option(arguments, 'base'),
            _option(arguments, 'base-format') or 'raw',
            reconnect_seconds=self._reconnect_seconds,
        )
        try:
            record = self._catalog.load(key)
            if record is not None and record.state is State.READY:
                return block_graph.playing(source, self._catalog.require_unchanged(record))
        except (exception.RecordBroken, exception.CacheBroken) as e:
            LOG.warning('%s', e)
        return block_graph.plain(source)


def _option(arguments: Sequence[str], name: str) -> str:
    found = (word.partition('=') for word in arguments)
    return next((value for option, _, value in found if option == f'--{name}'), '')
