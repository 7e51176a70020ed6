# SPDX-License-Identifier: Apache-2.0
"""What tests need to know of the disks of build_small_disk.sh and of what their guest prints.

All offsets and sizes are in bytes.  A block is a number from 0 to ``DATA_BLOCKS - 1``; the guest
reads `FIXED_BLOCKS` at each boot.  What it prints is told at the top of disk_init.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    'ALIVE',
    'BLOCK_SIZE',
    'BOOTED',
    'BOOTS',
    'BOOT_OFFSET',
    'BOOT_SIZE',
    'DATA_BLOCKS',
    'DATA_OFFSET',
    'DATA_OK',
    'DATA_SIZE',
    'DISK_BOOTS',
    'DISK_SIZE',
    'FIXED_BLOCKS',
    'POWER_BUTTON',
    'SECTOR_SIZE',
    'STATE_OFFSET',
    'STATE_SIZE',
    'WROTE',
    'alive',
    'bad_lines',
    'block_offset',
    'booted',
    'boots',
    'disk_boots',
    'written',
]

MIB: Final = 1 << 20
SECTOR_SIZE: Final = 512

DISK_SIZE: Final = 256 * MIB
BOOT_OFFSET: Final = 1 * MIB
BOOT_SIZE: Final = 63 * MIB
DATA_OFFSET: Final = 64 * MIB
DATA_SIZE: Final = 128 * MIB
STATE_OFFSET: Final = 192 * MIB  # sectors: number of boots, seconds last written, boot id
STATE_SIZE: Final = 1 * MIB

BLOCK_SIZE: Final = 256 << 10
DATA_BLOCKS: Final = DATA_SIZE // BLOCK_SIZE
FIXED_BLOCKS: Final = tuple(range(8, DATA_BLOCKS, 32))


def _line(pattern: str) -> re.Pattern[str]:
    # The console of a server ends its lines with \r\n.
    return re.compile(rf'^QCACHE {pattern}[ \t\r]*$', re.MULTILINE)


BOOTED: Final = _line('booted')
BOOTS: Final = _line(r'boots=(\d+)')
DISK_BOOTS: Final = _line(r'disk (\w+) boots=(\d+)')
DATA_OK: Final = _line(rf'data ok {len(FIXED_BLOCKS)}')
ALIVE: Final = _line(r'alive (\d+) ok')
WROTE: Final = _line(r'wrote (\d+)')
POWER_BUTTON: Final = _line('power-button')
_BAD: Final = _line(
    r'(?:data BAD \d+|alive \d+ BAD \d+|read-error \d+|state-error \w+|write-error \w+'
    r'|no-disk|no-module .*)'
)


def block_offset(block: int) -> int:
    """Return where on the disk a block of DATA begins."""
    if not 0 <= block < DATA_BLOCKS:
        raise ValueError(f'no such block: {block}')
    return DATA_OFFSET + block * BLOCK_SIZE


def booted(console: str) -> int:
    """Return how many boots have come to their end."""
    return len(BOOTED.findall(console))


def boots(console: str) -> list[int]:
    """Return what each boot counted: 1 for the first one of a disk, and so on."""
    return [int(number) for number in BOOTS.findall(console)]


def disk_boots(console: str) -> list[tuple[str, int]]:
    """Return each disk that a boot found, and how often it had been booted before."""
    return [(disk, int(number)) for disk, number in DISK_BOOTS.findall(console)]


def alive(console: str) -> list[int]:
    """Return the seconds since the kernel's start at which the guest said that all is well."""
    return [int(seconds) for seconds in ALIVE.findall(console)]


def written(console: str) -> list[int]:
    """Return the seconds since the kernel's start at which the guest wrote to its disk."""
    return [int(seconds) for seconds in WROTE.findall(console)]


def bad_lines(console: str) -> list[str]:
    """Return every line that tells of wrong data or of an error."""
    return [found.group().rstrip() for found in _BAD.finditer(console)]
