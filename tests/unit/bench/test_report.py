# SPDX-License-Identifier: Apache-2.0
"""The program that shows results of bench/compare."""

import pathlib
import sys
from unittest import mock

import pytest

from bench.compare import report
from bench.compare.sample import cells
from bench.compare.sample import Results
from tests.unit.bench.made import everything
from tests.unit.bench.made import FILES
from tests.unit.bench.made import results
from tests.unit.bench.made import sample

HEAD = '[{"command": "", "machine": {}, "trace": {}}'


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
    assert out.endswith('\n19 of 19 bars held\n')


def test_a_bar_that_is_missed(written, capsys):
    path = written(everything(play=1.25))
    assert report.main([path]) == 1
    out = capsys.readouterr().out
    assert '\n16 of 19 bars held\nmissed: (a) play / raw, seconds: replay at 100 Mbit/s' in out
    assert out.count('MISSED') == 3
    assert report.main(['--smoke', path]) == 0


def test_nothing_to_judge(written, capsys):
    assert report.main([written(results(sample('place', 'play')))]) == 0
    assert capsys.readouterr().out.endswith('\n0 of 0 bars held\n')


@pytest.mark.parametrize(
    'content',
    [None, '', '{', '[]', '{}', '[{"x": 1}]', f'{HEAD}, 1]', f'{HEAD}, {{"x": 1}}]', '\xff'],
)
def test_a_bad_file(tmp_path, written, capsys, content):
    bad = tmp_path / 'bad.json'
    if content is not None:
        bad.write_bytes(content.encode('latin-1'))
    assert report.main([written(everything()), str(bad)]) == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert err.count('\n') == 1
    assert str(bad) in err


def test_pictures(tmp_path, written):
    folder = tmp_path / 'doc' / 'compare'
    assert report.main(['--plots', str(folder), written(everything())]) == 0
    assert {path.name for path in folder.iterdir()} == FILES


def test_without_matplotlib_there_are_tables(tmp_path, written, capsys):
    argv = ['--plots', str(tmp_path / 'doc'), written(everything())]
    with mock.patch.dict(sys.modules, {'matplotlib': None}):
        assert report.main(argv) == 2
    out, err = capsys.readouterr()
    assert 'The reads of a boot' in out
    assert 'matplotlib' in err


def test_a_folder_that_cannot_be(tmp_path, written, capsys):
    path = written(everything())
    assert report.main(['--plots', path, path]) == 2
    assert path in capsys.readouterr().err


def test_a_later_file_has_its_sections_alone(tmp_path, written):
    """Figures of two runs are not mixed."""
    later = results(sample('boot', 'plain', 7), sample('boot', 'plain', 8))
    later.command = 'bench/run.sh --boots=2'
    later.write(tmp_path / 'later.json')
    merged = Results.read([pathlib.Path(written(everything())), tmp_path / 'later.json'])
    assert merged.of('boot') == later.samples
    assert cells(merged.of('replay')) == cells(everything().of('replay'))
    assert merged.command == 'bench/run.sh --rounds=5; boot: bench/run.sh --boots=2'


def test_a_file_loses_nothing(tmp_path, written):
    found = everything()
    written(found)
    again = Results.read([tmp_path / 'results.json'])
    assert cells(again.samples) == cells(found.samples)
    assert (again.command, again.machine, again.trace) == (
        found.command,
        found.machine,
        found.trace,
    )
