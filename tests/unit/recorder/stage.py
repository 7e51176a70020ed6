# SPDX-License-Identifier: Apache-2.0
"""A stage for recorders: a daemon that only notes what it is told, and guests by script.

Each recorder here ends by itself: a test's script says how many guests are connected whenever the
recorder counts them. It lives in virtual time.
"""

import asyncio
from unittest import mock

from nova_qcache.cache.catalog import Catalog
from nova_qcache.model.states import State
from nova_qcache.qemu import block_graph
from nova_qcache.qemu.img import QemuImg
from nova_qcache.qemu.qmp import Monitor
from nova_qcache.recorder.daemon import ServingDaemon
from nova_qcache.recorder.finish import Limits
from nova_qcache.recorder.service import Recorder
from nova_qcache.recorder.settings import Settings
from tests.unit import builders
from tests.unit import virtual_time
from tests.unit.builders import KEY
from tests.unit.builders import MIB

HASTY = Limits(idle=0.02, settle=0.01, longest=1000, grace=0, lease=0)
PATIENT = Limits(idle=1000, settle=0.01, longest=1000, grace=0, lease=0)
FAITHFUL = Limits(idle=1000, settle=1000, longest=1000, grace=0, lease=1000)
RECORDING = {block_graph.CACHE_FILE_NODE, block_graph.RECORDING_NODE}


class Stage:
    """What a recorder finds around itself."""

    def __init__(
        self, catalog: Catalog, daemon_class: mock.Mock, open_recording: mock.Mock, seal: mock.Mock
    ) -> None:
        self.catalog = catalog
        self.key = KEY
        """Of the cache that is recorded."""
        self.is_audit = False
        self.daemon_class = daemon_class
        self.open_recording = open_recording
        self.seal = seal
        self.daemons: list[mock.Mock] = []
        self.events = 0
        """How often the threshold is reached."""
        self.failures: list[dict] = []
        """What daemons say of failed reads."""
        self.counted = 0
        self.on_daemon = lambda daemon: None
        """What is done to a new daemon."""
        self.on_record = lambda: None
        """What happens when the daemon begins to record."""
        self.on_serve = lambda: None
        """What happens when a daemon is started in place of one that is dead."""
        self.script = lambda count: 0
        """From how often guests were counted to how many there are."""

    def daemon(self, *arguments, nodes=RECORDING):
        made = mock.create_autospec(ServingDaemon, instance=True)
        made.ended, made.pid = asyncio.Event(), 4711
        made.node_names.return_value = nodes

        def end_writing(*_):
            made.node_names.return_value = nodes - {block_graph.RECORDING_NODE}

        made.seal.side_effect = made.replace.side_effect = end_writing
        made.monitor = mock.create_autospec(Monitor, instance=True)
        made.monitor.events.side_effect = self.heard
        made.record.side_effect = lambda *_: self.on_record()
        self.on_daemon(made)
        self.daemons.append(made)
        return made

    def serve(self, paths, key, program, nodes):
        self.on_serve()
        made = self.daemon()
        made.plays = [node['filename'] for node in nodes if node['node-name'] == 'cfile']
        return made

    async def heard(self, name):
        for event in [{}] * self.events if name == 'BLOCK_WRITE_THRESHOLD' else self.failures:
            yield event
        await asyncio.Event().wait()

    def count(self, path):
        self.counted += 1
        return self.script(self.counted)

    def ask(self, recorder, command):
        """Say this to the recorder's control server as soon as it records."""
        self.on_record = lambda: say(recorder, command)

    def grow(self):
        with open(self.catalog.paths.recording(self.key), 'ab') as file:
            file.write(b'recorded')

    @property
    def state(self):
        record = self.catalog.load(self.key)
        return record.state if record else State.COLD


def say(recorder, command):
    """Return what the recorder answers to a command; no answer waits for anything."""
    try:
        recorder._control_server._answer(command, {}).send(None)
    except StopIteration as answered:
        return answered.value
    raise AssertionError(f'{command} waits')


def run(stage, limits=HASTY, prepare=lambda recorder: None, **settings):
    """Run a recorder to its end, and return it."""

    async def live():
        told = Settings(16 * MIB, 4096, False, limits, 'qsd', audit=stage.is_audit, **settings)
        tool = mock.create_autospec(QemuImg, instance=True)
        recorder = Recorder(stage.key, builders.MemorySource(), stage.catalog, tool, told)
        prepare(recorder)
        await recorder.run()
        return recorder

    recorder = virtual_time.run(live())
    assert not stage.catalog.paths.control_socket(stage.key).exists()
    return recorder


def one_guest_until(stage, ready):
    """A guest that reads once, and leaves when ``ready()`` is true."""

    def script(count):
        if count == 2:
            stage.grow()
        return 0 if ready() else 1

    stage.script = script


def adopt(stage, nodes=RECORDING):
    """Let the recorder find a daemon with these nodes; return what will be its daemon."""
    found: list = []

    async def find(paths, key):
        found.append(stage.daemon(nodes=nodes))
        return found[0]

    stage.daemon_class.adopt.side_effect = find
    return found
