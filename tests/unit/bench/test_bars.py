# SPDX-License-Identifier: Apache-2.0
"""What bench/compare judges."""

import dataclasses

import pytest

from bench.compare import bars
from bench.compare.sample import Results
from tests.unit.bench.made import everything
from tests.unit.bench.made import results
from tests.unit.bench.made import sample

# Bars: each as results of which one number is the value that is judged.


def play_seconds(value):
    return results(sample('replay', 'raw', 1), sample('replay', 'play', value))


def play_bytes(value):
    return results(
        sample('thinned', 'plain', base_bytes=10**6),
        sample('thinned', 'play', base_bytes=round(value * 10**6)),
    )


def boots(name, value):
    return results(
        sample('choice', 'plain', group='recorded boots', base_bytes=10**6),
        sample('choice', name, group='recorded boots', base_bytes=round(value * 10**6)),
    )


def one_boot(value):
    return boots('one', value)


def two_boots(value):
    return boots('two', value)


def record_seconds(value):
    return results(sample('replay', 'plain', 1), sample('replay', 'record', value))


def record_bytes(value):
    return results(
        sample('boot', 'plain', base_bytes=10**6),
        sample('boot', 'record', base_bytes=round(value * 10**6)),
    )


def scale(value):
    found = [sample('scale', name, 1, hosts=1) for name in ('play', 'raw')]
    found += [sample('scale', 'play', 2 * value, hosts=64), sample('scale', 'raw', 2, hosts=64)]
    return results(*found)


BARS = {
    'a': (play_seconds, '(a) play / raw, seconds: replay at unlimited, 0 ms', 1.03),
    'b': (play_bytes, '(b) play / plain, bytes from the base: thinned at unlimited, 0 ms', 0.03),
    'b, one': (one_boot, 'another boot than the one recorded', 0.03),
    'b, two': (two_boots, 'another boot than the two recorded', 0.01),
    'c, seconds': (record_seconds, '(c) record / plain, seconds: replay', 1.05),
    'c, bytes': (record_bytes, '(c) record / plain, bytes from the base: boot', 1.1),
    'd': (scale, '(d) play / raw, growth from 1 to 64 hosts, one image', 1.1),
}
SMOKE = {'b', 'b, one', 'b, two', 'c, bytes'}
"""What a short run is judged by: no seconds, since the machine may have other work."""


def only(found: Results, words: str, smoke: bool = False) -> bars.Verdict:
    (verdict,) = [each for each in bars.judge(found, smoke) if words in each.name]
    return verdict


@pytest.mark.parametrize('name', BARS)
@pytest.mark.parametrize('smoke', [False, True])
def test_a_bar(name, smoke):
    made, words, limit = BARS[name]
    if smoke and name not in SMOKE:
        for value in (0.001, limit, 1000.0):
            judged = bars.judge(made(value), smoke=True)
            assert [each for each in judged if 'seconds' in each.name] == []
        return
    for factor, held in ((1, True), (0.999, True), (1.001, False)):
        verdict = only(made(limit * factor), words, smoke)
        assert verdict.value == pytest.approx(limit * factor)
        assert verdict.limit == limit
        assert verdict.held == held


def test_nothing_is_judged_without_its_counterpart():
    whole = everything()
    assert len(bars.judge(whole)) == 3 + 4 + 2 + 10 - 1 + 1
    for name in ('play', 'plain', 'raw', 'record', 'copy'):
        alone = [each for each in whole.samples if each.alternative == name]
        assert bars.judge(results(*alone)) == []


def test_figures_that_were_not_taken_are_not_judged():
    found = results(sample('replay', 'plain'), sample('replay', 'record'))
    assert [each.name[:27] for each in bars.judge(found)] == ['(c) record / plain, seconds']


@pytest.mark.parametrize('name', ['play', 'record'])
def test_no_bytes_are_not_divided_by(name):
    for plain, count in ((1, 1), (0, 0)):
        found = results(
            sample('replay', 'plain', base_bytes=plain), sample('replay', name, base_bytes=5)
        )
        assert len([each for each in bars.judge(found) if 'bytes' in each.name]) == count


def test_no_seconds_are_not_divided_by():
    found = [sample('replay', name, 0) for name in ('play', 'raw', 'record', 'plain', 'copy')]
    found += [
        sample('scale', name, 0, hosts=hosts) for name in ('play', 'raw') for hosts in (1, 2)
    ]
    assert bars.judge(results(*found)) == []


def test_play_is_held_against_the_raw_file_next_to_it():
    """The machine becomes slower and slower; medians of each would tell of 2 against 3."""
    found = []
    for speed in (1, 2, 3, 4, 5):
        found.append(sample('replay', 'play', speed * 1.01))
        found.append(sample('replay', 'raw', speed))
    found.append(sample('replay', 'plain', 9))
    found.append(sample('replay', 'raw', 100))  # it was interrupted before the next play
    verdict = only(results(*found), '(a)')
    assert verdict.value == pytest.approx(1.01)
    assert verdict.held
    assert 'play 3.03 (1.01..5.05) s' in verdict.detail
    assert 'ratios of 5 pairs 1.010..1.010' in verdict.detail


def test_one_outlier_does_not_miss_a_bar():
    found = []
    for seconds in (1, 9, 1):
        found += [sample('replay', 'raw', 1), sample('replay', 'play', seconds)]
    verdict = only(results(*found), '(a)')
    assert verdict.held
    assert '1.000..9.000' in verdict.detail


def test_second_guests_of_others_are_not_judged():
    found = [
        sample('replay', 'raw', 1),
        sample('replay', 'raw', 100, guest='second'),
        sample('replay', 'play', 2),
        sample('replay', 'plain', 1),
        sample('replay', 'plain', 100, guest='second'),
        sample('replay', 'record', 2),
    ]
    verdicts = bars.judge(results(*found))
    assert [each.value for each in verdicts] == [2, 2]


def test_each_setting_is_judged_by_itself():
    found = []
    settings = [('1G', 0, 'none'), ('100M', 0, 'none'), ('1G', 20, 'none'), ('1G', 0, 'kept')]
    for place, (rate, delay, think) in enumerate(settings, 2):
        at = {'rate': rate, 'delay_ms': delay, 'think': think}
        found += [sample('replay', 'raw', 1, **at), sample('replay', 'play', place, **at)]
    said = {each.name.partition(' at ')[2]: each.value for each in bars.judge(results(*found))}
    assert said == {
        '100 Mbit/s, 0 ms': 3,
        '1 Gbit/s, 0 ms': 2,
        '1 Gbit/s, 20 ms': 4,
        "1 Gbit/s, 0 ms, with the guest's pauses": 5,
    }


def test_record_is_held_against_plain_of_its_setting():
    found = []
    for place, rate in enumerate(('100M', '1G', 'unlimited'), 2):
        found.append(sample('replay', 'plain', place, rate=rate, base_bytes=place))
        found.append(sample('replay', 'record', place**2, rate=rate, base_bytes=place**3))
    assert [each.value for each in bars.judge(results(*found))] == [2, 4, 3, 9, 4, 16]


def test_what_records_for_another_boot_is_not_judged():
    found = one_boot(0.01)
    found.samples[1] = dataclasses.replace(found.samples[1], guest='second')
    found.samples += [sample('choice', 'one', group='recorded boots', base_bytes=10**6)] * 3
    assert only(found, 'than the one recorded').value == pytest.approx(0.01)


def test_scale_is_judged_at_the_most_hosts_that_both_had():
    found = [
        sample('scale', name, seconds, hosts=hosts, images=images)
        for name, hosts, images, seconds in (
            ('play', 1, 'one', 1),
            ('raw', 1, 'one', 2),
            ('play', 4, 'one', 3),
            ('raw', 4, 'one', 4),
            ('play', 8, 'one', 100),
            ('raw', 8, 'many', 2),
        )
    ]
    verdict = only(results(*found), '(d)')
    assert 'from 1 to 4 hosts' in verdict.name
    assert verdict.value == pytest.approx(1.5)
    assert not bars.judge(results(*found[1:]))  # one host without play
    assert not bars.judge(results(*found[:2]))  # no more than one host


def test_the_start_of_a_recorder_is_told():
    found = [sample('replay', 'plain', 2), sample('replay', 'record', 2, prepare_seconds=0.5)]
    verdict = only(results(*found), '(c)')
    assert verdict.value == 1
    assert verdict.detail.endswith("before it, the recorder's start: 0.500 s")


def test_files_are_judged_together(tmp_path):
    whole = everything()
    of_replay = whole.of('replay')
    halves = (of_replay, [each for each in whole.samples if each not in of_replay])
    paths = []
    for number, samples in enumerate(halves):
        paths.append(tmp_path / f'{number}.json')
        results(*samples).write(paths[-1])
    merged = Results.read(paths)
    assert {each.name for each in bars.judge(merged)} == {each.name for each in bars.judge(whole)}
    assert len(bars.judge(Results.read(paths[:1]))) < len(bars.judge(whole))
