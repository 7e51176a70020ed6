# SPDX-License-Identifier: Apache-2.0
"""The tables of the manual are made of the results that are published beside them."""

import pathlib
from unittest import mock

from bench.compare import bars
from bench.compare import plots
from bench.compare import report
from bench.compare.sample import Results

PUBLISHED = pathlib.Path(__file__).parents[3] / 'doc/source/benchmarks'


def test_nothing_in_a_table_is_typed(tmp_path):
    found = Results.read([PUBLISHED / 'results.json', PUBLISHED / 'boots.json'])
    with mock.patch.object(plots, 'draw', autospec=True):
        report.write(found, bars.judge(found), tmp_path)
    for name in ('results_tables.rst', 'results_bars.rst'):
        assert (PUBLISHED / name).read_text() == (tmp_path / name).read_text()
