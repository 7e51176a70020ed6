# SPDX-License-Identifier: Apache-2.0
"""Recorders that were killed are started again: their daemons, and their guests, need them.

What is started records nothing: it takes over the daemon that lives on, or serves the guests of a
dead one at the same socket, and leaves as soon as nobody needs it.
"""

import dataclasses
import logging
import time

from nova_qcache import duty
from nova_qcache import processes
from nova_qcache.key import CacheKey
from nova_qcache.paths import Paths
from nova_qcache.recorder import launch

__all__ = ['Revival']

LOG = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 15
_MOST_ATTEMPTS = 240
"""About an hour: a base that is away for longer has cost its guests their reads anyway."""


@dataclasses.dataclass
class _Absence:
    """A recorder that is missed."""

    attempts: int = 0
    again_at: float = 0.0
    """Seconds of the monotonic clock."""


class Revival:
    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._absences: dict[CacheKey, _Absence] = {}

    def look(self) -> int:
        """Look at all recorders once, and start those that are missed for a second time.

        :return: how many recorders there are or should be
        :raises OSError: if the folders cannot be read
        """
        launch.reap()
        keys = set(duty.keys(self._paths))
        for key in set(self._absences) - keys:
            del self._absences[key]
        for key in sorted(keys):
            if self._is_at_work(key):
                self._absences.pop(key, None)
            else:
                self._miss(key)
        return len(keys)

    def _is_at_work(self, key: CacheKey) -> bool:
        try:
            return processes.listener_pid(self._paths.control_socket(key)) is not None
        except OSError as e:  # its queue is full, for example: it lives
            LOG.debug('The recorder of %s: %s', key.stem, e)
            return True

    def _miss(self, key: CacheKey) -> None:
        now = time.monotonic()
        absence = self._absences.get(key)
        if absence is None:  # it may just be starting, or ending
            self._absences[key] = _Absence()
            return
        if now < absence.again_at:
            return
        if absence.attempts >= _MOST_ATTEMPTS:
            LOG.error('The recorder of image %s is given up', key.image_id)
            duty.forget(self._paths, key)
            return
        absence.attempts += 1
        absence.again_at = now + min(_LONGEST_PAUSE_SECONDS, 2 ** min(absence.attempts, 4))
        arguments = duty.read(self._paths, key)
        if arguments is None:
            return
        LOG.warning('The recorder of image %s is gone and started again', key.image_id)
        with open(self._paths.log(key), 'ab') as output:
            launch.spawn(
                output,
                [
                    '--serve-only',
                    f'--generation={key.generation}',
                    f'--revision={key.revision}',
                    *arguments,
                ],
            )
