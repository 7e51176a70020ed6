# SPDX-License-Identifier: Apache-2.0
"""The keeper process: runs its tasks at least once a second, and ends when it is not needed.

What may hang (libvirt, a base) has a thread of its own, so that recorders are started again
whatever else hangs. A thread that hangs is left behind when the process ends.
"""

from collections.abc import Callable
import logging
import threading
import time

from nova_qcache import exception
from nova_qcache.keeper.guests import Guests
from nova_qcache.keeper.respawner import Respawner
from nova_qcache.keeper.revalidation import Requests
from nova_qcache.keeper.revalidation import Revalidator
from nova_qcache.keeper.saved import SavedGuests
from nova_qcache.system import locks
from nova_qcache.system.log_rate_limit import LogRateLimit
from nova_qcache.system.paths import Paths

__all__ = ['Keeper']

LOG = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
_RESPAWN_SECONDS = 0.2
"""Interval at which recorders are looked at: guests of a dead one ask again after 1 and 3 s, and
then after 7."""
_RETRY_SECONDS = 10
"""After a failure: libvirt is away, say."""
_IDLE_SECONDS = 10
_LOCK_SECONDS = 3
"""Longer than whoever looks for a keeper holds its lock."""


class Keeper:
    def __init__(
        self,
        paths: Paths,
        respawner: Respawner,
        requests: Requests,
        revalidator: Revalidator,
        guests: Guests | None,
        saved: SavedGuests | None = None,
    ) -> None:
        """:param guests, saved: None on a host whose guests are not libvirt's"""
        self._paths = paths
        self._respawner = respawner
        self._requests = requests
        self._tasks: list[Callable[[], object]] = [revalidator.run_once]
        if guests is not None:
            self._tasks.append(guests.run_once)
        self._saved = saved
        if saved is not None:
            self._tasks.append(saved.run_once)
        self._log_limit = LogRateLimit()
        self._stop = threading.Event()

    def stop(self) -> None:
        """End at the next moment; safe to call from a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Run the tasks until the keeper has not been needed for a while.

        :raises LockTimeout: if another keeper is at work
        """
        threads = [
            threading.Thread(target=self._repeat, args=(task,), daemon=True)
            for task in self._tasks
        ]
        try:
            while not self._stop.is_set():
                with locks.keeper(self._paths.locks, _LOCK_SECONDS):
                    self._keep(threads)
                # Whoever needs one since its last look was told that a keeper is at work.
                if self._stop.is_set() or not self._is_needed():
                    return
        finally:
            self._stop.set()

    def _keep(self, threads: list[threading.Thread]) -> None:
        while threads:
            threads.pop().start()
        busy_at = time.monotonic()
        while not self._stop.wait(_RESPAWN_SECONDS):
            if self._is_needed():
                busy_at = time.monotonic()
            elif time.monotonic() - busy_at >= _IDLE_SECONDS:
                break
        self._paths.keeper_log.unlink(missing_ok=True)

    def _is_needed(self) -> bool:
        try:
            if self._respawner.run_once() or self._requests.pending():
                return True
            return self._saved is not None and self._saved.is_needed()
        except (exception.QcacheError, OSError) as e:
            self._complain(e)
            return not isinstance(e, FileNotFoundError)  # of a host that was cleared

    def _repeat(self, task: Callable[[], object]) -> None:
        while not self._stop.is_set():
            pause = _TICK_SECONDS
            try:
                task()
            except (exception.QcacheError, OSError) as e:
                self._complain(e)
                pause = _RETRY_SECONDS
            except Exception:  # nothing that is wrong here may end the keeping of the others
                LOG.exception('Unexpected error in the keeper; retrying')
                pause = _RETRY_SECONDS
            self._stop.wait(pause)

    def _complain(self, error: Exception) -> None:
        if self._log_limit.level(error) > logging.INFO:  # or it would say so each time
            LOG.warning('A task of the keeper failed; retrying: %s', error)
