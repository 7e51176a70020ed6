# SPDX-License-Identifier: Apache-2.0
"""What is made from the results of bench/compare: bars, tables, plots and the report."""

import dataclasses
import struct
import sys
from unittest import mock
import warnings

import pytest

from bench.compare import bars
from bench.compare import plots
from bench.compare import report
from bench.compare import tables
from bench.compare import wording
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
            at['round'] = number
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


def copy(value):
    return results(
        sample('replay', 'copy', value / 2, rate='1G', prepare_seconds=value / 2),
        sample('replay', 'record', 0.75, rate='1G', prepare_seconds=0.25),
    )


def copy_and_boot(value):
    return results(
        sample('boot', 'copy', value / 2, rate='100M', prepare_seconds=value / 2),
        sample('boot', 'record', 0.75, rate='100M', prepare_seconds=0.25),
    )


BARS = {
    'a': (play_seconds, '(a) play / raw, seconds: replay at unlimited, 0 ms', 1.03),
    'b': (play_bytes, '(b) play / plain, bytes from the base: thinned at unlimited, 0 ms', 0.03),
    'b, one': (one_boot, 'another boot than the one recorded', 0.03),
    'b, two': (two_boots, 'another boot than the two recorded', 0.01),
    'c, seconds': (record_seconds, '(c) record / plain, seconds: replay', 1.05),
    'c, bytes': (record_bytes, '(c) record / plain, bytes from the base: boot', 1.1),
    'd': (scale, '(d) play / raw, growth from 1 to 64 hosts, one image', 1.1),
    'e': (copy, '(e) copy / record, seconds with those to prepare: replay at 1 Gbit/s', -5),
    'e, boot': (
        copy_and_boot,
        '(e) copy / record, seconds with those to prepare: boot at 100',
        -5,
    ),
}
SMOKE = {'a': 1.5, 'b': 0.03, 'b, one': 0.03, 'c, seconds': 1.5, 'c, bytes': 1.1}
SMOKE |= {'e, boot': -2}


def only(found: Results, words: str, smoke: bool = False) -> bars.Verdict:
    (verdict,) = [each for each in bars.judge(found, smoke) if words in each.name]
    return verdict


@pytest.mark.parametrize('name', BARS)
@pytest.mark.parametrize('smoke', [False, True])
def test_a_bar(name, smoke):
    made, words, limit = BARS[name]
    if smoke and name not in SMOKE:
        assert bars.judge(made(0.0), smoke=True) == []
        return
    limit = SMOKE[name] if smoke else limit
    at_least, limit = limit < 0, abs(limit)
    better, worse = (1.001, 0.999) if at_least else (0.999, 1.001)
    for factor, held in ((1, True), (better, True), (worse, False)):
        verdict = only(made(limit * factor), words, smoke)
        assert verdict.value == pytest.approx(limit * factor)
        assert (verdict.limit, verdict.at_least) == (limit, at_least)
        assert verdict.held == held


@pytest.mark.parametrize('times, held', [(2, True), (1.99, False)])
def test_a_short_run_copies_at_another_rate(times, held):
    found = results(
        sample('replay', 'copy', 0.1, rate='100M', prepare_seconds=times - 0.1),
        sample('replay', 'record', 0.75, rate='100M', prepare_seconds=0.25),
    )
    assert only(found, '(e)', smoke=True).held == held
    assert not [each for each in bars.judge(found) if '(e)' in each.name]


def test_nothing_is_judged_without_its_counterpart():
    whole = everything()
    assert len(bars.judge(whole)) == 4 + 4 + 2 + 10 - 1 + 1 + 2
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
    for number, speed in enumerate((1, 2, 3, 4, 5)):
        found.append(sample('replay', 'play', speed * 1.01, round=number))
        found.append(sample('replay', 'raw', speed, round=number))
    found.append(sample('replay', 'plain', 9))
    # Of a later hour, and of rounds that had no play.
    found += [sample('replay', 'raw', 100, round=number) for number in range(20)]
    verdict = only(results(*found), '(a)')
    assert verdict.value == pytest.approx(1.01)
    assert verdict.held
    assert 'play 3.03 (1.01..5.05) s' in verdict.detail
    assert 'ratios of 5 pairs 1.010..1.010' in verdict.detail


def test_pairs_that_all_have_one_number_stay_pairs():
    found = []
    for speed in (1, 10, 100):
        found += [sample('replay', 'raw', speed), sample('replay', 'play', speed * 1.25)]
        found += [sample('replay', 'plain', 9), sample('replay', 'record', 9)]
    verdict = only(results(*found), '(a)')
    assert verdict.value == pytest.approx(1.25)
    assert 'ratios of 3 pairs 1.250..1.250' in verdict.detail


def test_rounds_are_not_mixed():
    found = [
        sample('replay', 'raw', 100, round=1),
        sample('replay', 'play', 2, round=0),
        sample('replay', 'raw', 100, round=1),
        sample('replay', 'raw', 1, round=0),
    ]
    assert only(results(*found), '(a)').value == 2


def test_one_outlier_does_not_miss_a_bar():
    found = []
    for number, seconds in enumerate((1, 9, 1)):
        found += [sample('replay', 'raw', 1, round=number)]
        found += [sample('replay', 'play', seconds, round=number)]
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


@pytest.mark.parametrize('rate, delay', [('100M', 0), ('unlimited', 0), ('1G', 20)])
def test_the_copy_is_judged_at_one_setting(rate, delay):
    found = [
        sample('replay', name, rate=rate, delay_ms=delay) for name in ('copy', 'record', 'plain')
    ]
    assert not [each for each in bars.judge(results(*found)) if '(e)' in each.name]


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
    halves = (whole.samples[::2], whole.samples[1::2])
    paths = []
    for number, samples in enumerate(halves):
        paths.append(tmp_path / f'{number}.json')
        results(*samples).write(paths[-1])
    merged = Results.read(paths)
    assert {each.name for each in bars.judge(merged)} == {each.name for each in bars.judge(whole)}
    assert len(bars.judge(Results.read(paths[:1]))) < len(bars.judge(whole))


def test_pairs_of_two_files_are_not_mixed(tmp_path):
    paths = []
    for speed in (1, 50):
        paths.append(tmp_path / f'{speed}.json')
        found = [sample('replay', 'play', speed * 2), sample('replay', 'raw', speed)]
        results(*found).write(paths[-1])
    assert 'ratios of 2 pairs 2.000..2.000' in only(Results.read(paths), '(a)').detail


# Words


def test_names_have_an_order():
    names = ['raw', 'zebra', '1M', '64K', '4 KiB', 'play', 'copy', '64K', 'plain', '2M, extended']
    assert wording.ordered(names) == [
        *('copy', 'plain', 'play', 'raw'),
        *('4 KiB', '64K', '1M', '2M, extended', 'zebra'),
    ]


@pytest.mark.parametrize(
    'value, text',
    [
        (0, '0'),
        (0.0004, '<0.001'),
        (0.4321, '0.432'),
        (9.876, '9.88'),
        (98.76, '98.8'),
        (4096.4, '4,096'),
    ],
)
def test_number(value, text):
    assert wording.number(value) == text


# Tables


def rows(table: tables.Table) -> dict[str, dict[str, str]]:
    assert len(table.sides) == len(table.header)
    return {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}


def test_a_row_of_the_matrix():
    facts = {'base_requests': 1400, 'written_bytes': 0, 'disk_bytes': 21 * MIB, 'cpu_seconds': 0.5}
    found = [
        sample('replay', 'nbdkit-cache', seconds, round=number, base_bytes=20 * MIB, **facts)
        for number, seconds in enumerate((2.5, 2, 4))
    ]
    second = {'guest': 'second', 'base_bytes': MIB // 2, 'base_requests': 3}
    found.append(sample('replay', 'nbdkit-cache', 0.25, disk_bytes=22 * MIB, **second))
    (table,) = tables.sections(results(*found))['replay']
    assert table.title == 'The reads of a boot: unlimited, 0 ms'
    assert rows(table)['nbdkit-cache'] == {
        '': 'nbdkit-cache',
        'n': '3',
        's, first guest': '2.50 (2.00..4.00)',
        's, second guest': '0.250',
        'MiB from base': '20.0 / 0.500',
        'requests': '1,400 / 3',
        'MiB written': '0 / -',
        'MiB on disk': '22.0',
        'CPU s': '0.500 / -',
    }


def test_only_seconds_of_copy_have_those_to_prepare():
    found = [
        sample('boot', 'record', 30, prepare_seconds=0.25),
        sample('boot', 'copy', 30, prepare_seconds=300),
    ]
    (table,) = tables.sections(results(*found))['boot']
    assert list(rows(table)) == ['copy', 'record']
    copied, recorded = rows(table).values()
    assert (copied['s, first guest'], copied['s to prepare']) == ('330', '300')
    assert (recorded['s, first guest'], recorded['s to prepare']) == ('30.0', '0.250')


def test_columns_without_figures_are_left_out():
    found = results(sample('place', 'play, tmpfs', 0.5, guest='second'))
    (table,) = tables.sections(found)['place']
    assert list(table.header) == ['', 'n', 's, second guest']
    assert list(table.rows) == [['play, tmpfs', '1', '0.500']]


def test_each_setting_has_a_table_and_no_other_section_is_in_it():
    found = tables.sections(everything())
    assert list(found) == ['replay', 'thinned', 'boot', 'place', 'scale', 'choice']
    assert [each.title.partition(': ')[2] for each in found['replay']] == [
        '100 Mbit/s, 0 ms',
        '1 Gbit/s, 0 ms',
        'unlimited, 0 ms',
    ]
    for table in found['replay']:
        assert list(rows(table)) == ['copy', 'plain', 'record', 'play', 'raw']
        assert rows(table)['plain']['s, first guest'] == '3.20 (3.00..3.40)'
        assert rows(table)['copy']['s, first guest'] == '43.0 (41.0..45.0)'
    assert list(rows(found['boot'][0])) == ['copy', 'plain', 'record', 'play']


def test_settings_are_not_mixed_in_a_table():
    found = [sample('place', 'raw', place, delay_ms=place) for place in (1, 2)]
    first, second = tables.sections(results(*found))['place']
    assert rows(first)['raw']['s, first guest'] == '1.00'
    assert rows(second)['raw']['s, first guest'] == '2.00'


def test_no_results_no_tables():
    assert tables.sections(results()) == {}


def test_scale_has_a_row_for_each_number_of_hosts():
    found = everything()
    found.samples = [each for each in found.samples if each.hosts != 8 or each.images == 'one']
    found.samples.append(sample('scale', 'play', 78, hosts=64, think='kept', base_bytes=3 * MIB))
    seconds, base = tables.sections(found)['scale']
    assert list(rows(seconds)) == ['1', '8', '64']
    assert list(seconds.header) == [
        'hosts',
        *(f'{name}, one image' for name in ('plain', 'record', 'play', 'raw')),
        *(f'{name}, many images' for name in ('plain', 'record', 'play', 'raw')),
    ]
    assert rows(seconds)['64']['play, one image'] == '76.0 (74.0..78.0)'
    assert rows(seconds)['8']['raw, many images'] == ''
    assert rows(base)['64']['play, one image'] == '3.00'
    assert 'MiB from base' in base.title


def test_each_choice_has_a_table():
    sizes, boots = tables.sections(everything())['choice']
    assert sizes.title == 'Choice, cluster size: unlimited, 0 ms'
    assert list(rows(sizes)) == ['64K', '1M']
    assert list(rows(boots)) == ['plain', 'one', 'two']
    assert rows(boots)['one']['MiB from base'] == '- / 2.00'


def test_what_was_measured_on():
    found = results()
    found.trace |= {'bytes': 20.0 * MIB, 'thinned_bytes': 2.5 * MIB, 'think_seconds': 12.34}
    machine, trace = tables.machine(found)
    assert list(machine.rows) == [('qemu', '7.2.0')]
    assert list(trace.rows) == [
        ('reads', '1,412'),
        ('MiB', '20.0'),
        ('thinned MiB', '2.50'),
        ('think seconds', '12.3'),
    ]


def test_bars_as_a_table():
    verdicts = [
        bars.Verdict('(a) one', 1.02999, 1.03, False, 'why'),
        bars.Verdict('(e) two', 12.345, 20, True, 'so'),
    ]
    assert [tuple(row) for row in tables.bars(verdicts).rows] == [
        ('(a) one', '1.0300', '<= 1.03', 'held', 'why'),
        ('(e) two', '12.3', '>= 20', 'MISSED', 'so'),
    ]


def test_text_is_aligned():
    table = tables.Table('Title', ('', 'n'), [('a', '10'), ('long', '5')], 'lr')
    assert tables.as_text(table) == 'Title\n       n\na     10\nlong   5'


def parsed(text: str):
    """Return the document tree; anything that docutils has to say is an error."""
    core = pytest.importorskip('docutils.core')
    settings = {'report_level': 1, 'halt_level': 1, 'file_insertion_enabled': False}
    return core.publish_doctree(text, settings_overrides=settings)


def cells(document, number: int = 0) -> list[list[str]]:
    table = [node for node in document.findall() if node.tagname == 'table'][number]
    return [
        [entry.astext().replace('\n', ' ') for entry in row.children]
        for row in table.findall()
        if row.tagname == 'row'
    ]


NASTY = [
    '(b) play / plain',
    '- / 0.5',
    '1. a',
    'a) b',
    '*a* `b` |c| d_ e__ \\f',
    ':field: x',
    '',
    '.. comment',
    '2.50 (2.00..4.00)',
    'long ' * 50 + 'end',
    "it's <= 5",
]


@pytest.mark.parametrize('text', NASTY)
def test_cells_are_no_markup(text):
    table = tables.Table(text or 'title', ('x', text), [(text, 'x'), ('y', text)], 'll')
    written = tables.as_rst(table)
    assert max(map(len, written.splitlines())) <= 99
    document = parsed(written)
    assert cells(document) == [['x', text], [text, 'x'], ['y', text]]
    (title,) = [node for node in document.findall() if node.tagname == 'title']
    assert title.astext().replace('\n', ' ') == (text or 'title')


def test_rst_has_the_figures(tmp_path):
    found = everything()
    with mock.patch.object(plots, 'draw', autospec=True):
        report.write(found, bars.judge(found), tmp_path)
    written = (tmp_path / 'results_tables.rst').read_text()
    document = parsed(written)
    expected = tables.machine(found) + [
        each for of_section in tables.sections(found).values() for each in of_section
    ]
    assert len(expected) > 10
    for number, table in enumerate(expected):
        has_header = any(table.header)
        assert cells(document, number) == [
            list(row) for row in [table.header] * has_header + list(table.rows)
        ]
    judged = parsed((tmp_path / 'results_bars.rst').read_text())
    assert len(cells(judged)) == 1 + len(bars.judge(found))
    for text in (written, (tmp_path / 'results_bars.rst').read_text()):
        assert text.startswith('.. SPDX-License-Identifier: Apache-2.0\n.. Made by')
        assert max(map(len, text.splitlines())) <= 99
        assert not [line for line in text.splitlines() if line != line.rstrip()]
    # A page includes one section alone.
    _, _, rest = written.partition('.. start of scale\n')
    scale_part, _, _ = rest.partition('.. end of scale\n')
    assert len([n for n in parsed(scale_part).findall() if n.tagname == 'table']) == 1


# Plots


def size(path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head.startswith(b'\x89PNG\r\n')
    width, height = struct.unpack('>II', head[16:])
    return width, height


def styled(plot, found: Results):
    import matplotlib

    with matplotlib.rc_context(plots._STYLE):
        return plot(found)


def words(plot, found: Results) -> set[str]:
    said = set()
    for axes in styled(plot, found).axes:
        said |= {text.get_text() for text in axes.texts} | {axes.get_title(loc='left')}
        said |= {label.get_text() for label in axes.get_yticklabels()}
    return said


def test_plots(tmp_path):
    paths = plots.draw(everything(), tmp_path)
    assert {path.name for path in paths} == {path.name for path in tmp_path.iterdir()} == FILES
    for path in paths:
        width, height = size(path)
        assert 700 < width < 1500
        assert 300 < height < 1000
        assert 3000 < path.stat().st_size < 100_000


@pytest.mark.parametrize(
    'section, files',
    [
        ('replay', {'replay.png', 'bytes.png'}),
        ('thinned', {'thinned.png'}),
        ('boot', {'boot.png'}),
        ('scale', {'scale.png'}),
        ('choice', set()),
    ],
)
def test_what_was_not_measured_is_not_drawn(tmp_path, section, files):
    found = results(*everything().of(section))
    assert {path.name for path in plots.draw(found, tmp_path)} == files


def test_replay_says_its_figures():
    said = words(plots._replay, everything(play=1.25))
    assert {'100 Mbit/s, 0 ms', '1 Gbit/s, 0 ms', 'unlimited, 0 ms'} <= said
    assert {'copy', 'plain', 'record', 'play', 'raw'} <= said
    assert {'43.0', '1.50', '3.20', '1.25', '1.00'} <= said


def test_pauses_and_other_delays_are_not_in_the_plot():
    found = [
        sample('replay', 'plain', 5),
        sample('replay', 'plain', 6, think='kept'),
        sample('replay', 'plain', 7, delay_ms=20),
    ]
    said = words(plots._replay, results(*found))
    assert '5.00' in said
    assert not {'6.00', '7.00'} & said


def test_bytes_says_its_figures_and_no_bytes_are_0(tmp_path):
    found = everything()
    assert {'20.0', '0.100', '0', '1 Gbit/s, 0 ms'} <= words(plots._bytes, found)
    nothing = results(sample('replay', 'raw', base_bytes=0))
    assert '0' in words(plots._bytes, nothing)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        plots.draw(nothing, tmp_path)


def test_boot_adds_the_copying():
    assert {'380', '45.0', '46.0', '31.0'} <= words(plots._boot, everything())


def test_scale_has_a_panel_for_each_kind_and_begins_at_0():
    figure = styled(plots._scale, everything())
    one, many = figure.axes
    assert one.get_title(loc='left').startswith('one image for all')
    assert many.get_title(loc='left').startswith('another image for each')
    for axes, said in ((one, '11.0 to 74.0 s'), (many, '21.0 to 84.0 s')):
        assert axes.get_ylim()[0] == 0
        assert axes.get_xscale() == 'log'
        assert [line.get_label() for line in axes.lines] == [
            f'{name} ({said})' for name in ('plain', 'record', 'play', 'raw')
        ]
        assert list(axes.lines[0].get_xdata()) == [1, 8, 64]


@pytest.mark.parametrize('kind', ['one', 'many'])
def test_scale_shows_the_slowest_of_both_panels(kind):
    found = everything()
    found.samples.append(sample('scale', 'plain', 999, hosts=64, images=kind, think='kept'))
    for axes in styled(plots._scale, found).axes:
        assert 999 < axes.get_ylim()[1] < 1200


def test_nothing_global_is_changed(tmp_path):
    import matplotlib

    before = matplotlib.rcParams['axes.titlesize']
    with mock.patch.dict(sys.modules, {'matplotlib.pyplot': None}):  # cannot be imported
        plots.draw(results(sample('boot', 'plain')), tmp_path)
    assert matplotlib.rcParams['axes.titlesize'] == before != plots._STYLE['axes.titlesize']


def test_the_same_results_make_the_same_files(tmp_path):
    found = results(*everything().of('scale'))
    first = [path.read_bytes() for path in plots.draw(found, tmp_path)]
    assert first == [path.read_bytes() for path in plots.draw(found, tmp_path)]


# The program


@pytest.fixture
def written(tmp_path):
    def write(found: Results) -> str:
        found.write(tmp_path / 'results.json')
        return str(tmp_path / 'results.json')

    return write


def test_all_bars_held(written, capsys):
    assert report.main([written(everything())]) == 0
    out, err = capsys.readouterr()
    assert err == ''
    assert out.startswith('$ bench/run.sh --rounds=5\n')
    assert 'qemu  7.2.0' in out
    assert '\nThe reads of a boot: 100 Mbit/s, 0 ms\n' in out
    assert out.endswith('\n22 of 22 bars held\n')


def test_a_bar_that_is_missed(written, capsys):
    path = written(everything(play=1.25))
    assert report.main([path]) == 1
    out = capsys.readouterr().out
    assert '\n18 of 22 bars held\nmissed: (a) play / raw, seconds: replay at 100 Mbit/s' in out
    assert out.count('MISSED') == 4
    assert report.main(['--smoke', path]) == 0


def test_nothing_to_judge(written, capsys):
    assert report.main([written(results(sample('place', 'play')))]) == 0
    assert capsys.readouterr().out.endswith('\n0 of 0 bars held\n')


@pytest.mark.parametrize('content', [None, '', '{', '[]', '{}', '{"samples": [{"x": 1}]}', '\xff'])
def test_a_bad_file(tmp_path, written, capsys, content):
    bad = tmp_path / 'bad.json'
    if content is not None:
        bad.write_bytes(content.encode('latin-1'))
    assert report.main([written(everything()), str(bad)]) == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert err.count('\n') == 1
    assert str(bad) in err


def test_files_for_the_manual(tmp_path, written):
    folder = tmp_path / 'doc' / 'compare'
    assert report.main(['--rst', str(folder), written(everything())]) == 0
    names = {path.name for path in folder.iterdir()}
    assert names == FILES | {'results_tables.rst', 'results_bars.rst'}


def test_without_matplotlib_there_are_tables(tmp_path, written, capsys):
    argv = ['--rst', str(tmp_path / 'doc'), written(everything())]
    with mock.patch.dict(sys.modules, {'matplotlib': None}):
        assert report.main(argv) == 2
    assert 'matplotlib' in capsys.readouterr().err
    names = {path.name for path in (tmp_path / 'doc').iterdir()}
    assert names == {'results_tables.rst', 'results_bars.rst'}


def test_a_folder_that_cannot_be(tmp_path, written, capsys):
    path = written(everything())
    assert report.main(['--rst', path, path]) == 2
    assert path in capsys.readouterr().err


def test_a_file_loses_nothing(tmp_path, written):
    found = everything()
    written(found)
    assert Results.read([tmp_path / 'results.json']) == found


def test_settings_have_an_order():
    found = [
        ('100M', 0, 'kept'),
        ('100M', 20, 'none'),
        ('2G', 0, 'none'),
        ('unlimited', 0, 'none'),
        ('1G', 0, 'none'),
        ('1G', 0, 'none'),
    ]
    samples = [
        sample('replay', 'raw', rate=rate, delay_ms=delay, think=think)
        for rate, delay, think in found
    ]
    assert list(map(str, wording.settings(samples))) == [
        '1 Gbit/s, 0 ms',
        'unlimited, 0 ms',
        '2G, 0 ms',
        '100 Mbit/s, 20 ms',
        "100 Mbit/s, 0 ms, with the guest's pauses",
    ]
