# SPDX-License-Identifier: Apache-2.0
"""The block graph of a recorder, built here as a daemon would build it."""

import errno
import pathlib

import pytest

from nova_qcache.model.source import Node
from nova_qcache.qemu import block_graph
from tests.unit.builders import MemorySource

PATH = pathlib.Path('/cache/file.recording')
SEALED = pathlib.Path('/cache/file.qcow2')


class Graph:
    """Nodes by name; refuses what qemu refuses."""

    def __init__(self, nodes):
        self.nodes: dict[str, Node] = {}
        for node in nodes:
            self._add(node)

    def _add(self, node):
        name = node['node-name']
        assert name not in self.nodes, f'{name} is there already'
        assert children(node) <= set(self.nodes), f'{name} has a child that does not exist'
        self.nodes[name] = node

    def execute(self, command, arguments):
        if command == 'blockdev-del':
            name = arguments['node-name']
            users = [other for other, node in self.nodes.items() if name in children(node)]
            assert not users, f'{name} is in use by {users}'
            del self.nodes[name]
        elif command == 'blockdev-add':
            self._add(arguments)
        else:
            assert command == 'blockdev-reopen'
            for node in arguments['options']:
                old = self.nodes[node['node-name']]
                assert old['driver'] == node['driver']
                assert children(node) <= set(self.nodes)
                self.nodes[node['node-name']] = node

    def execute_all(self, commands):
        """As the daemon does: what is there already is not added, and what has gone not
        deleted."""
        for command, arguments in commands:
            is_there = arguments.get('node-name') in self.nodes
            if (command, is_there) not in (('blockdev-add', True), ('blockdev-del', False)):
                self.execute(command, arguments)
            assert 'base' in self.below(block_graph.TOP), 'a guest is never without its disk'

    def below(self, name):
        """All nodes that a node reads through, itself included."""
        inner = (self.below(child) for child in children(self.nodes[name]))
        return {name}.union(*inner)

    def writers(self):
        return {name for name, node in self.nodes.items() if not node.get('read-only')}


def children(node):
    found = set(node.get('children', []))
    return found | {node[role] for role in ('file', 'backing', 'image') if node.get(role)}


@pytest.fixture(params=['raw', 'qcow2'])
def source(request):
    return MemorySource(request.param)


@pytest.fixture
def recording(source):
    return Graph(block_graph.recording(source, PATH))


def test_only_the_cache_can_be_written_to(recording):
    assert recording.writers() == {
        'cache',
        block_graph.CACHE_FILE_NODE,
        block_graph.RECORDING_NODE,
    }
    assert recording.nodes[block_graph.CACHE_FILE_NODE]['filename'] == str(PATH)


def test_guests_read_through_the_whole_graph(recording):
    assert recording.below(block_graph.TOP) == set(recording.nodes)


def test_the_two_ways_to_the_base_share_no_node(recording):
    first, second = recording.nodes['either']['children']
    assert block_graph.RECORDING_NODE in recording.below(first), 'the cache is asked first'
    assert not recording.below(first) & recording.below(second)


def require_no_questions(graph, below):
    """The first child cannot say, and so no other one is asked; its reads go through."""
    served = graph.nodes[graph.nodes[block_graph.TOP]['file']]
    assert served['driver'] == 'quorum'
    first = graph.nodes[served['children'][0]]
    assert first['driver'] == 'blkdebug'
    assert first['inject-error'] == [
        {'event': 'none', 'iotype': 'block-status', 'errno': errno.EIO}
    ]
    assert first['image'] == below


def test_nobody_below_is_asked_for_zeros(recording, source):
    require_no_questions(recording, block_graph.RECORDING_NODE)
    require_no_questions(Graph(block_graph.plain(source)), 'base')
    require_no_questions(Graph(block_graph.playing(source, PATH)), 'cache')
    replace(recording)
    require_no_questions(recording, 'old')


def test_only_a_recording_is_not_flushed(recording, source):
    assert recording.nodes[block_graph.CACHE_FILE_NODE]['cache'] == {'no-flush': True}
    playing = Graph(block_graph.playing(source, PATH))
    assert 'cache' not in playing.nodes[block_graph.CACHE_FILE_NODE]


def test_one_answer_is_enough(recording):
    either = recording.nodes['either']
    assert (either['read-pattern'], either['vote-threshold']) == ('fifo', 1)


def test_formats_are_never_probed(recording, source):
    assert recording.nodes['base']['driver'] == source.base_format
    assert recording.nodes['base2']['driver'] == source.base_format
    assert all('driver' in node for node in recording.nodes.values())
    if source.base_format == 'qcow2':
        assert recording.nodes['base']['backing'] is None


def test_a_sealed_recording_is_playback(recording, source):
    recording.execute_all(block_graph.sealing(PATH))
    assert recording.writers() == set()
    assert recording.nodes == Graph(block_graph.playing(source, PATH)).nodes


def test_nothing_is_written_to_while_guests_read_it_as_sealed(recording, source):
    """The file may be opened read-only only after the node that copies into it has gone."""
    commands = block_graph.sealing(PATH)
    gone = commands.index(('blockdev-del', {'node-name': block_graph.RECORDING_NODE}))
    read_only = next(
        at
        for at, (command, arguments) in enumerate(commands)
        if command == 'blockdev-reopen'
        and any(node['node-name'] == 'cache' for node in arguments['options'])
    )
    assert gone < read_only


def replace(graph):
    graph.execute_all(block_graph.replacing(SEALED))


def test_a_recording_that_another_cache_replaces(recording):
    replace(recording)
    assert recording.writers() == set()
    assert recording.below(block_graph.TOP) == set(recording.nodes), 'nothing else is left'
    names = {node.get('filename') for node in recording.nodes.values()}
    assert names == {None, str(SEALED)}
    assert recording.nodes['old']['backing'] == 'base'
    replace(recording)


@pytest.mark.parametrize('done', range(len(block_graph.sealing(PATH)) + 1))
def test_a_seal_that_was_interrupted_can_be_replaced(recording, done):
    recording.execute_all(block_graph.sealing(PATH)[:done])
    replace(recording)
    assert recording.below(block_graph.TOP) == set(recording.nodes)


def test_playing(source):
    graph = Graph(block_graph.playing(source, PATH))
    assert graph.writers() == set()
    assert graph.below(block_graph.TOP) == set(graph.nodes)
    assert graph.nodes['cache']['backing'] == 'base'


def test_plain(source):
    graph = Graph(block_graph.plain(source))
    assert graph.writers() == set()
    assert graph.below(block_graph.TOP) == set(graph.nodes)
    assert block_graph.CACHE_FILE_NODE not in graph.nodes


def test_every_driver_in_use_is_asked_for(source):
    used = {node['driver'] for node in block_graph.recording(source, PATH)}
    assert used - {*source.drivers} <= set(block_graph.DRIVERS)


# -- what cannot be read


def test_tables_are_written_while_it_records_and_change_nothing(recording):
    before = dict(recording.nodes)
    (command,) = block_graph.writing_tables(recording.nodes)
    recording.execute(*command)
    assert command[0] == 'blockdev-reopen', 'qemu flushes what it reopens'
    assert recording.nodes == before
    recording.execute_all(block_graph.sealing(PATH))
    assert block_graph.writing_tables(recording.nodes) == [], 'nobody writes to it again'


@pytest.fixture(params=['recording', 'sealed', 'given up', 'playing', 'plain'])
def served(request, recording, source):
    """Each graph that guests read, and what they read of it."""
    match request.param:
        case 'recording':
            return recording, 'either'
        case 'sealed':
            recording.execute_all(block_graph.sealing(PATH))
            return recording, 'either2'
        case 'given up':
            replace(recording)
            return recording, 'old-either'
        case 'playing':
            return Graph(block_graph.playing(source, PATH)), 'either2'
    return Graph(block_graph.plain(source)), 'either'


def refuse(graph, sectors):
    for command in block_graph.refusing(graph.nodes, sectors):
        graph.execute(*command)
    assert graph.below(block_graph.TOP) == set(graph.nodes)
    refusing = graph.nodes[graph.nodes[block_graph.TOP]['file']]
    return refusing['image'], [error.get('sector') for error in refusing['inject-error']]


def test_sectors_that_are_refused(served):
    graph, child = served
    before = dict(graph.nodes)
    assert refuse(graph, [7, 3]) == (child, [3, 7])
    assert refuse(graph, [3]) == (child, [3])
    assert refuse(graph, {4, 3}) == (child, [3, 4])
    assert block_graph.refusing(graph.nodes, []) != []
    for command in block_graph.refusing(graph.nodes, []):
        graph.execute(*command)
    assert graph.nodes == before
    assert block_graph.refusing(graph.nodes, []) == [], 'guests wait for each reopening'


@pytest.mark.parametrize('sectors', [[], [3, 4]])
def test_what_should_have_gone_is_in_nobodys_way(served, sectors):
    """Both nodes are there where the daemon did not delete one when it was replaced."""
    graph, child = served
    before = dict(graph.nodes)
    refuse(graph, [3])
    for command in block_graph.refusing(graph.nodes, [3, 7])[:2]:
        graph.execute(*command)
    assert {'refusing', 'refusing2'} <= set(graph.nodes)
    if sectors:
        assert refuse(graph, sectors) == (child, sectors)
    else:
        for command in block_graph.refusing(graph.nodes, sectors):
            graph.execute(*command)
        assert graph.nodes == before


def test_only_questions_about_them_are_refused(recording):
    refuse(recording, [3])
    (error,) = recording.nodes['refusing']['inject-error']
    assert (error['iotype'], error['errno']) == ('block-status', errno.EIO)


@pytest.mark.parametrize('end', [block_graph.sealing, block_graph.replacing])
def test_none_is_refused_after_a_seal(recording, end):
    """Until the recorder says so again."""
    refuse(recording, [3])
    refuse(recording, [3, 4])
    recording.execute_all(end(SEALED))
    assert not {'refusing', 'refusing2'} & set(recording.nodes)


def test_a_daemon_of_before_an_upgrade_refuses_nothing():
    assert block_graph.refusing({'top', 'cache', 'base'}, [3]) == []
