# SPDX-License-Identifier: Apache-2.0
"""What a daemon is told, where its monitor only notes it."""

import asyncio
import os
from unittest import mock

import pytest

from nova_qcache.qemu.qmp import Monitor
from nova_qcache.qemu.storage_daemon import StorageDaemon
from nova_qcache.recorder import daemon as daemons
from nova_qcache.system import processes
from tests.unit.builders import KEY


def live(paths, names, work):
    """Take over a daemon with nodes of these names, and let ``work`` do something with it; return
    what it was told."""
    told: list[str] = []

    def execute(command, arguments=None):
        if command == 'query-named-block-nodes':
            return [{'node-name': name} for name in names]
        told.append(command)
        if command == 'blockdev-add':
            names.add(arguments['node-name'])
        elif command == 'blockdev-del':
            names.remove(arguments['node-name'])
        return None

    async def live():
        process = mock.create_autospec(StorageDaemon, instance=True)
        ours, theirs = os.pipe()
        process.process = mock.Mock(fd=ours)
        process.pid = 4711
        with mock.patch.object(daemons, 'Monitor', autospec=True) as made:
            made.return_value = mock.create_autospec(Monitor, instance=True)
            made.return_value.execute.side_effect = execute
            await work(daemons.ServingDaemon(paths, KEY, process))
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
        os.close(theirs)

    asyncio.run(live())
    return told


def refuse(paths, names, *wanted):
    """Let a daemon refuse these sectors, one set after the other; return what it was told."""

    async def work(daemon):
        for sectors in wanted:
            await daemon.refuse(sectors)

    return live(paths, names, work)


def test_what_a_former_recorder_refused_is_not_refused_for_good(paths):
    names = {'top', 'either', 'refusing'}
    assert refuse(paths, names, []) == ['blockdev-reopen', 'blockdev-del']
    assert names == {'top', 'either'}


def test_what_is_refused_already_makes_no_guest_wait(paths):
    told = refuse(paths, {'top', 'either'}, [], [3], [3])
    assert told == ['blockdev-add', 'blockdev-reopen']


@pytest.mark.parametrize(
    ('names', 'told'),
    [({'top', 'either', 'cor', 'cache'}, ['blockdev-reopen']), ({'top', 'either2', 'cache'}, [])],
)
def test_tables_are_written_while_it_records(paths, names, told):
    assert live(paths, names, daemons.ServingDaemon.write_tables) == told


def test_no_file_is_looked_for_while_nodes_change(paths):
    """The seal opens the file once more, and closes it."""

    async def work(daemon):
        async with daemon._changing:
            looking = asyncio.ensure_future(daemon.cache_files())
            await asyncio.sleep(0)
            assert not opened.called
        assert await looking == ['file']
        opened.assert_called_once_with(4711, paths.cache_path, ['.recording', '.qcow2'])

    with mock.patch.object(
        processes, 'open_files', autospec=True, return_value=['file']
    ) as opened:
        live(paths, {'top'}, work)
