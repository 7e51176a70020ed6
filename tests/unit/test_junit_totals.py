# SPDX-License-Identifier: Apache-2.0
"""tools/junit_totals.py, whose last line says how a whole run of tools/test.sh went."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "tools" / "junit_totals.py"

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


@pytest.fixture(scope="module")
def totals():
    spec = importlib.util.spec_from_file_location("junit_totals", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def run_pytest(folder, source, *options):
    """Return what ``tools/test.sh`` would hand over for a run of these tests."""
    (folder / "test_planted.py").write_text(source)
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null"]
    ended = subprocess.run(
        [*command, f"--junitxml={report}", *options, "test_planted.py"],
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return f"planted:{ended.returncode}:{report}"


def test_each_outcome_is_counted(totals, tmp_path, capsys):
    assert totals.main([run_pytest(tmp_path, ONE_OF_EACH)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "planted: 1 passed, 1 failed, 1 skipped",
        "1 passed, 1 failed, 1 skipped",
    ]


def test_runs_are_added_up(totals, tmp_path, capsys):
    run = run_pytest(tmp_path, "def test_a(): pass\ndef test_b(): pass\n")
    assert totals.main([run, run]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 passed, 0 failed, 0 skipped"


def test_a_test_that_breaks_twice_is_one_failure(totals, tmp_path, capsys):
    assert totals.main([run_pytest(tmp_path, BAD_TWICE)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 2 failed, 0 skipped"


@pytest.mark.parametrize(
    "source", ["", "import pytest\ndef test_nothing(): pytest.skip('no qemu')\n"]
)
def test_a_run_that_executes_no_test_is_a_failure(totals, tmp_path, capsys, source):
    assert totals.main([run_pytest(tmp_path, source)]) == 1
    assert "it executed no test" in capsys.readouterr().out


def test_a_module_that_cannot_be_imported_is_a_failure(totals, tmp_path, capsys):
    assert totals.main([run_pytest(tmp_path, "import no_such_module\n")]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 1 failed, 0 skipped"


def test_a_run_that_died_is_a_failure(totals, tmp_path, capsys):
    assert totals.main([run_pytest(tmp_path, "import os\ndef test_dies(): os._exit(0)\n")]) == 1
    assert "it left no complete report" in capsys.readouterr().out


def test_an_exit_code_without_a_failed_test_is_a_failure(totals, tmp_path, capsys):
    name, _, report = run_pytest(tmp_path, "def test_a(): pass\n").split(":", 2)
    assert totals.main([f"{name}:3:{report}"]) == 1
    assert "exit code 3" in capsys.readouterr().out


def test_no_run_is_no_failure(totals, capsys):
    assert totals.main([]) == 0
    assert capsys.readouterr().out == "0 passed, 0 failed, 0 skipped\n"
