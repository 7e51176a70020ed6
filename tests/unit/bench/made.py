# SPDX-License-Identifier: Apache-2.0
"""Results of bench/compare that were made up."""

from bench.compare.sample import Results
from bench.compare.sample import Sample

MIB = 1 << 20
FILES = {'replay.png', 'thinned.png', 'bytes.png', 'boot.png', 'scale.png'}


def sample(section, alternative, seconds=1.0, **more) -> Sample:
    more.setdefault('guest', 'second' if alternative == 'play' else 'first')
    return Sample(section, alternative, seconds, **more)


def results(*samples: Sample) -> Results:
    return Results('bench/run.sh --rounds=5', {'qemu': '7.2.0'}, {'reads': 1412.0}, list(samples))


def everything(play: float = 1.0) -> Results:
    """Each section, where all bars are held if ``play`` is 1."""
    found = []
    for section, rate, delay in (
        ('replay', '100M', 0),
        ('replay', '1G', 0),
        ('replay', 'unlimited', 0),
        ('thinned', '1G', 20),
    ):
        at = {'rate': rate, 'delay_ms': delay}
        for number in range(5):
            found += [
                sample(section, 'copy', 1, prepare_seconds=40 + number, **at),
                sample(section, 'copy', 1.5, guest='second', base_bytes=0, **at),
                sample(section, 'plain', 3 + number / 10, base_bytes=20 * MIB, **at),
                sample(section, 'record', 3 + number / 10, base_bytes=20 * MIB, **at),
                sample(section, 'raw', 1, base_bytes=0, **at),
                sample(section, 'play', play, base_bytes=MIB // 10, **at),
            ]
    for hosts in (1, 8, 64):
        at = {'hosts': hosts, 'think': 'kept'}
        for name in ('plain', 'record', 'play', 'raw'):
            found.append(sample('scale', name, 10 + hosts, images='one', **at))
            found.append(sample('scale', name, 20 + hosts, images='many', **at))
    found += [
        sample('boot', 'copy', 30, rate='100M', prepare_seconds=350),
        sample('boot', 'plain', 45, rate='100M'),
        sample('boot', 'record', 46, rate='100M'),
        sample('boot', 'play', 31, rate='100M'),
        sample('place', 'play, tmpfs'),
        sample('choice', '1M', group='cluster size'),
        sample('choice', '64K', group='cluster size'),
        sample('choice', 'plain', group='recorded boots', base_bytes=100 * MIB),
        sample('choice', 'one', group='recorded boots', guest='second', base_bytes=2 * MIB),
        sample('choice', 'two', group='recorded boots', guest='second', base_bytes=MIB),
    ]
    return results(*found)
