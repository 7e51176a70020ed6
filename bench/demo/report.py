# SPDX-License-Identifier: Apache-2.0
"""What the demo has measured: as a table, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
import statistics
from typing import Any

from bench.compare.sample import Sample
from bench.compare.trace import Trace
from bench.compare.wording import number
from bench.compare.wording import spread

__all__ = ['MIB', 'Boot', 'Copy', 'Findings', 'Replay', 'replays_of', 'share', 'speed', 'title']

MIB = 1 << 20
ALTERNATIVES = ('plain', 'record', 'play', 'raw')
BOOTS = ('plain', 'record', 'play', 'play3')


@dataclasses.dataclass
class Boot:
    """One measured boot, or several at the same time.

    :param seconds: from the start of qemu to the end of the (slowest) boot; None if no guest was
        booted, and what its base had to give is that of the replayed reads.
    :param base_bytes: read from the base until then.
    :param base_requests: the number of those reads.
    :param cache_bytes: size of the sealed cache, where there is one.
    :param quota_bytes: what it may grow to.
    """

    name: str
    guests: int
    seconds: float | None
    base_bytes: int
    base_requests: int
    cache_bytes: int | None = None
    quota_bytes: int | None = None

    def hit_ratio(self, plain: Boot) -> float | None:
        """Return the share of the reads that did not reach the base, from 0 to 1."""
        if self is plain:
            return None
        return max(0.0, 1 - self.base_bytes / (self.guests * plain.base_bytes))


@dataclasses.dataclass(frozen=True)
class Copy:
    """A part of an image was copied; how long the whole takes is extrapolated from it."""

    measured_seconds: float
    measured_bytes: int
    image_bytes: int

    @property
    def seconds(self) -> float:
        return self.measured_seconds * self.image_bytes / self.measured_bytes


@dataclasses.dataclass(frozen=True)
class Replay:
    """The reads of a boot, or some of them, through each chain several times."""

    delay_ms: int
    reads: int
    bytes: int
    of_reads: int
    """Those of the whole boot."""
    samples: dict[str, list[Sample]]
    """By alternative, in the order of ``ALTERNATIVES``."""

    def seconds(self, name: str) -> list[float]:
        return [sample.seconds for sample in self.samples[name]]

    def asked(self, name: str) -> tuple[int, int]:
        """Return the bytes, and the number of requests, that the base was asked for."""
        samples = self.samples[name]
        return (
            statistics.median_low(sample.base_bytes or 0 for sample in samples),
            statistics.median_low(sample.base_requests or 0 for sample in samples),
        )


@dataclasses.dataclass(frozen=True)
class Findings:
    accelerator: str
    rate: str
    copy: Copy
    boots: list[Boot]
    """The first one is plain."""
    replays: list[Replay]

    @property
    def is_emulated(self) -> bool:
        """Whether the processor sets the seconds of real guests."""
        return self.accelerator == 'tcg'

    def as_json(self) -> str:
        """Return a document; sizes are in bytes, and what was not measured is null."""
        document: dict[str, Any] = {
            'accelerator': self.accelerator,
            'emulated': self.is_emulated,
            'rate': self.rate,
            'copy': {
                'seconds': round(self.copy.seconds, 2),
                'extrapolated': self.copy.measured_bytes < self.copy.image_bytes,
                'measured_seconds': round(self.copy.measured_seconds, 3),
                'measured_bytes': self.copy.measured_bytes,
                'image_bytes': self.copy.image_bytes,
            },
            **dict.fromkeys(BOOTS),
        }
        for boot in self.boots:
            figures = dataclasses.asdict(boot)
            del figures['name']
            if boot.seconds is not None:
                figures['seconds'] = round(boot.seconds, 2)
            ratio = boot.hit_ratio(self.boots[0])
            figures['hit_ratio'] = None if ratio is None else round(ratio, 4)
            document[boot.name] = figures
        document['replays'] = [_replay_as_json(replay) for replay in self.replays]
        return json.dumps(document, indent=2) + '\n'

    def table(self) -> str:
        """Return the figures as text for people."""
        return '\n'.join(
            [*self._copy_lines(), '', *self._boot_lines(), '', *self._replay_lines(self.replays)]
        )

    def _copy_lines(self) -> list[str]:
        copy = self.copy
        whole = f'{copy.image_bytes / MIB:,.0f} MiB'
        part = f'{copy.measured_bytes / MIB:,.0f} MiB'
        return [
            f'1. Stock Nova copies the image before the first server starts ({speed(self.rate)})',
            f'   {whole}: {number(copy.seconds)} s, extrapolated; '
            f'measured: {part} in {copy.measured_seconds:.2f} s',
            '   Hosts that share their base images make one copy for all of them, then read it',
            '   over the network at each boot: "plain". nova-qcache is for these hosts, and does',
            '   not shorten the copy.',
        ]

    def _boot_lines(self) -> list[str]:
        seconds = 'seconds emulated' if self.is_emulated else 'seconds'
        lines = [
            f'2. Real guests, Debian 12, {self.accelerator}',
            f'   {"":<8}{"guests":>6}{seconds:>18}{"MiB from base":>15}{"requests":>10}'
            f'{"cache / quota MiB":>19}{"hit ratio":>11}',
        ]
        for boot in self.boots:
            cache = '-'
            if boot.cache_bytes is not None and boot.quota_bytes is not None:
                cache = f'{boot.cache_bytes / MIB:.1f} / {boot.quota_bytes / MIB:.0f}'
            took = '-' if boot.seconds is None else f'{boot.seconds:.1f}'
            ratio = boot.hit_ratio(self.boots[0])
            lines.append(
                f'   {boot.name:<8}{boot.guests:>6}{took:>18}'
                f'{boot.base_bytes / MIB:>15.2f}{boot.base_requests:>10}{cache:>19}'
                f'{"-" if ratio is None else f"{ratio:.2%}":>11}'
            )
        if self.is_emulated:
            lines += [
                '   seconds emulated: there is no KVM here. They tell how fast the processor',
                '   emulates another one, and nothing about nova-qcache.',
            ]
        if self.boots[0].seconds is None:
            lines += ['   plain: no guest; the reads of the recording one, replayed.']
        return lines

    @staticmethod
    def _replay_lines(replays: Sequence[Replay]) -> list[str]:
        first = replays[0]
        rounds = len(first.samples['plain'])
        heads = [title(replay) for replay in replays]
        shares = [share(replay) for replay in replays]
        lines = [
            '3. The reads of the recording guest replayed, without a guest: seconds,',
            f'   median (least..most) of {rounds} rounds, in which all take turns',
            f'   {"":<8}' + ''.join(f'{head:>26}' for head in heads),
            f'   {"":<8}' + ''.join(f'{text:>26}' for text in shares),
        ]
        for name in ALTERNATIVES:
            lines.append(
                f'   {name:<8}' + ''.join(f'{spread(each.seconds(name)):>26}' for each in replays)
            )
        started = [sample.prepare_seconds for sample in first.samples['record']]
        lines += [
            f'   record: before it, its recorder starts once: {spread(started)} s.',
            '   raw: a local raw file, the limit of what play can reach, but for chance.',
        ]
        return lines


def speed(rate: str) -> str:
    """Say ``1G`` as ``1 Gbit/s``."""
    digits = rate.rstrip('KMG')
    return f'{digits} {rate[len(digits) :]}bit/s'


def title(replay: Replay) -> str:
    return f'{replay.delay_ms} ms a request'


def share(replay: Replay) -> str:
    """Say how many of the reads these are."""
    if replay.reads == replay.of_reads:
        return f'all {replay.reads:,} reads'
    return f'{replay.reads:,} of {replay.of_reads:,} reads'


def replays_of(samples: Sequence[Sample], traces: Mapping[int, Trace]) -> list[Replay]:
    """Group samples by the delay of each request.

    :param traces: what was replayed, by that delay; the first is the whole
    """
    whole = next(iter(traces.values()))
    return [
        Replay(
            delay_ms,
            len(trace.reads),
            trace.bytes,
            len(whole.reads),
            {
                name: [
                    each
                    for each in samples
                    if each.alternative == name and each.delay_ms == delay_ms
                ]
                for name in ALTERNATIVES
            },
        )
        for delay_ms, trace in traces.items()
    ]


def _replay_as_json(replay: Replay) -> dict[str, Any]:
    document: dict[str, Any] = {
        'delay_ms': replay.delay_ms,
        'reads': replay.reads,
        'of_reads': replay.of_reads,
        'bytes': replay.bytes,
    }
    for name, samples in replay.samples.items():
        seconds = replay.seconds(name)
        size, requests = replay.asked(name)
        prepared = statistics.median(sample.prepare_seconds for sample in samples)
        document[name] = {
            'seconds': round(statistics.median(seconds), 4),
            'least_seconds': round(min(seconds), 4),
            'most_seconds': round(max(seconds), 4),
            'rounds': len(samples),
            'prepare_seconds': round(prepared, 4),
            'base_bytes': size,
            'base_requests': requests,
        }
    return document
