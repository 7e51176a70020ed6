# SPDX-License-Identifier: Apache-2.0
"""How a run of pytest went, by the file that it leaves."""

import subprocess
import sys

import pytest

ONE_OF_EACH = """
def test_good(): pass
def test_bad(): assert False
def test_skipped():
    import pytest
    pytest.skip("not here")
"""
BAD_TWICE = """
import pytest
@pytest.fixture
def broken():
    yield
    raise RuntimeError
def test_good_but_dirty(broken): pass
def test_bad_and_dirty(broken): assert False
"""


@pytest.fixture
def judged(report, tmp_path):
    """A function that runs these tests and returns what their report comes to."""

    def judge(source: str) -> tuple[str, str]:
        (tmp_path / 'test_planted.py').write_text(source)
        path = tmp_path / 'report.xml'
        command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-c/dev/null']
        ended = subprocess.run(
            [*command, f'--junitxml={path}', 'test_planted.py'],
            cwd=tmp_path,
            capture_output=True,
            check=False,
            timeout=300,
        )
        totals, complaint = report.judge(ended.returncode, path)
        return str(totals), complaint

    return judge


def test_each_outcome_is_counted(judged):
    assert judged(ONE_OF_EACH) == ('1 passed, 1 failed, 1 skipped', '')


def test_a_test_that_breaks_twice_is_one_failure(judged):
    assert judged(BAD_TWICE) == ('0 passed, 2 failed, 0 skipped', '')


@pytest.mark.parametrize(
    ('source', 'totals'),
    [
        ('', '0 passed, 1 failed, 0 skipped'),
        (
            "import pytest\ndef test_nothing(): pytest.skip('no qemu')\n",
            '0 passed, 1 failed, 1 skipped',
        ),
    ],
)
def test_a_run_that_executes_no_test_is_a_failure(judged, source, totals):
    assert judged(source) == (totals, 'it executed no test')


def test_a_module_that_cannot_be_imported_is_a_failure(judged):
    assert judged('import no_such_module\n') == ('0 passed, 1 failed, 0 skipped', '')


def test_a_run_that_died_is_a_failure(judged):
    died = judged('import os\ndef test_dies(): os._exit(0)\n')
    assert died == ('0 passed, 1 failed, 0 skipped', 'it left no complete report')


def test_an_exit_code_without_a_failed_test_is_a_failure(report, judged, tmp_path):
    assert judged('def test_a(): pass\n') == ('1 passed, 0 failed, 0 skipped', '')
    totals, complaint = report.judge(3, tmp_path / 'report.xml')
    assert str(totals) == '1 passed, 1 failed, 0 skipped'
    assert complaint == 'pytest ended with exit code 3'


def test_totals_are_added_up(report):
    total = report.Totals(1, 2, 3)
    total.add(report.Totals(10, 20, 30))
    assert str(total) == '11 passed, 22 failed, 33 skipped'


def test_the_slowest_of_several_runs(report, tmp_path):
    for name, seconds in (('first', (1, 30)), ('second', (20, 2))):
        cases = ''.join(
            f'<testcase classname="{name}" name="test_{each}" time="{each}.5"/>'
            for each in seconds
        )
        (tmp_path / name).write_text(f'<testsuites><testsuite>{cases}</testsuite></testsuites>')
    found = report.slowest([tmp_path / 'first', tmp_path / 'absent', tmp_path / 'second'], 3)
    assert [(test.name, test.seconds) for test in found] == [
        ('first::test_30', 30.5),
        ('second::test_20', 20.5),
        ('second::test_2', 2.5),
    ]
