# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the recorder's tests."""

from unittest import mock

import pytest

from nova_qcache.bases import probe
from nova_qcache.qemu.img import QemuImg
from nova_qcache.recorder import finish
from nova_qcache.recorder import opener
from nova_qcache.recorder import sealer
from nova_qcache.recorder import service
from nova_qcache.recorder import unreadable
from nova_qcache.system import files
from nova_qcache.system import processes
from tests.unit import builders
from tests.unit.builders import MIB
from tests.unit.recorder.stage import Stage


@pytest.fixture
def stage(catalog):
    def seal(its_catalog, tool, record, reason):
        return its_catalog.seal(record, builders.sealed(reason=reason))

    with (
        mock.patch.object(service, 'ServingDaemon', autospec=True) as daemon_class,
        mock.patch.object(processes, 'connections', autospec=True) as connections,
        mock.patch.object(opener, 'open_recording', autospec=True) as open_recording,
        mock.patch.object(sealer, 'seal', autospec=True, side_effect=seal) as sealing,
        mock.patch.object(finish, '_HOLD_SECONDS', 1),  # of some hundred looks
        mock.patch.object(unreadable, '_AGAIN_SECONDS', (60, 60)),
    ):
        made = Stage(catalog, daemon_class, open_recording, sealing)
        daemon_class.adopt.return_value = None
        daemon_class.start.side_effect = made.daemon
        daemon_class.serve.side_effect = made.serve
        connections.side_effect = made.count
        open_recording.side_effect = lambda *arguments: builders.warm(
            catalog, b'empty', key=made.key
        )
        yield made


@pytest.fixture
def tool():
    """A qemu-img that makes files of 200 KiB."""
    made = mock.create_autospec(QemuImg, instance=True)
    made.create_cache.side_effect = lambda path, *_, **__: path.write_bytes(b'x' * 200 * 1024)
    return made


@pytest.fixture
def inspect():
    with mock.patch.object(probe, 'inspect', autospec=True, return_value=64 * MIB) as mocked:
        yield mocked


@pytest.fixture
def reserve():
    with mock.patch.object(files, 'reserve', autospec=True) as mocked:
        yield mocked
