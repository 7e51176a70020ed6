# SPDX-License-Identifier: Apache-2.0
"""Every command of the README and the manual is run by a test, or it is said why not."""

import ast
import collections
import importlib
import importlib.metadata
import pathlib
import re

import pytest

from tests import documented_commands
from tests import documents

ROOT = documents.ROOT
TABLES = (
    documented_commands.RUN,
    documented_commands.PARTS,
    documented_commands.NOT_RUN,
)
NODES = sorted(set(documented_commands.RUN.values()))

PAGE = """
Do this::

   plain text

* In a list:

  .. code-block:: console

     # first --option \\
         more \\
         and more
     what it says
     $ second

  After it, $ not a command.

.. code-block:: ini

   # a comment
"""


# -- what pages have


def test_commands_of_a_page():
    assert list(documents.commands_in(PAGE, 'page.rst')) == [
        documents.Command('page.rst', True, 'first --option more and more'),
        documents.Command('page.rst', False, 'second'),
    ]


def test_all_blocks_of_a_page():
    found = [(block.language, block.lines[0]) for block in documents.blocks(PAGE)]
    assert found == [
        ('', 'plain text'),
        ('console', '# first --option \\'),
        ('ini', '# a comment'),
    ]


def test_a_command_without_an_end():
    page = '.. code-block:: console\n\n   $ first \\\n\nText.\n'
    with pytest.raises(ValueError, match=r"page\.rst: '\$ first' goes on"):
        list(documents.commands_in(page, 'page.rst'))


@pytest.mark.parametrize(
    ('block', 'line'),
    [
        ('Do::', 'pip install .'),
        ('* Do::', 'PBR_VERSION=1 pip install .'),
        ('.. code-block:: bash', 'openstack server list'),
        ('.. code-block:: text', '$ nova-qcache list'),
        ('.. code-block::', '# tools/test.sh'),
        ('.. code-block:: console', 'bench/run.sh --smoke'),
    ],
)
def test_a_command_at_another_place(block: str, line: str):
    assert documents.stray(f'{block}\n\n    {line}\n') == [line]


@pytest.mark.parametrize(
    'line',
    [
        'nova-qcache-status [--json] upgrade check',
        'nova-qcache cannot record on this host: REASON',
    ],
)
def test_what_is_no_command(line: str):
    assert documents.stray(f'Said::\n\n    {line}\n') == []


@pytest.mark.parametrize('page', documents.pages())
def test_all_commands_are_where_they_are_found(page: str):
    assert documents.stray(documents.read(page)) == []


# -- who runs them


def test_every_command_has_its_test_or_its_reason():
    texts = {command.text for command in documents.commands()}
    listed = {text for table in TABLES for text in table}
    assert texts - listed == set(), 'these commands are in no table'
    assert listed - texts == set(), 'no page has these any more'


def test_no_command_is_in_two_tables():
    count = collections.Counter(text for table in TABLES for text in table)
    assert {text for text, times in count.items() if times > 1} == set()


@pytest.mark.parametrize('node', NODES)
def test_the_named_test_exists(node: str):
    path, _, name = node.partition('::')
    module = ast.parse((ROOT / path).read_text())
    assert name in {each.name for each in module.body if isinstance(each, ast.FunctionDef)}


@pytest.mark.parametrize(
    'node', [each for each in NODES if each not in documented_commands.OWN_WORDS]
)
def test_a_test_takes_its_commands_from_the_pages(node: str):
    """With its own name, or it would run those of another."""
    path, _, name = node.partition('::')
    module = ast.parse((ROOT / path).read_text())
    (test,) = (
        each for each in module.body if isinstance(each, ast.FunctionDef) and each.name == name
    )
    asked = [
        ast.unparse(call.args[0])
        for call in ast.walk(test)
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith('run_by')
    ]
    assert asked == [f"f'{{TESTS}}::{name}'"]
    (tests,) = (
        each.value
        for each in module.body
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == 'TESTS'
    )
    assert ast.literal_eval(tests) == path


@pytest.mark.parametrize('text', sorted(documented_commands.PARTS))
def test_a_part_of_the_test_command(text: str, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    parts = importlib.import_module('run_tests.parts')
    everything = parts.Choice(
        root=ROOT,
        work=tmp_path,
        stack=tmp_path,
        up=frozenset(),
        reports=tmp_path,
        kinds=frozenset(parts.KINDS),
        novas=(),
        core=False,
        workers=1,
        seed=None,
    )
    commands = [
        ' '.join(part.command).replace(f' --state {tmp_path}', '')
        for lane in parts.chosen(everything)
        for part in lane
    ]
    assert text in commands


def test_every_reason_is_one():
    assert [text for text, reason in documented_commands.NOT_RUN.items() if len(reason) < 20] == []


# -- what is named within a sentence


def _literals(start: str) -> list[tuple[str, str]]:
    pattern = re.compile(rf'``{start}\s+([^`]+)``')
    return [
        (page, ' '.join(found.split()))
        for page in documents.pages()
        for found in pattern.findall(documents.read(page))
    ]


def test_environments_of_tox_exist():
    there = re.findall(r'^\[testenv:(.*)\]$', (ROOT / 'tox.ini').read_text(), re.MULTILINE)
    named = {(page, said) for page, said in _literals('tox')}
    assert named
    unknown = {(page, said) for page, said in named if said.removeprefix('-e ') not in there}
    assert unknown == set()


def test_subcommands_and_their_options_exist():
    points = importlib.metadata.entry_points(group='nova_qcache.cli')
    wrong = []
    for page, said in _literals('nova-qcache'):
        verb, *words = said.split()
        if verb in ('help', 'is', 'cannot', 'does'):  # of cliff, and messages
            continue
        if verb not in points.names:
            wrong.append((page, said))
            continue
        known = points[verb].load()(None, None).get_parser(verb).format_help()
        options = re.findall(r'--[a-z-]+', ' '.join(words))
        wrong += [(page, said) for option in options if f'{option} ' not in f'{known} ']
    assert wrong == []


def test_scripts_exist():
    named = {
        (page, path)
        for page in documents.pages()
        for path in re.findall(r'``((?:tools|bench)/[\w/]+\.\w+)\b', documents.read(page))
    }
    assert named
    assert {each for each in named if not pathlib.Path(ROOT, each[1]).is_file()} == set()


def test_whoever_makes_the_folder_of_caches_sees_to_that_of_sockets():
    """/run is empty after a boot of the host, and only systemd makes run_path again."""
    found = []
    for page in documents.pages():
        steps = [command.text for command in documents.commands(page)]
        if any('install -d' in step and '/var/lib/nova/qcache' in step for step in steps):
            found.append(page)
            for start in ('install -m 0644 etc/tmpfiles.d/', 'systemd-tmpfiles --create '):
                assert any(step.startswith(start) for step in steps), page
    assert len(found) > 1, 'README and the manual'
