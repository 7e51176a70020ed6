# SPDX-License-Identifier: Apache-2.0
"""What a daemon is told to refuse, where its monitor only notes what it is told."""

import asyncio
import os
from unittest import mock

from nova_qcache.qemu.qmp import Monitor
from nova_qcache.qemu.storage_daemon import StorageDaemon
from nova_qcache.recorder import daemon as daemons
from tests.unit.builders import KEY


def refuse(paths, names, *wanted):
    """Let a daemon that was taken over refuse these sectors, one set after the other; return what
    it was told."""
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
        with mock.patch.object(daemons, 'Monitor', autospec=True) as made:
            made.return_value = mock.create_autospec(Monitor, instance=True)
            made.return_value.execute.side_effect = execute
            daemon = daemons.ServingDaemon(paths, KEY, process)
            for sectors in wanted:
                await daemon.refuse(sectors)
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
        os.close(theirs)

    asyncio.run(live())
    return told


def test_what_a_former_recorder_refused_is_not_refused_for_good(paths):
    names = {'top', 'either', 'refusing'}
    assert refuse(paths, names, []) == ['blockdev-reopen', 'blockdev-del']
    assert names == {'top', 'either'}


def test_what_is_refused_already_makes_no_guest_wait(paths):
    told = refuse(paths, {'top', 'either'}, [], [3], [3])
    assert told == ['blockdev-add', 'blockdev-reopen']
