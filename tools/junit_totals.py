#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Add up what several pytest runs say in their JUnit XML files.

Usage: junit_totals.py [NAME:EXIT_CODE:FILE]...

Prints one line for each run, and last the sum as the plain line "N passed, N failed, N skipped".
Whatever may hide a failure counts as one: a file that is missing or cut short, an exit code that
no failed test explains, a run that executed no test. The exit code is 1 if anything failed.
"""

import dataclasses
import pathlib
import sys
from xml.etree import ElementTree

_RANK = ("passed", "skipped", "failed")


@dataclasses.dataclass
class Totals:
    """How many tests ended in each way."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: "Totals") -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def _outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "passed" if case.find("skipped") is None else "skipped"


def count(path: pathlib.Path) -> Totals:
    """Count the tests of one file.

    :raises OSError, ElementTree.ParseError: if the run has left no complete file
    """
    outcomes: dict[tuple[str, str], str] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        # A test that fails and whose teardown fails too is two elements, but one test.
        name = (case.get("classname", ""), case.get("name", ""))
        outcomes[name] = max(outcomes.get(name, "passed"), _outcome(case), key=_RANK.index)
    results = list(outcomes.values())
    return Totals(results.count("passed"), results.count("failed"), results.count("skipped"))


def judge(exit_code: int, path: pathlib.Path) -> tuple[Totals, str]:
    """Return the totals of one run, and what is wrong beside failed tests ('' if nothing)."""
    try:
        totals = count(path)
    except (OSError, ElementTree.ParseError):
        totals, complaint = Totals(), "it left no complete report"
    else:
        complaint = ""
        if not totals.passed and not totals.failed:
            complaint = "it executed no test"
        elif exit_code and not totals.failed:
            complaint = f"pytest ended with exit code {exit_code}"
    if complaint:
        totals.failed += 1
    return totals, complaint


def main(arguments: list[str]) -> int:
    total = Totals()
    for argument in arguments:
        name, exit_code, path = argument.split(":", 2)
        totals, complaint = judge(int(exit_code), pathlib.Path(path))
        print(f"{name}: {totals}" + (f" ({complaint})" if complaint else ""))
        total.add(totals)
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
