# SPDX-License-Identifier: Apache-2.0
"""How the tests of pytest runs went, from their JUnit XML files.

Whatever may hide a failure counts as one: a file that is missing or cut short, an exit code that
no failed test explains, a run that executed no test.
"""

from collections.abc import Iterable
import dataclasses
import pathlib
from xml.etree import ElementTree

__all__ = ['Test', 'Totals', 'judge', 'slowest', 'tests']

_RANK = ('passed', 'skipped', 'failed')


@dataclasses.dataclass
class Test:
    name: str
    outcome: str
    """``passed``, ``skipped`` or ``failed``"""
    seconds: float
    """With what its fixtures took."""


@dataclasses.dataclass
class Totals:
    """How many tests ended in each way."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: 'Totals') -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self) -> str:
        return f'{self.passed} passed, {self.failed} failed, {self.skipped} skipped'


def _outcome(case: ElementTree.Element) -> str:
    if case.find('failure') is not None or case.find('error') is not None:
        return 'failed'
    return 'passed' if case.find('skipped') is None else 'skipped'


def tests(path: pathlib.Path) -> list[Test]:
    """Return the tests of one file.

    :raises OSError, ElementTree.ParseError: if the run has left no complete file
    """
    found: dict[str, Test] = {}
    for case in ElementTree.parse(path).iter('testcase'):
        # A test that fails and whose teardown fails too is two elements, but one test.
        name = f'{case.get("classname", "")}::{case.get("name", "")}'
        test = found.setdefault(name, Test(name, 'passed', 0))
        test.outcome = max(test.outcome, _outcome(case), key=_RANK.index)
        test.seconds = max(test.seconds, float(case.get('time', 0)))
    return list(found.values())


def judge(exit_code: int, path: pathlib.Path) -> tuple[Totals, str]:
    """Return the totals of one run, and what is wrong beside failed tests ('' if nothing)."""
    complaint = ''
    try:
        outcomes = [test.outcome for test in tests(path)]
    except (OSError, ElementTree.ParseError):
        outcomes, complaint = [], 'it left no complete report'
    totals = Totals(*(outcomes.count(each) for each in ('passed', 'failed', 'skipped')))
    if not complaint and not totals.passed and not totals.failed:
        complaint = 'it executed no test'
    elif not complaint and exit_code and not totals.failed:
        complaint = f'pytest ended with exit code {exit_code}'
    if complaint:
        totals.failed += 1
    return totals, complaint


def slowest(paths: Iterable[pathlib.Path], number: int = 10) -> list[Test]:
    """Return the tests that took longest, the slowest first; what has no report has none."""
    found: list[Test] = []
    for path in paths:
        try:
            found += tests(path)
        except (OSError, ElementTree.ParseError):
            continue
    return sorted(found, key=lambda test: -test.seconds)[:number]
