# SPDX-License-Identifier: Apache-2.0
"""The pictures of the architecture show the code as it is, and what it refers to exists.

Pictures are simple Graphviz: one node or edge on a line; the first line of a node's label is its
name and the second its driver; what can be written to has a bold frame.
"""

import ast
from collections.abc import Iterator
import functools
import pathlib
import re

import pytest

from nova_qcache import exception
from nova_qcache.cache import plugins
from nova_qcache.model.source import Node
from nova_qcache.model.states import Phase
from nova_qcache.model.states import require_transition
from nova_qcache.model.states import State
from nova_qcache.qemu import block_graph
from nova_qcache.qemu.block_graph import TOP
from tests.unit.qemu.test_block_graph import children
from tests.unit.qemu.test_block_graph import Graph

ROOT = pathlib.Path(__file__).parents[3]
MANUAL = ROOT / 'doc/source'
PICTURES = MANUAL / 'architecture'

_NODE = re.compile(r'^ *"([^"]+)" \[label="([^"]+)"(.*)\]$', re.M)
_EDGE = re.compile(r'^ *"?([\w-]+)"? -> "?([\w-]+)"?(.*)$', re.M)
_TEST = re.compile(r'tests/[\w/]+\.py::\w+')


def picture(name: str) -> str:
    return (PICTURES / f'{name}.dot').read_text()


def edges(text: str) -> set[tuple[str, str]]:
    """All that are no way from a node to itself."""
    return {(start, end) for start, end, _ in _EDGE.findall(text) if start != end}


def daemon(text: str) -> str:
    """Return the part of a picture that shows the daemon."""
    match = re.search(r'^ *subgraph cluster_daemon \{\n(.*?)^ *\}$', text, re.M | re.S)
    assert match is not None
    return match[1]


def require_shown(text: str, nodes: list[Node]) -> None:
    graph = Graph(nodes)
    shown = {name: (label, style) for name, label, style in _NODE.findall(daemon(text))}
    assert {name: label for name, (label, _) in shown.items()} == {
        name: f'{name}\\n{node["driver"]}' for name, node in graph.nodes.items()
    }
    assert {name for name, (_, style) in shown.items() if 'bold' in style} == graph.writers()
    assert edges(daemon(text)) == {
        (name, child) for name, node in graph.nodes.items() for child in children(node)
    }
    assert f' -> "{TOP}" ' in text, 'nobody connects to it'


@pytest.fixture
def base(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / 'base.raw'
    path.write_bytes(b'content')
    return path


def graphs(base: pathlib.Path) -> dict[str, list[Node]]:
    source = plugins.source(str(base), 'raw')
    cache = base.with_name('cache.qcow2')
    given_up = Graph(block_graph.recording(source, base.with_name('copy')))
    given_up.execute_all(block_graph.replacing(cache))
    recording = block_graph.recording(source, cache)
    return {
        'record': recording,
        'audit': recording,
        'sealed': block_graph.playing(source, cache),
        # The commands add a node before they put it below the one that is there.
        'given-up': sorted(given_up.nodes.values(), key=lambda node: node['node-name'] == TOP),
        'serve': block_graph.plain(source),
    }


def test_each_daemon_is_drawn_as_it_is(base):
    for name, nodes in graphs(base).items():
        require_shown(picture(name), nodes)


@pytest.mark.parametrize(
    ('said', 'instead'),
    [
        ('"mute" -> "cor"', '"mute" -> "cache"'),
        ('either\\nquorum', 'either\\nraw'),
        (' style=bold]', ']'),
        ('"base2-file" [', '"base3-file" ['),
    ],
)
def test_a_picture_that_is_wrong_is_found(base, said, instead):
    text = picture('record')
    assert said in text
    with pytest.raises(AssertionError):
        require_shown(text.replace(said, instead), graphs(base)['record'])


def test_the_states_are_drawn_as_they_are():
    def is_allowed(state: State, wanted: State) -> bool:
        try:
            require_transition('an image', state, wanted)
        except exception.WrongState:
            return False
        return True

    assert edges(picture('states')) == {
        (state.value, wanted.value)
        for state in State
        for wanted in State
        if is_allowed(state, wanted)
    }


def test_the_phases_are_all_there():
    assert {phase for edge in edges(picture('phases')) for phase in edge} == {
        phase.name for phase in Phase
    }


def test_each_picture_is_shown():
    pages = ''.join(page.read_text() for page in PICTURES.glob('*.rst'))
    drawn = {path.name for path in PICTURES.glob('*.dot')}
    assert set(re.findall(r'^\.\. graphviz:: (.+)$', pages, re.M)) == drawn


# -- the tests that pages name


@functools.cache
def functions_in(path: pathlib.Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def missing(text: str) -> Iterator[str]:
    for named in _TEST.findall(text):
        path, _, name = named.partition('::')
        if not (ROOT / path).is_file() or name not in functions_in(ROOT / path):
            yield named


def test_each_test_that_a_page_names_exists():
    pages = {path: path.read_text() for path in MANUAL.rglob('*.rst')}
    assert len(_TEST.findall(pages[PICTURES / 'qemu-review.rst'])) > 50
    for path, text in pages.items():
        assert not list(missing(text)), path


@pytest.mark.parametrize(
    'named',
    ['tests/unit/project/test_pictures.py::test_of_nothing', 'tests/unit/test_none.py::test_it'],
)
def test_a_test_that_does_not_exist_is_found(named):
    assert list(missing(f'Shown by ``{named}``.')) == [named]
