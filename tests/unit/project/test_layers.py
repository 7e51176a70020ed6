# SPDX-License-Identifier: Apache-2.0
"""The rules of the house that the contracts of import-linter in pyproject.toml cannot state.

Each rule is a function that yields what is wrong with one file; the planted sources at the end
prove that each of them can fail.
"""

import ast
from collections.abc import Callable, Iterator
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[3]
PACKAGE = 'nova_qcache'

BANNED_NAMES = {'common', 'utils'}
HEADER = 'SPDX-License-Identifier: Apache-2.0'

BY_NAME = {
    # The program of a command: an error while it is imported gets a message.
    'nova_qcache/cmd/entry.py': {'module'},
    # Installed with Nova, or not at all.
    'nova_qcache/keeper/lifecycle.py': {"'libvirt'"},
    'nova_qcache/system/libvirt_domains.py': {"'libvirt'"},
    # One module knows that nova-compute may have greenthreads.
    'nova_qcache/system/native.py': {"'eventlet'", "'eventlet.tpool'"},
    'nova_qcache/reports/plot.py': {"'matplotlib.dates'"},
    'nova_qcache/virt/compatibility.py': {"f'{_LIBVIRT}.{module}'"},
}
"""Which files import what by its name: import-linter reads only statements."""

Rule = Callable[[str, str], Iterator[str]]
"""Takes the path of a file, from the root, and its text."""


def check_name(path: str, _text: str) -> Iterator[str]:
    for part in pathlib.PurePath(path).with_suffix('').parts:
        if part in BANNED_NAMES:
            yield f'{path}: {part!r} says nothing about what is inside'


def check_header(path: str, text: str) -> Iterator[str]:
    # A script may have its interpreter in the first line.
    if not any(HEADER in line for line in text.splitlines()[:2]):
        yield f'{path}: the first lines do not say {HEADER!r}'


def check_by_name(path: str, text: str) -> Iterator[str]:
    found = set()
    for node in ast.walk(ast.parse(text, path)):
        match node:
            case ast.Call(
                func=ast.Name(id='__import__' | 'import_module')
                | ast.Attribute(attr='import_module'),
                args=[name, *_],
            ):
                found.add(ast.unparse(name))
    if found != BY_NAME.get(path, set()):
        yield f'{path}: {sorted(found)} imported by name; see {__name__}.BY_NAME'


RULES = (check_name, check_header, check_by_name)


def read(folder: str, pattern: str) -> dict[str, str]:
    paths = sorted(path for path in (ROOT / folder).rglob(pattern) if path.is_file())
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


REAL = read(PACKAGE, '*.py')


def test_there_is_something_to_check():
    assert f'{PACKAGE}/__init__.py' in REAL
    assert set(BY_NAME) <= set(REAL)


@pytest.mark.parametrize('path', REAL)
def test_module_keeps_the_rules(path):
    found = [text for rule in RULES for text in rule(path, REAL[path])]
    assert not found, '\n'.join(found)


@pytest.mark.parametrize('folder', ['tests', 'tools', 'bench', '.ci', 'releasenotes', 'doc'])
def test_other_files_have_the_header(folder):
    texts: dict[str, str] = {}
    for pattern in ('*.py', '*.sh', '*.yaml', 'run'):
        texts |= read(folder, pattern)
    found = [text for item in texts.items() for text in check_header(*item)]
    assert not found, '\n'.join(found)


# From here on: each rule goes red.

KEY = 'nova_qcache/model/key.py'
NATIVE = 'nova_qcache/system/native.py'

PLANTED: dict[str, tuple[Rule, str, str, str]] = {
    'module utils': (check_name, 'nova_qcache/cmd/utils.py', '', "'utils' says nothing"),
    'package common': (check_name, 'nova_qcache/common/x.py', '', "'common' says nothing"),
    'nothing in it': (check_header, KEY, '', HEADER),
    'no header': (check_header, KEY, 'import os\n', HEADER),
    'header in line 3': (check_header, KEY, f'\n\n# {HEADER}\n', HEADER),
    'import by name': (
        check_by_name,
        KEY,
        "def f():\n    importlib.import_module('nova_qcache.cache.catalog')",
        "nova_qcache.cache.catalog'\"] imported by name",
    ),
    'import_module': (check_by_name, KEY, "import_module('nova')", 'imported by name'),
    '__import__': (check_by_name, KEY, "__import__('asyncio')", 'imported by name'),
    'something else': (
        check_by_name,
        NATIVE,
        "importlib.import_module('eventlet')\nimportlib.import_module('asyncio')",
        'asyncio',
    ),
    'not any more': (check_by_name, NATIVE, '', '[] imported by name'),
}


@pytest.mark.parametrize(('rule', 'path', 'text', 'complaint'), PLANTED.values(), ids=PLANTED)
def test_planted_fault_is_found(rule, path, text, complaint):
    (found,) = rule(path, text)
    assert complaint in found
