# SPDX-License-Identifier: Apache-2.0
"""What tools/mutation.sh works by names files that exist, and changes that can be made to them."""

import pathlib
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[3]
MODULES = tomllib.loads((ROOT / 'tests/mutation/modules.toml').read_text())['module']
EQUIVALENT = [
    (module['file'], entry) for module in MODULES for entry in module.get('equivalent', [])
]


@pytest.mark.parametrize('module', MODULES, ids=lambda module: module['file'])
def test_a_module_and_its_tests_exist(module):
    assert set(module) - {'equivalent'} == {'name', 'file', 'tests'}
    assert module['tests']
    missing = [name for name in [module['file'], *module['tests']] if not (ROOT / name).is_file()]
    assert missing == []


def test_a_file_is_named_once():
    files = [module['file'] for module in MODULES]
    assert sorted(set(files)) == sorted(files)


@pytest.mark.parametrize(('file', 'entry'), EQUIVALENT)
def test_an_equivalent_mutant_is_of_code_that_exists_and_has_a_reason(file, entry):
    assert set(entry) == {'place', 'was', 'becomes', 'reason'}
    assert entry['reason']
    lines = ' '.join(line.strip() for line in (ROOT / file).read_text().splitlines())
    assert entry['was'] in lines
    assert entry['place'].rpartition('.')[2] in lines
