# SPDX-License-Identifier: Apache-2.0
"""The lists of versions agree with each other, and a wheel is what it should be."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[3]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = DECLARED["project"]
EXTRAS = PROJECT["optional-dependencies"]
PACKAGES = ("nova_qcache", "nova_qcache_tempest_plugin")

pytestmark = pytest.mark.timeout(1200)  # building a wheel may take minutes


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


def test_a_wheel_is_built_with_what_the_tests_build_one_with():
    needed = versions(DECLARED["build-system"]["requires"], ">=")
    assert needed.items() <= versions(EXTRAS["test"], ">=").items()


def test_what_goes_with_nova_has_no_bounds():
    """Nova decides: two versions of it are tested, each with what goes with it."""
    assert [name for name in EXTRAS["nova-test"] if not re.fullmatch("[a-z-]+", name)] == []


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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this tree, built from a copy: building leaves files beside the sources."""
    tree = tmp_path_factory.mktemp("tree")
    junk = shutil.ignore_patterns("__pycache__")
    for name in ("etc", "nova", *PACKAGES):
        shutil.copytree(ROOT / name, tree / name, ignore=junk)
    for name in ("pyproject.toml", "setup.cfg", "setup.py", "README.rst", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    subprocess.run(
        [sys.executable, "-c", "import pbr.build; pbr.build.build_wheel('out')"],
        cwd=tree,
        env={"PATH": os.environ["PATH"], "PBR_VERSION": "1.2.3"},
        check=True,
        capture_output=True,
    )
    (path,) = (tree / "out").iterdir()
    return path


@pytest.fixture(scope="module")
def in_wheel(wheel):
    """The files that a wheel installs into site-packages, but for its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    return {name for name in names if ".dist-info/" not in name and ".data/" not in name}


def test_a_wheel_has_the_version_that_it_is_given(wheel):
    assert wheel.name == "nova_qcache-1.2.3-py3-none-any.whl"


def test_a_wheel_adds_one_file_to_nova(in_wheel):
    """A second nova/__init__.py or nova/virt/__init__.py would take the place of Nova's own."""
    assert {name for name in in_wheel if name.partition("/")[0] not in PACKAGES} == {
        "nova/virt/qcache/__init__.py"
    }


def test_a_wheel_has_all_of_the_packages(in_wheel):
    packages = [ROOT / name for name in PACKAGES]
    files = {str(path.relative_to(ROOT)) for each in packages for path in each.rglob("*.py")}
    assert {name for name in in_wheel if name.partition("/")[0] in PACKAGES} == {
        *files,
        "nova_qcache/py.typed",
    }


def test_a_wheel_has_all_examples(wheel):
    """All of etc, but for what this tree is generated with."""
    with zipfile.ZipFile(wheel) as archive:
        examples = {
            name.partition(".data/data/")[2]: archive.read(name)
            for name in archive.namelist()
            if ".data/data/" in name
        }
    folder = ROOT / "etc"
    shipped = [path for path in folder.rglob("*") if path.is_file()]
    shipped.remove(folder / "nova-qcache" / "config-generator.conf")
    assert examples == {
        # Below systemd they are for any of its folders.
        f"share/nova-qcache/{path.relative_to(folder)}".replace("/system/", "/"): path.read_bytes()
        for path in shipped
    }
