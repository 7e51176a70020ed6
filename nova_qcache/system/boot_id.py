# SPDX-License-Identifier: Apache-2.0
"""ID of the host's boot: files in ``run_path`` that are about processes mean nothing after a
reboot, and not every ``run_path`` is emptied by one.
"""

import functools
import pathlib

__all__ = ['boot_id']


@functools.cache
def boot_id() -> str:
    """Return the kernel's random ID of this boot of the host (random(4))."""
    return pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
