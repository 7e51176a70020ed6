# SPDX-License-Identifier: Apache-2.0
"""Launch of the keeper, unless one is at work; the caller does not wait for it."""

from collections.abc import Sequence
import logging
import subprocess

from nova_qcache import exception
from nova_qcache.system import locks
from nova_qcache.system import processes
from nova_qcache.system.paths import Paths

__all__ = ['ensure']

LOG = logging.getLogger(__name__)

_started: list['subprocess.Popen[bytes]'] = []


def ensure(paths: Paths, arguments: Sequence[str]) -> None:
    """Start a keeper unless one is at work. Never raises: a boot does without.

    :param arguments: of nova-qcache-keeper
    """
    _started[:] = [process for process in _started if process.poll() is None]
    if _started:
        return
    try:
        with locks.keeper(paths.locks, 0):
            pass
        with open(paths.keeper_log, 'ab') as output:
            _started.append(processes.start_module('nova_qcache.cmd.keeper', arguments, output))
    except exception.LockTimeout:  # one is at work
        return
    except OSError as e:
        LOG.warning('Failed to start the keeper; the next boot or periodic run retries: %s', e)
