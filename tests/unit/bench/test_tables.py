# SPDX-License-Identifier: Apache-2.0
"""Results of bench/compare as tables."""

import pytest

from bench.compare import bars
from bench.compare import report
from bench.compare import tables
from tests.unit.bench.made import everything
from tests.unit.bench.made import MIB
from tests.unit.bench.made import results
from tests.unit.bench.made import sample


def rows(table: tables.Table) -> dict[str, dict[str, str]]:
    assert len(table.sides) == len(table.header)
    return {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}


def test_a_row_of_the_matrix():
    facts = {'base_requests': 1400, 'written_bytes': 0, 'disk_bytes': 21 * MIB, 'cpu_seconds': 0.5}
    found = [
        sample('replay', 'nbdkit-cache', seconds, base_bytes=20 * MIB, **facts)
        for seconds in (2.5, 2, 4)
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
        bars.Verdict('(a) one', 1.02999, 1.03, 'why'),
        bars.Verdict('(d) two', 12.345, 2, 'so'),
    ]
    assert [tuple(row) for row in tables.bars(verdicts).rows] == [
        ('(a) one', '1.0300', '<= 1.03', 'held', 'why'),
        ('(d) two', '12.3', '<= 2', 'MISSED', 'so'),
    ]


def test_text_is_aligned():
    table = tables.Table('Title', ('', 'n'), [('a', '10'), ('long', '5')], 'lr')
    assert tables.as_text(table) == 'Title\n       n\na     10\nlong   5'


def parsed(text: str):
    """Return the document tree; anything that docutils has to say is an error."""
    core = pytest.importorskip('docutils.core', reason='comes with the extra "docs"')
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
    document = parsed(written)
    assert cells(document) == [['x', text], [text, 'x'], ['y', text]]
    (title,) = [node for node in document.findall() if node.tagname == 'title']
    assert title.astext().replace('\n', ' ') == (text or 'title')


def test_rst_has_the_figures(tmp_path):
    found = everything()
    report.write_tables(found, bars.judge(found), tmp_path)
    expected = {'machine': tables.machine(found), **tables.sections(found)}
    expected['bars'] = [tables.bars(bars.judge(found))]
    assert {path.stem for path in tmp_path.iterdir()} == set(expected)
    for name, of_section in expected.items():
        document = parsed((tmp_path / f'{name}.rst').read_text())
        for number, table in enumerate(of_section):
            header = [table.header] if any(table.header) else []
            assert cells(document, number) == [list(row) for row in (*header, *table.rows)]
