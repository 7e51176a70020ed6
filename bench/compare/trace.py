# SPDX-License-Identifier: Apache-2.0
"""The reads of one boot: what, in which order, what waited for what, and when.

A guest does not wait for each read before it sends the next one. A *burst* is what it had sent
before the first answer of these came: its reads may overtake each other, the next burst may not
begin before all of them are answered. The time between, in which the guest was busy by itself, is
its *think time*.
"""

from collections.abc import Sequence
import dataclasses
import datetime
import pathlib
import re

__all__ = ['Read', 'Trace', 'of_log']

_LINE = re.compile(
    r'^(?P<when>\S+ \S+) connection=\d+ (?P<end>\.\.\.)?Read id=(?P<id>\d+) '
    r'(?:offset=0x(?P<offset>[0-9a-f]+) count=0x(?P<count>[0-9a-f]+) |return=)',
    re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Read:
    """Offset and length are bytes; ``think`` is seconds before it."""

    offset: int
    length: int
    burst: int
    think: float = 0.0


class Trace:
    def __init__(self, reads: Sequence[Read]) -> None:
        self.reads = tuple(reads)

    @property
    def bytes(self) -> int:
        return sum(read.length for read in self.reads)

    @property
    def bursts(self) -> int:
        return len({read.burst for read in self.reads})

    @property
    def think(self) -> float:
        return sum(read.think for read in self.reads)

    def extents(self) -> list[tuple[int, int]]:
        return [(read.offset, read.length) for read in self.reads]

    def blocks(self, block: int, size: int) -> list[tuple[int, int]]:
        """Return the whole blocks that are read of a disk of so many bytes, in order."""
        numbers = {
            number
            for offset, length in self.extents()
            for number in range(offset // block, (offset + length - 1) // block + 1)
        }
        starts = [number * block for number in sorted(numbers)]
        return [(start, min(block, size - start)) for start in starts]

    def paced(self, seconds: float) -> 'Trace':
        """The same with so much think time in all."""
        factor = seconds / self.think if self.think else 0.0
        return Trace([dataclasses.replace(read, think=read.think * factor) for read in self.reads])

    def thinned(self, part: int, block: int = 20) -> 'Trace':
        """One of so many blocks of bursts, evenly over the boot: all its phases are in it."""
        order = {burst: at for at, burst in enumerate(dict.fromkeys(r.burst for r in self.reads))}
        return Trace([read for read in self.reads if order[read.burst] // block % part == 0])

    def script(self, *, think: bool = False) -> str:
        """What qemu-io is to do."""
        lines: list[str] = []
        due = 0.0
        for burst in self._by_burst():
            due += sum(read.think for read in burst)
            if think and due >= 0.001:
                lines.append(f'sleep {int(due * 1000)}')
                due -= int(due * 1000) / 1000
            if len(burst) == 1:
                lines.append(f'read -q {burst[0].offset} {burst[0].length}')
            else:
                lines += [f'aio_read -q {read.offset} {read.length}' for read in burst]
                lines.append('aio_flush')
        return ''.join(f'{line}\n' for line in lines)

    def _by_burst(self) -> list[list[Read]]:
        found: dict[int, list[Read]] = {}
        for read in self.reads:
            found.setdefault(read.burst, []).append(read)
        return list(found.values())

    def write(self, path: pathlib.Path) -> None:
        lines = ['# offset and length in bytes, burst, microseconds of think time before it\n']
        for read in self.reads:
            lines.append(f'{read.offset} {read.length} {read.burst} {read.think * 1e6:.0f}\n')
        path.write_text(''.join(lines))

    @classmethod
    def read(cls, path: pathlib.Path) -> 'Trace':
        """Return what :meth:`write` wrote.

        :raises ValueError: if it is something else, with its place
        """
        reads = []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line.startswith('#'):
                continue
            try:
                offset, length, burst, think = map(int, line.split())
            except ValueError:
                raise ValueError(
                    f'{path}:{number}: not "offset length burst microseconds": {line!r}'
                ) from None
            reads.append(Read(offset, length, burst, think / 1e6))
        return cls(reads)


def of_log(text: str) -> Trace:
    """Return the reads that are in a log of nbdkit's log filter."""
    reads: list[Read] = []
    waiting: set[str] = set()
    burst, answered, idle_since = -1, True, None
    for line in _LINE.finditer(text):
        if line['end']:
            waiting.discard(line['id'])
            answered = True
            idle_since = _time(line['when']) if not waiting else None
            continue
        if answered:
            burst, answered = burst + 1, False
        think = 0.0
        if idle_since is not None:
            think = max(0.0, (_time(line['when']) - idle_since).total_seconds())
            idle_since = None
        waiting.add(line['id'])
        reads.append(Read(int(line['offset'], 16), int(line['count'], 16), burst, think))
    return Trace(reads)


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)
