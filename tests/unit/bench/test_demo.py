# SPDX-License-Identifier: Apache-2.0
"""The demonstration: what it says of what it has measured."""

import argparse
import contextlib
import json
import pathlib
import random
import re
import subprocess
from typing import Any
from unittest import mock

import pytest

from bench.compare import network
from bench.compare import plots
from bench.compare.replay import Cell
from bench.compare.sample import Sample
from bench.compare.scene import Scene
from bench.compare.trace import Read
from bench.compare.trace import Trace
from bench.demo import __main__ as demo
from bench.demo import picture
from bench.demo import replays
from bench.demo.report import ALTERNATIVES
from bench.demo.report import Boot
from bench.demo.report import Copy
from bench.demo.report import Findings
from bench.demo.report import MIB
from bench.demo.report import replays_of

ROOT = pathlib.Path(__file__).parents[3]
WHOLE = Trace([Read(4096 * at, 4096, at) for at in range(480)])
FIGURES = {
    'guests',
    'seconds',
    'base_bytes',
    'base_requests',
    'cache_bytes',
    'quota_bytes',
    'hit_ratio',
}
SECONDS = {'plain': 0.8, 'record': 0.9, 'play': 0.3, 'raw': 0.25}
ROUNDS = 5


def samples(delay_ms: int) -> list[Sample]:
    """Alike but for the rounds, of which the middle one has the seconds above."""
    return [
        Cell('replay', '1G', delay_ms).sample(
            name,
            seconds=seconds + (number - 2) / 10,
            prepare_seconds=0.5 if name == 'record' else 0.0,
            base_bytes=0 if name in ('play', 'raw') else WHOLE.bytes,
            base_requests=0 if name in ('play', 'raw') else len(WHOLE.reads),
        )
        for number in range(ROUNDS)
        for name, seconds in SECONDS.items()
    ]


def findings(accelerator: str = 'tcg') -> Findings:
    sealed = {'cache_bytes': 70 * MIB, 'quota_bytes': 128 * MIB}
    boots = [
        Boot('plain', 1, None, 80 * MIB, 2800),
        Boot('record', 1, 24.0, 84 * MIB, 2000, **sealed),
        Boot('play', 1, 31.5, 2 * MIB, 3, **sealed),
    ]
    if accelerator == 'kvm':
        boots[0].seconds = 6.0
        boots.append(Boot('play3', 3, 7.0, 3 * MIB, 9, **sealed))
    found = replays_of([*samples(0), *samples(20)], replays.traces(WHOLE))
    return Findings(accelerator, '1G', Copy(2.5, 256 * MIB, 4096 * MIB), boots, found)


def shown(found: Findings) -> Any:
    return json.loads(found.as_json())


# -- JSON


def test_keys_without_kvm():
    document = shown(findings())
    assert document['accelerator'] == 'tcg'
    assert document['emulated'] is True
    assert document['rate'] == '1G'
    for name in ('plain', 'record', 'play'):
        assert document[name].keys() == FIGURES
    assert document['play3'] is None
    assert document['plain']['seconds'] is None


def test_keys_with_kvm():
    document = shown(findings('kvm'))
    assert document['emulated'] is False
    assert document['plain']['seconds'] == 6
    assert document['play3'].keys() == FIGURES


def test_hit_ratios():
    document = shown(findings('kvm'))
    ratios = [document[name]['hit_ratio'] for name in ('plain', 'record', 'play', 'play3')]
    assert ratios == [None, 0.0, 0.975, 0.9875]


def test_the_whole_copy_is_extrapolated_from_the_part():
    assert shown(findings())['copy'] == {
        'seconds': 40.0,
        'extrapolated': True,
        'measured_seconds': 2.5,
        'measured_bytes': 256 * MIB,
        'image_bytes': 4096 * MIB,
    }


def test_replays_have_medians_and_ranges():
    whole, part = shown(findings())['replays']
    assert (whole['delay_ms'], whole['reads'], whole['of_reads']) == (0, 480, 480)
    assert (part['delay_ms'], part['reads'], part['of_reads']) == (20, 20, 480)
    assert part['bytes'] == 20 * 4096
    for replay in (whole, part):
        for name, seconds in SECONDS.items():
            figures = replay[name]
            assert figures['seconds'] == pytest.approx(seconds)
            assert figures['least_seconds'] == pytest.approx(seconds - 0.2)
            assert figures['most_seconds'] == pytest.approx(seconds + 0.2)
            assert figures['rounds'] == ROUNDS
    assert whole['plain']['base_bytes'] == 480 * 4096
    assert whole['play']['base_requests'] == 0
    assert whole['record']['prepare_seconds'] == 0.5


# -- the table


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(start))


def test_the_table_tells_what_is_measured_and_what_is_extrapolated():
    text = findings().table()
    line = line_of(text, '4,096 MiB')
    assert '40.0 s, extrapolated' in line
    assert 'measured: 256 MiB in 2.50 s' in line


def test_the_table_marks_seconds_of_an_emulated_processor():
    assert 'seconds emulated' in findings().table()
    assert 'emulated' not in findings('kvm').table()


def test_the_table_has_no_seconds_of_a_guest_that_did_not_boot():
    text = findings().table()
    assert line_of(text, 'plain ').split()[:4] == ['plain', '1', '-', '80.00']
    assert 'plain: no guest' in text
    assert 'plain: no guest' not in findings('kvm').table()


def test_the_table_has_medians_ranges_and_the_part_that_was_replayed():
    text = findings().table()
    replayed = text[text.index('3. ') :]
    assert '20 of 480 reads' in replayed
    line = line_of(replayed, 'play ')
    assert line.split() == ['play', *['0.300', '(0.100..0.500)'] * 2]


# -- the picture


def drawn(found: Findings) -> Any:
    import matplotlib

    with matplotlib.rc_context(plots.STYLE):
        figure = picture._figure(found)
        figure.canvas.draw()
    return figure


def bars(axes: Any) -> list[Any]:
    """Return length and hatching of each bar that can be seen."""
    return [
        (bar.get_width(), bar.get_hatch() is not None) for bar in axes.patches if bar.get_width()
    ]


@pytest.mark.parametrize('accelerator', ['tcg', 'kvm'])
def test_all_axes_are_linear_and_begin_at_0(accelerator):
    panels = drawn(findings(accelerator)).axes
    assert len(panels) == 5
    for axes in panels:
        assert axes.get_xscale() == 'linear'
        assert axes.get_xlim()[0] == 0


def test_what_is_extrapolated_is_hatched():
    assert bars(drawn(findings()).axes[0]) == [(2.5, False), (37.5, True)]


def test_seconds_of_an_emulated_processor_are_hatched_and_say_so():
    axes = drawn(findings()).axes[2]
    assert bars(axes) == [(24.0, True), (31.5, True)]
    assert all('emulated' in text.get_text() for text in axes.texts)
    assert 'emulated' in axes.get_title(loc='left')


def test_seconds_of_a_real_processor_are_not():
    axes = drawn(findings('kvm')).axes[2]
    assert bars(axes) == [(6.0, False), (24.0, False), (31.5, False), (7.0, False)]
    assert not any('emulated' in text.get_text() for text in axes.texts)


def test_replays_are_medians_with_ranges():
    for axes in drawn(findings()).axes[3:]:
        assert bars(axes) == [(pytest.approx(SECONDS[name]), False) for name in ALTERNATIVES]
        ranges = [line for lines in axes.collections for line in lines.get_segments()]
        ends = [line[:, 0].tolist() for line in ranges]
        wanted = [[SECONDS[name] - 0.2, SECONDS[name] + 0.2] for name in ALTERNATIVES]
        assert ends == [pytest.approx(each) for each in wanted]


def test_the_picture_is_a_file(tmp_path):
    picture.draw(findings(), tmp_path / 'demo.png')
    assert [path.name for path in tmp_path.iterdir()] == ['demo.png']
    assert (tmp_path / 'demo.png').read_bytes().startswith(b'\x89PNG\r\n')


# -- what is measured


def replayed(seed: int) -> list[Sample]:
    """Return what is measured, in its order, with doubles of the network and of the hosts."""
    scene = mock.create_autospec(Scene, instance=True)
    scene.chance = random.Random(seed)
    found: list[Sample] = []
    scene.collect = found.append
    scene.base.side_effect = lambda *_: contextlib.nullcontext(mock.sentinel.base)
    scene.host.side_effect = lambda _: contextlib.nullcontext(mock.Mock())
    with mock.patch.object(replays, 'first_guest', autospec=True, return_value={'seconds': 1.0}):
        replays.replay(scene, replays.traces(WHOLE), pathlib.Path('cache'), '1G', ROUNDS)
    return found


def in_rounds(found: list[Sample]) -> list[list[tuple[str, int]]]:
    turns = [(each.alternative, each.delay_ms) for each in found]
    count = 2 * len(ALTERNATIVES)
    return [turns[at : at + count] for at in range(0, len(turns), count)]


def test_all_take_turns_in_each_round():
    rounds = in_rounds(replayed(1))
    assert len(rounds) == ROUNDS
    for found in rounds:
        assert set(found) == {(name, delay) for name in ALTERNATIVES for delay in (0, 20)}


def test_the_order_changes_from_round_to_round_and_is_the_same_for_a_seed():
    rounds = in_rounds(replayed(1))
    assert len({tuple(each) for each in rounds}) > 1
    assert rounds == in_rounds(replayed(1))


@pytest.mark.parametrize('text', ['1G', '100M', '2.5G', '64K', '1000000'])
def test_rates(text):
    assert demo.rate(text) == text


@pytest.mark.parametrize('text', ['', '0', 'G', '1g', '1T', '1Gbit', '-1M', 'unlimited'])
def test_what_is_no_rate(text):
    with pytest.raises(argparse.ArgumentTypeError, match='is no number of bits per second'):
        demo.rate(text)


@pytest.mark.parametrize(
    'rate, wanted', [('1G', '1gbit'), ('2.5M', '2.5mbit'), ('64000', '64000bit')]
)
def test_the_link_is_limited(rate, wanted):
    link = network.Network('name', 'far', '10.200.0')
    with mock.patch.object(network, '_run', autospec=True) as run:
        link.limit(rate)
    words = run.mock_calls[-1].args
    assert words[words.index('rate') + 1] == wanted


def test_the_help_names_all_options(capsys):
    done = subprocess.run(
        ['bash', ROOT / 'tools' / 'demo.sh', '--help'], capture_output=True, text=True, check=True
    )
    listed = set(re.findall(r'^  (--[a-z-]+)', done.stdout, re.MULTILINE))
    with pytest.raises(SystemExit):
        demo.parse(['--help'])
    known = set(re.findall(r'^  (--[a-z-]+)', capsys.readouterr().out, re.MULTILINE))
    assert listed == known
