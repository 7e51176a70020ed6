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
    round: int = 0
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
    def total_seconds(self) -> float:
        return self.prepare_seconds + self.seconds

    @property
    def cell(self) -> tuple[object, ...]:
        """What samples of several rounds have in common."""
        fields = dataclasses.asdict(self)
        measured = {
            'seconds',
            'round',
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
        """Return the samples of a section whose fields have these values, in order of rounds."""
        found = [
            sample
            for sample in self.samples
            if sample.section == section
            and all(getattr(sample, name) == value for name, value in wanted.items())
        ]
        return sorted(found, key=lambda sample: sample.round)

    def write(self, path: pathlib.Path) -> None:
        document = dataclasses.asdict(self)
        document['samples'] = [_terse(sample) for sample in self.samples]
        path.write_text(json.dumps(document, indent=1) + '\n')

    @classmethod
    def read(cls, paths: Sequence[pathlib.Path]) -> 'Results':
        """Return what is in one file, or in several: a section is that of the last file that has
        it, since figures of two runs are not mixed.

        :raises ValueError: if one is not such a file
        """
        merged: Results | None = None
        for path in paths:
            try:
                document: dict[str, Any] = json.loads(path.read_text())
                document['samples'] = [Sample(**each) for each in document['samples']]
                one = cls(**document)
            except (KeyError, TypeError, ValueError) as e:
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


def _terse(sample: Sample) -> dict[str, Any]:
    """Without what is as by default; six digits are more than is measured."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(Sample):
        value = getattr(sample, field.name)
        if value != field.default:
            found[field.name] = round(value, 6) if isinstance(value, float) else value
    return found


def cells(samples: Iterable[Sample]) -> dict[tuple[object, ...], list[Sample]]:
    """Group samples that differ by nothing but the round."""
    found: dict[tuple[object, ...], list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.cell, []).append(sample)
    return found
