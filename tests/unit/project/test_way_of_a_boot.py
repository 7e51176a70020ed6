# SPDX-License-Identifier: Apache-2.0
"""The page with the way of one boot names files and functions that exist."""

import ast
from collections.abc import Iterator
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[3]
PAGE = ROOT / 'doc/source/contributor/boot.rst'

MOST_STEPS = 12
STEP = re.compile(r'^\d+\. +(.*)$', re.MULTILINE)
PLACE = re.compile(r'``(nova_qcache/[\w/]+\.py)``: ``([\w.]+)\(\)``')
FILE = re.compile(r'``(nova_qcache/[\w/]+\.py)``')


def functions(tree: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Find the functions of a module or class, as ``name`` or ``Class.name``."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from (f'{node.name}.{name}' for name in functions(node))


def wrong(page: str) -> list[str]:
    """Return what is not as the code is."""
    found = [f'{name} is no file' for name in FILE.findall(page) if not (ROOT / name).is_file()]
    steps = STEP.findall(page)
    if not 0 < len(steps) <= MOST_STEPS:
        found.append(f'{len(steps)} steps')
    for step in steps:
        place = PLACE.match(step)
        if place is None:
            found.append(f'{step!r} does not begin with a file and a function')
        elif (ROOT / place[1]).is_file():
            source = (ROOT / place[1]).read_text()
            if place[2] not in functions(ast.parse(source)):
                found.append(f'{place[1]} has no {place[2]}()')
    return found


def test_it_is_the_way():
    assert wrong(PAGE.read_text()) == []


def test_what_is_gone_is_noticed():
    page = PAGE.read_text()
    assert wrong(page.replace('Boots.plan()', 'Boots.decide()')) == [
        'nova_qcache/engine/boots.py has no Boots.decide()'
    ]
    assert wrong(page.replace('engine/lookup', 'engine/judge')) == [
        'nova_qcache/engine/judge.py is no file'
    ]


def test_a_step_without_a_place_is_noticed():
    assert wrong('1. Nova asks.\n') == ["'Nova asks.' does not begin with a file and a function"]


def test_the_steps_are_counted():
    step = '``nova_qcache/engine/boots.py``: ``Boots.plan()`` decides.\n'
    assert wrong('') == ['0 steps']
    assert wrong(''.join(f'{number}. {step}' for number in range(1, 13))) == []
    assert wrong(''.join(f'{number}. {step}' for number in range(1, 14))) == ['13 steps']
