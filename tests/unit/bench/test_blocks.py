# SPDX-License-Identifier: Apache-2.0
"""Block nodes of the benchmarks."""

from bench.compare import blocks

BASE = blocks.raw({'driver': 'nbd', 'export': 'image'})


def test_nodes_by_themselves_come_in_order_and_stand_on_the_base():
    """qemu takes options of a node inside another one only where its header says nothing else."""
    cache = blocks.chain({'driver': 'file', 'filename': '/cache'})
    overlay = {'driver': 'qcow2', 'file': {'driver': 'file', 'filename': '/o'}, 'backing': cache}
    nodes = blocks.separate(overlay, BASE)
    names = [node['node-name'] for node in nodes]
    assert len(set(names)) == len(names) == 6
    for at, node in enumerate(nodes):
        for role in ('file', 'backing'):
            assert node.get(role, names[0]) in names[: max(at, 1)], 'a node before its users'
    assert nodes[-1]['driver'] == 'qcow2'
    by_name = {node['node-name']: node for node in nodes}
    top = by_name[names[-1]]
    assert by_name[top['file']]['filename'] == '/o'
    writable = {node['node-name'] for node in nodes if not node.get('read-only')}
    assert writable == {top['node-name'], top['file']}, 'all below is only read'
    sealed = by_name[top['backing']]
    assert by_name[sealed['file']]['filename'] == '/cache'
    assert by_name[by_name[sealed['backing']]['file']]['export'] == 'image'


def test_a_base_in_place_is_left_alone():
    nodes = blocks.separate({'driver': 'copy-on-read', 'file': BASE}, {'driver': 'null-co'})
    assert [node['driver'] for node in nodes] == ['nbd', 'raw', 'copy-on-read']
