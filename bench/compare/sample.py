# SPDX-License-Identifier: Apache-2.0
"""What one measurement found, and the file of all, from which everything else is made."""

from collections.abc import Iterable, Sequence
import dataclasses
import json
import pathlib
from typing import Any

__all__ = ['Results', 'Sample', 'cells']


@dataclasses.dataclass(frozen=True)
class Sample:
    """One measurement. Sizes are bytes; what was not measured is None."""

    section: str
    """``replay``: the reads of a boot, without the guest. ``thinned``: some of them, evenly over
    the boot. ``boot``: a real guest. ``scale``: several hosts at once. ``place``: where a cache
    lies. ``choice``: a setting of this project, or of the guest's disk."""
    alternative: str
    """What is compared, for example ``plain``; in ``choice`` the candidate."""
    seconds: float
    """To the end of the boot or of its reads; of several hosts, those of the slowest."""
    guest: str = 'first'
    """``first`` or ``second`` guest of an image on a host."""
    rate: str = 'unlimited'
    """Of the network: ``100M``, ``1G`` (bits per second) or ``unlimited``."""
    delay_ms: int = 0
    """That each request to the base takes more."""
    think: str = 'none'
    """``none``: the next read is sent at once; ``kept``: when the guest would have sent it."""
    hosts: int = 1
    images: str = 'one'
    """``one`` image for all hosts, or ``many``: another one for each."""
    group: str = ''
    """In ``choice``: what is chosen, for example ``cluster size``."""
    prepare_seconds: float = 0.0
    """Before the guest could start: copying of the image."""
    base_bytes: int | None = None
    """That the base was asked for."""
    base_requests: int | None = None
    written_bytes: int | None = None
    """That processes on the host wrote to files."""
    disk_bytes: int | None = None
    """Of the host, for the image; overlays apart."""
    cpu_seconds: float | None = None
    """Of all processes on the host, qemu included; of the base's server not."""

    @property
    def cell(self) -> tuple[object, ...]:
        """What samples of several rounds have in common."""
        fields = dataclasses.asdict(self)
        measured = {
            'seconds',
            'prepare_seconds',
            'base_bytes',
            'base_requests',
            'written_bytes',
            'disk_bytes',
            'cpu_seconds',
        }
        return tuple(value for name, value in fields.items() if name not in measured)


@dataclasses.dataclass
class Results:
    command: str
    machine: dict[str, str]
    """What was measured on, and with which versions."""
    trace: dict[str, float]
    """Of the replayed boot: reads, bytes, bursts, think_seconds; thinned_reads, thinned_bytes."""
    samples: list[Sample] = dataclasses.field(default_factory=list)

    def of(self, section: str, **wanted: object) -> list[Sample]:
        """Return the samples of a section whose fields have these values, in order of time."""
        return [
            sample
            for sample in self.samples
            if sample.section == section
            and all(getattr(sample, name) == value for name, value in wanted.items())
        ]

    def write(self, path: pathlib.Path) -> None:
        """Write a line for what was measured on, and one for all rounds of each measurement."""
        head = {'command': self.command, 'machine': self.machine, 'trace': self.trace}
        rows = [head, *map(_row, cells(self.samples).values())]
        path.write_text('[\n' + ',\n'.join(map(json.dumps, rows)) + '\n]\n')

    @classmethod
    def read(cls, paths: Sequence[pathlib.Path]) -> 'Results':
        """Return what is in one file, or in several: a section is that of the last file that has
        it, since figures of two runs are not mixed.

        :raises ValueError: if one is not such a file
        """
        merged: Results | None = None
        for path in paths:
            try:
                head, *rows = json.loads(path.read_text())
                one = cls(**head, samples=[sample for row in rows for sample in _samples(row)])
            except (AttributeError, LookupError, TypeError, ValueError) as e:
                raise ValueError(f'{path} has no results of bench/compare: {e}') from e
            if merged is None:
                merged = one
            else:
                merged._replace(one)
                merged.trace = merged.trace or one.trace
        if merged is None:
            raise ValueError('there is no file')
        return merged

    def _replace(self, later: 'Results') -> None:
        sections = list(dict.fromkeys(sample.section for sample in later.samples))
        kept = [sample for sample in self.samples if sample.section not in sections]
        self.samples = [*kept, *later.samples]
        self.command += f'; {", ".join(sections)}: {later.command}'


def _row(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the fields of one cell: a list where rounds differ. What is as by default is left
    out; six digits are more than is measured."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(Sample):
        measured = (getattr(sample, field.name) for sample in samples)
        values = [round(each, 6) if isinstance(each, float) else each for each in measured]
        if field.name == 'seconds' or len(set(values)) > 1:
            found[field.name] = values
        elif values[0] != field.default:
            found[field.name] = values[0]
    return found


def _samples(row: dict[str, Any]) -> list[Sample]:
    lists = {name: value for name, value in row.items() if isinstance(value, list)}
    return [
        Sample(**row | {name: values[place] for name, values in lists.items()})
        for place in range(len(row['seconds']))
    ]


def cells(samples: Iterable[Sample]) -> dict[tuple[object, ...], list[Sample]]:
    """Group samples that differ by nothing but the round."""
    found: dict[tuple[object, ...], list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.cell, []).append(sample)
    return found
