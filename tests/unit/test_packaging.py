# SPDX-License-Identifier: Apache-2.0
"""The lists of versions agree with each other."""

import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def versions(requirements: list[str], operator: str) -> dict[str, str]:
    """Split ``name[extra]<operator>version``; anything else among the requirements is an error."""
    found = {}
    for requirement in requirements:
        match = re.fullmatch(
            rf"([A-Za-z0-9._-]+)(?:\[[a-z,-]+\])?{operator}([0-9][0-9.]*)", requirement
        )
        assert match, f"{requirement!r} is not of the form name{operator}version"
        assert match[1] not in found, f"{match[1]} is named twice"
        found[match[1]] = match[2]
    return found


def lines(name: str) -> list[str]:
    text = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [line for line in text if line]


def test_lower_constraints_are_the_declared_lower_bounds():
    declared = versions(PROJECT["dependencies"] + EXTRAS["test"], ">=")
    assert versions(lines("lower-constraints.txt"), "==") == declared


def test_pre_commit_runs_the_versions_of_the_extra_lint():
    pinned = versions(EXTRAS["lint"], "==")
    hooks = re.findall(
        r'additional_dependencies: \["(.*)"\]', (ROOT / ".pre-commit-config.yaml").read_text()
    )
    used = versions(sorted(set(hooks)), "==")
    assert used
    assert used == {name: pinned.get(name) for name in used}


@pytest.mark.parametrize("requirement", ["pytest", "pytest>=8,<9", "pytest==8"])
def test_a_bound_of_another_form_is_an_error(requirement):
    with pytest.raises(AssertionError, match="not of the form"):
        versions([requirement], ">=")


def test_a_name_twice_is_an_error():
    with pytest.raises(AssertionError, match="twice"):
        versions(["pytest>=8", "pytest>=9"], ">=")
