# SPDX-License-Identifier: Apache-2.0
"""End the recorders and the keeper of this host in good order, once their guests are gone.

Each recorder is asked at its own socket to leave as soon as no guest is connected, whoever may be
expected; the keeper ends by itself when there is nothing to keep. Nothing is killed, and a
recorder that still has guests stays with them.

Usage: farewell.py CACHE_PATH RUN_PATH SECONDS, as the user that nova-compute runs as. The exit
status is 1 if something is still there after so many seconds, and standard error names it.
"""

from collections.abc import Iterator
import pathlib
import sys
import time

from nova_qcache import exception
from nova_qcache.recorder import respawn
from nova_qcache.system import control
from nova_qcache.system import locks
from nova_qcache.system.paths import Paths

_PAUSE_SECONDS = 0.2


def main() -> int:
    paths = Paths(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
    deadline = time.monotonic() + float(sys.argv[3])
    if not paths.control.is_dir() or not paths.locks.is_dir():
        return 0  # nothing has ever been started
    left = list(_recorders(paths))
    while left and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
        left = list(_recorders(paths))
    if left:
        print('still there: ' + '; '.join(left), file=sys.stderr)
        return 1
    try:
        with locks.keeper(paths.locks, max(0.0, deadline - time.monotonic())):
            return 0
    except exception.LockTimeout:
        print(f'still there: the keeper, see {paths.keeper_log}', file=sys.stderr)
        return 1


def _recorders(paths: Paths) -> Iterator[str]:
    """Ask each recorder to leave, and yield what is known of those that are there."""
    for key in respawn.keys(paths):
        try:
            status = control.RecorderClient(paths.control_socket(key)).dismiss()
        except exception.RecorderUnreachable as e:
            if respawn.read(paths, key) is not None:  # or it has just left
                yield f'the recorder of image {key.image_id}: {e}'
        else:
            yield (
                f'the recorder of image {key.image_id}, process {status.pid}, with '
                f'{status.guests} guests connected'
            )


if __name__ == '__main__':
    sys.exit(main())
