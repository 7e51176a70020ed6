# SPDX-License-Identifier: Apache-2.0
"""What this project has to hold, judged from results."""

from collections.abc import Iterator, Sequence
import dataclasses
import statistics

from bench.compare.sample import Results
from bench.compare.sample import Sample
from bench.compare.wording import number
from bench.compare.wording import Setting
from bench.compare.wording import settings
from bench.compare.wording import spread

__all__ = ['Verdict', 'judge']

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Verdict:
    """``limit`` is the most that ``value`` may be."""

    name: str
    value: float
    limit: float
    detail: str

    @property
    def held(self) -> bool:
        return self.value <= self.limit


# What each may be at most
PLAY_SECONDS, PLAY_BYTES, UNION_BYTES = 1.03, 0.03, 0.01
RECORD_SECONDS, RECORD_BYTES = 1.05, 1.10
SCALE = 1.1


def judge(results: Results, smoke: bool = False) -> list[Verdict]:
    """Judge all that there are results of.

    :param smoke: of a short run on a machine that others use, too: its seconds say nothing, its
        bytes as much as ever
    """
    return [
        *(() if smoke else _play_seconds(results)),
        *_play_bytes(results),
        *_recorded_boots(results),
        *_record(results, smoke),
        *(() if smoke else _scale(results)),
    ]


# (a)


def _play_seconds(results: Results) -> Iterator[Verdict]:
    # What is thinned is over in milliseconds, where it does not ask the base.
    for section, setting in _cells(results, 'replay'):
        plays, raws = (
            [sample.seconds for sample in _measured(results, section, setting, name)]
            for name in ('play', 'raw')
        )
        # They take turns: what else the machine was busy with concerns both of a pair. A run that
        # was interrupted has one more of one of them.
        pairs = [(play, raw) for play, raw in zip(plays, raws, strict=False) if raw]
        if not pairs:
            continue
        ratios = [play / raw for play, raw in pairs]
        plays, raws = (list(values) for values in zip(*pairs, strict=True))
        detail = (
            f'play {spread(plays)} s, raw {spread(raws)} s; '
            f'ratios of {len(ratios)} pairs {min(ratios):.3f}..{max(ratios):.3f}'
        )
        yield Verdict(
            f'(a) play / raw, seconds: {section} at {setting}',
            statistics.median(ratios),
            PLAY_SECONDS,
            detail,
        )


# (b)


def _play_bytes(results: Results) -> Iterator[Verdict]:
    for section, setting in _cells(results, 'replay', 'thinned'):
        yield from _bytes(
            f'(b) play / plain, bytes from the base: {section} at {setting}',
            ('play', _measured(results, section, setting, 'play')),
            ('plain', _measured(results, section, setting, 'plain')),
            PLAY_BYTES,
        )


def _recorded_boots(results: Results) -> Iterator[Verdict]:
    """What a boot reads that was not recorded itself."""
    of = {'section': 'choice', 'group': 'recorded boots'}
    plain = results.of(**of, alternative='plain')
    for name, limit in (('one', PLAY_BYTES), ('two', UNION_BYTES)):
        samples = results.of(**of, alternative=name)
        # What records may be among them, as the first guest.
        plays = [sample for sample in samples if sample.guest == 'second'] or samples
        yield from _bytes(
            f'(b) play / plain, bytes from the base: another boot than the {name} recorded',
            ('play', plays),
            ('plain', plain),
            limit,
        )


# (c)


def _record(results: Results, smoke: bool) -> Iterator[Verdict]:
    for section, setting in _cells(results, 'replay', 'thinned', 'boot'):
        record = _measured(results, section, setting, 'record')
        plain = _measured(results, section, setting, 'plain')
        before = [sample.prepare_seconds for sample in record]
        if not smoke:
            yield from _ratio(
                f'(c) record / plain, seconds: {section} at {setting}',
                ('record', [sample.seconds for sample in record]),
                ('plain', [sample.seconds for sample in plain]),
                's',
                RECORD_SECONDS,
                note=f'; before it, the recorder\'s start: {spread(before)} s' if before else '',
            )
        yield from _bytes(
            f'(c) record / plain, bytes from the base: {section} at {setting}',
            ('record', record),
            ('plain', plain),
            RECORD_BYTES,
        )


# (d)


def _scale(results: Results) -> Iterator[Verdict]:
    for setting in settings(results.of('scale', images='one')):
        seconds: dict[str, dict[int, list[float]]] = {'play': {}, 'raw': {}}
        for sample in results.of('scale', images='one', **dataclasses.asdict(setting)):
            if sample.alternative in seconds:
                by_hosts = seconds[sample.alternative]
                by_hosts.setdefault(sample.hosts, []).append(sample.seconds)
        play, raw = seconds['play'], seconds['raw']
        both = play.keys() & raw.keys()
        if 1 not in both or max(both) == 1:
            continue
        most = max(both)
        grown = [
            statistics.median(each[most]) / statistics.median(each[1])
            for each in (play, raw)
            if statistics.median(each[1])
        ]
        if len(grown) == 2 and grown[1]:
            detail = (
                f'play {spread(play[1])} s, {most} hosts {spread(play[most])} s: '
                f'{number(grown[0])} times; raw {spread(raw[1])} s, {most} hosts '
                f'{spread(raw[most])} s: {number(grown[1])} times'
            )
            name = f'(d) play / raw, growth from 1 to {most} hosts, one image: {setting}'
            yield Verdict(name, grown[0] / grown[1], SCALE, detail)


# What they share


def _cells(results: Results, *sections: str) -> Iterator[tuple[str, Setting]]:
    for section in sections:
        for setting in settings(results.of(section)):
            yield section, setting


def _measured(results: Results, section: str, setting: Setting, alternative: str) -> list[Sample]:
    guest = 'second' if alternative == 'play' else 'first'
    return results.of(section, alternative=alternative, guest=guest, **dataclasses.asdict(setting))


def _bytes(
    name: str,
    over: tuple[str, Sequence[Sample]],
    under: tuple[str, Sequence[Sample]],
    limit: float,
) -> Iterator[Verdict]:
    def mib(samples: Sequence[Sample]) -> list[float]:
        return [each.base_bytes / MIB for each in samples if each.base_bytes is not None]

    yield from _ratio(name, (over[0], mib(over[1])), (under[0], mib(under[1])), 'MiB', limit)


def _ratio(
    name: str,
    over: tuple[str, Sequence[float]],
    under: tuple[str, Sequence[float]],
    unit: str,
    limit: float,
    note: str = '',
) -> Iterator[Verdict]:
    """Judge a ratio of medians, if there is one."""
    if not over[1] or not under[1] or not statistics.median(under[1]):
        return
    value = statistics.median(over[1]) / statistics.median(under[1])
    detail = ', '.join(
        f'{who} {spread(values)} {unit}, n={len(values)}' for who, values in (over, under)
    )
    yield Verdict(name, value, limit, detail + note)
