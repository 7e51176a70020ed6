# SPDX-License-Identifier: Apache-2.0
"""What is noted of one fault."""

import contextlib
import dataclasses
import pathlib
from typing import Any

__all__ = ['Row', 'logs_of', 'shorter']


@dataclasses.dataclass
class Row:
    """What one fault did, and all that was lost by it."""

    kind: str
    phase: str
    ground: dict[str, Any]
    hit: int = 0
    """How many processes, files or file systems."""
    moment_s: float = 0.0
    """From the first plan to the fault."""
    lasted_s: float = 0.0
    guests: list[str] = dataclasses.field(default_factory=list)
    """The plan of each."""
    guest_errors: int = 0
    wrong_bytes: int = 0
    longest_wait_s: float = 0.0
    """Of a single read."""
    recorder_back_s: float = 0.0
    """From the end of the fault until a recorder was at work for its guests."""
    cache: str = ''
    leaks: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    """Whatever else should not be: a promise that does not hold, a boot that did not work."""
    notes: list[str] = dataclasses.field(default_factory=list)
    logs: dict[str, str] = dataclasses.field(default_factory=dict)
    """The ends of the product's logs, if something was lost."""
    seconds: float = 0.0
    steps: dict[str, float] = dataclasses.field(default_factory=dict)
    """When each step of the round had ended, in seconds."""

    @property
    def lost(self) -> bool:
        return bool(self.guest_errors or self.wrong_bytes or self.leaks or self.problems)


def logs_of(folder: pathlib.Path) -> dict[str, str]:
    """Return the ends of the logs of a host's product, given the folder of all its files."""
    found = {}
    for pattern in ('run/control/*.log', 'compute-*/log'):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                text = path.read_text(errors='replace')
                found[str(path.relative_to(folder))] = text[-4000:]
    return found


def shorter(text: str) -> str:
    return text if len(text) < 300 else f'{text[:300]}...'
