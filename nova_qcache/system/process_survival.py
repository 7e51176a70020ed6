# SPDX-License-Identifier: Apache-2.0
"""Check whether a recorder outlives the service that starts it.

systemd ends all processes of a service's control group with the service, unless its KillMode says
otherwise. A recorder that ended with nova-compute would take its guests' disk with it.
"""

import pathlib
import re
import subprocess

__all__ = ['problem']

_SURVIVES = ('process', 'none')
_SECONDS = 5
_UNIT = re.compile(r'(?<=/)[^/\n]+\.service$', re.MULTILINE)


def problem(cgroup: pathlib.Path = pathlib.Path('/proc/self/cgroup')) -> str | None:
    """Return why a recorder would not outlive this process, with the remedy; None if it would."""
    try:
        unit = _UNIT.search(cgroup.read_text())
        if unit is None:
            return None
        done = subprocess.run(
            ['systemctl', 'show', '--property=KillMode', '--value', unit[0]],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except (OSError, UnicodeDecodeError, subprocess.TimeoutExpired):
        return None  # the name of a control group that systemd did not make
    mode = done.stdout.strip()
    if done.returncode != 0 or not mode or mode in _SURVIVES:
        return None
    return (
        f'{unit[0]} has KillMode={mode}, which ends recorders with it; '
        'set KillMode=process in its [Service] section'
    )
