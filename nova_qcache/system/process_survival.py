# SPDX-License-Identifier: Apache-2.0
"""Check whether a recorder outlives the service that starts it.

systemd ends all processes of a service's control group with the service, unless its KillMode says
otherwise. A recorder that ended with nova-compute would take its guests' disk with it.
"""

import pathlib
import subprocess

__all__ = ['problem']

_SURVIVES = ('process', 'none')
_SECONDS = 5


def problem(cgroup: pathlib.Path = pathlib.Path('/proc/self/cgroup')) -> str | None:
    """Return why a recorder would not outlive this process, with the remedy; None if it would."""
    unit = _unit(cgroup)
    if unit is None:
        return None
    try:
        done = subprocess.run(
            ['systemctl', 'show', '--property=KillMode', '--value', unit],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None  # the name of a control group that systemd did not make
    mode = done.stdout.strip()
    if done.returncode != 0 or not mode or mode in _SURVIVES:
        return None
    return (
        f'{unit} has KillMode={mode}, which ends recorders with it; '
        'set KillMode=process in its [Service] section'
    )


def _unit(cgroup: pathlib.Path) -> str | None:
    try:
        lines = cgroup.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        name = line.split(':', 2)[-1].rpartition('/')[2]  # it may have colons itself
        if name.endswith('.service'):
            return name
    return None
