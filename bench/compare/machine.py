# SPDX-License-Identifier: Apache-2.0
"""What was measured on, and with what: goes into the results."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess

__all__ = ['describe']

_VERSIONS = {
    'qemu': ['qemu-img', '--version'],
    'nbdkit': ['nbdkit', '--version'],
    'nbdcopy': ['nbdcopy', '--version'],
    'bindfs': ['bindfs', '--version'],
}


def describe() -> dict[str, str]:
    found = {
        'date': datetime.datetime.now(tz=datetime.UTC).strftime('%Y-%m-%d'),
        'nova-qcache': importlib.metadata.version('nova-qcache'),
        'system': _system(),
        'kernel': os.uname().release,
        'python': platform.python_version(),
        'processors': f'{os.cpu_count()} x {_field("/proc/cpuinfo", "model name")}',
        'memory': f'{_field("/proc/meminfo", "MemTotal")}',
        'load at the start': f'{os.getloadavg()[0]:.1f}',
    }
    for name, command in _VERSIONS.items():
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        version = re.search(r'\d+(\.\d+)+', done.stdout + done.stderr)
        found[name] = version.group() if version else 'unknown'
    return found


def _field(path: str, name: str) -> str:
    for line in pathlib.Path(path).read_text().splitlines():
        key, _, value = line.partition(':')
        if key.strip() == name:
            return value.strip()
    return 'unknown'


def _system() -> str:
    return platform.freedesktop_os_release().get('PRETTY_NAME', 'unknown')
