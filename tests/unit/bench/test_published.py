# SPDX-License-Identifier: Apache-2.0
"""The published results have all that the page of the manual includes."""

import pathlib
import re

from bench.compare import bars
from bench.compare import report
from bench.compare.sample import Results

PUBLISHED = pathlib.Path(__file__).parents[3] / 'doc/source/benchmarks'


def test_each_table_of_the_page_is_made(tmp_path):
    found = Results.read([PUBLISHED / 'results.json', PUBLISHED / 'boots.json'])
    report.write_tables(found, bars.judge(found), tmp_path)
    page = (PUBLISHED / 'index.rst').read_text()
    included = re.findall(r'\n\.\. include:: \.\./\.\./build/benchmarks/(\w+)\.rst\n', page)
    assert sorted(included) == sorted(path.stem for path in tmp_path.iterdir())
    assert (tmp_path / 'bars.rst').read_text().count('MISSED') == 4
