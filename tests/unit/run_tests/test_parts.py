# SPDX-License-Identifier: Apache-2.0
"""What tools/test.sh runs for each of its options."""

import dataclasses
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def choice(parts, tmp_path):
    return parts.Choice(
        root=ROOT,
        work=tmp_path / 'work',
        stack=tmp_path / 'stack',
        up=frozenset(),
        reports=tmp_path / 'reports',
        kinds=frozenset(parts.KINDS),
        novas=('31', '34'),
        core=False,
        workers=3,
        seed=None,
        arguments=('-k', 'word'),
    )


@pytest.fixture
def names(parts, choice):
    def names_of(**changes):
        lanes = parts.chosen(dataclasses.replace(choice, **changes))
        return [[part.name for part in lane] for lane in lanes]

    return names_of


def _parts(lanes):
    return {part.name: part for lane in lanes for part in lane}


FIRST_STACK = ['OpenStack up', 'tests on OpenStack', 'OpenStack down']
SECOND_STACK = ['second OpenStack up', 'tests on second OpenStack', 'second OpenStack down']


BENCHMARKS, DEMONSTRATION = 'benchmarks, a short run', 'demonstration'


def test_the_two_lanes_of_everything(names):
    first, second = names()
    assert first == [*FIRST_STACK, 'unit tests, lowest versions', BENCHMARKS]
    assert second[0] == 'ruff check'
    assert second[-9:] == [
        'unit tests',
        'unit tests, Nova 31',
        'unit tests, Nova 34',
        'functional tests',
        '15 faults',  # on Debian 13 only
        *SECOND_STACK,
        DEMONSTRATION,
    ]


def test_what_was_not_chosen_is_not_run(names):
    assert names(kinds=frozenset({'bench'})) == [[BENCHMARKS], [DEMONSTRATION]]
    units = ['unit tests', 'unit tests, Nova 34']
    assert names(kinds=frozenset({'unit'}), novas=('34',)) == [units]


def test_each_linter_of_pre_commit_is_run(parts, choice):
    hooks = re.findall(r'entry: (\S+)', (ROOT / '.pre-commit-config.yaml').read_text())
    (lane,) = parts.chosen(dataclasses.replace(choice, kinds=frozenset({'lint'})))
    assert {'ruff', 'lint-imports'} <= set(hooks)
    assert set(hooks) <= {pathlib.Path(part.command[0]).name for part in lane}


def test_stacks_of_somebody_else_stay_up(names, choice):
    second = choice.stack.with_name('stack-2')
    lanes = names(kinds=frozenset({'openstack'}), up=frozenset({choice.stack, second}))
    assert lanes == [FIRST_STACK[:-1], SECOND_STACK[:-1]]


def test_only_the_ends_of_the_stacks_undo_something(parts, choice):
    undoing = [part.name for part in _parts(parts.chosen(choice)).values() if part.undoes]
    assert undoing == ['OpenStack down', 'second OpenStack down']


def test_the_core(parts, choice):
    marked = {
        name
        for name, part in _parts(parts.chosen(dataclasses.replace(choice, core=True))).items()
        if '-m core' in ' '.join(part.command)
    }
    assert marked == {'functional tests', 'tests on OpenStack'}


def test_each_test_on_openstack_runs_on_one_stack(parts, choice):
    found = _parts(parts.chosen(choice))
    marks = {
        name: found[name].command[found[name].command.index('-m', 3) + 1]
        for name in found
        if name.startswith('tests on')
    }
    assert marks == {'tests on OpenStack': 'not options', 'tests on second OpenStack': 'options'}


def test_random_tests(parts, choice):
    """tests/conftest.py reads the seed from the variable."""
    explored = dataclasses.replace(choice, seed=7, kinds=frozenset({'unit', 'functional'}))
    for part in _parts(parts.chosen(explored)).values():
        assert part.environment['QCACHE_SEED'] == '7'
        assert 'hypothesis or random' in part.command


def test_arguments_of_pytest_are_for_all_tests(parts, choice):
    for part in _parts(parts.chosen(choice)).values():
        assert (list(part.command)[-2:] == ['-k', 'word']) == (part.report is not None)


def test_no_two_parts_have_a_log_or_a_report_in_common(parts, choice):
    found = _parts(parts.chosen(choice)).values()
    reports = [part.report for part in found if part.report]
    assert len(set(reports)) == len(reports) == 7


def test_scripts_are_found_by_name_and_by_their_first_line(parts, tmp_path):
    for name, text in {
        'a.sh': '',
        'b': '#!/bin/bash\n',
        'c': '#!/usr/bin/env bash\n',
        'd': '#!/bin/sh -e\n',
        'e': '#!/usr/bin/python3\n',
        'f.py': '#!/bin/bash\n',
        'build/g.sh': '',
        'h_cache/i.sh': '',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert list(parts._scripts(tmp_path)) == ['a.sh', 'b', 'c', 'd']
    assert {'tools/test.sh', '.ci/run', 'devstack/plugin.sh'} <= set(parts._scripts(ROOT))
    assert 'README.rst' in set(parts._pages(ROOT))
