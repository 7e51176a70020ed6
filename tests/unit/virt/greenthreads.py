# SPDX-License-Identifier: Apache-2.0
"""What nova-compute does natively, with a real hub and real threads of eventlet's: others go on.

No test here looks at a clock. A native call of the doubles ends when another greenthread has run
meanwhile, and fails if none does. tests/unit/virt/test_eventlet.py runs all this.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from unittest import mock

import eventlet  # noqa: H905  it is what this is about
from eventlet import event  # noqa: H905
from eventlet import patcher  # noqa: H905
from eventlet import tpool  # noqa: H905
from nova.virt.libvirt import host as libvirt_host
import pytest

from nova_qcache import exception
from nova_qcache.cache import scrub
from nova_qcache.engine.manager import Manager
from nova_qcache.model.key import CacheKey
from nova_qcache.model.plan import PlanKind
from nova_qcache.system import files
from nova_qcache.system import libvirt_domains
from nova_qcache.system import locks
from nova_qcache.system import native
from nova_qcache.system import processes
from nova_qcache.system.libvirt_domains import LibvirtDomains
from tests.unit import builders
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE
from tests.unit.fake_libvirt import Snapshot
from tests.unit.virt.libvirt_double import FakeDomain

ROOT = pathlib.Path(__file__).parents[3]
PATIENCE = 60
"""Seconds, only to end what hangs."""

threading, time = patcher.original('threading'), patcher.original('time')


class Hub:
    """Another greenthread, which counts how often it runs."""

    def __init__(self):
        self.runs = 0
        self.stood_still = []
        self.end = threading.Event()

    def spin(self):
        while not self.end.is_set():
            self.runs += 1
            eventlet.sleep(0)

    def wait_natively(self, what):
        """Block this thread of the system until the other greenthread has run."""
        before, deadline = self.runs, time.monotonic() + PATIENCE
        while self.runs <= before + 1:
            if self.stood_still or time.monotonic() > deadline:
                self.stood_still.append(what)
                return
            time.sleep(0.001)

    def slow(self, function, what):
        def call(*args, **kwargs):
            self.wait_natively(what)
            return function(*args, **kwargs)

        return call


@pytest.fixture(autouse=True)
def hub():
    assert patcher.is_monkey_patched('thread')
    made = Hub()
    other = eventlet.spawn(made.spin)
    yield made
    made.end.set()
    other.wait()
    assert not made.stood_still, 'the hub stood still in these calls'


class Slow:
    """What is of a libvirt that lets each caller wait."""

    hub: Hub

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if callable(found) and not name.startswith('_'):
            return super().__getattribute__('hub').slow(found, name)
        return found


class SlowDomain(Slow, FakeDomain):
    pass


class SlowSnapshot(Slow, Snapshot):
    pass


class SlowConnection:
    def __init__(self, hub, domains):
        self.hub = hub
        self.domains = domains
        self.hangs = None
        """An event of the system that its next call waits for."""

    def _wait(self, what):
        if self.hangs is not None:
            self.hangs.wait()
        self.hub.wait_natively(what)

    def listAllDomains(self, flags=0):
        self._wait('listAllDomains')
        return self.domains

    def getLibVersion(self):
        self._wait('getLibVersion')
        return 9_000_000


@pytest.fixture
def connection(hub):
    domains = [SlowDomain(f'<domain>{n}</domain>', saved='<domain/>') for n in range(3)]
    for domain in domains:
        domain.hub = hub
        domain.snapshots = [SlowSnapshot('a', '<domain/>')]
        domain.snapshots[0].hub = hub
    return SlowConnection(hub, domains)


@pytest.fixture
def domains(connection):
    """What nova-compute asks: a connection that Nova has wrapped."""
    host = mock.create_autospec(libvirt_host.Host, instance=True)
    host._libvirt_proxy_classes = (SlowDomain, SlowConnection)
    wrapped = libvirt_host.Host._wrap_libvirt_proxy(host, connection)
    assert isinstance(wrapped, tpool.Proxy)
    return LibvirtDomains('this nova-compute', lambda: wrapped)


@pytest.fixture
def hanging(connection):
    """A libvirt that answers nothing, and is not waited for."""
    connection.hangs = threading.Event()
    with mock.patch.object(libvirt_domains, '_ANSWER_SECONDS', 0.01):
        yield connection
        connection.hangs.set()


def test_it_notices_a_call_on_the_hub(hub):
    with mock.patch(f'{__name__}.PATIENCE', 0.01):
        hub.wait_natively('a call')
    assert hub.stood_still == ['a call']
    hub.stood_still.clear()


def test_all_documents_of_all_domains(domains):
    assert len(list(domains.documents())) == 12


def test_the_version(domains):
    assert domains.version() == (9, 0, 0)


def test_a_libvirt_that_hangs(hanging, domains, hub):
    before = hub.runs
    with pytest.raises(exception.DomainsUnknown, match='no answer within'):
        list(domains.documents())
    assert hub.runs > before
    with pytest.raises(exception.DomainsUnknown, match='it has not answered an earlier question'):
        list(domains.documents())


# -- a manager in nova-compute


@pytest.fixture
def manager(short_folder, source, launch_start, recorder, current, domains):
    # Room for one recording, or for one cache and not for both.
    conf = builders.config(short_folder, cache_budget=f'{16 * builders.MIB}')
    return Manager(conf, domains)


@pytest.fixture
def unused(manager):
    """A cache that may go."""
    key = CacheKey(OTHER_IMAGE, builders.GENERATION)
    return builders.ready(manager._catalog, bytes(4096), key=key)


def test_a_boot_that_needs_an_eviction(manager, unused):
    assert manager.boots.plan(builders.boot(consumer='an-instance')).kind is PlanKind.RECORD
    assert manager.caches() == []


def test_a_boot_that_needs_an_eviction_while_libvirt_hangs(manager, unused, hanging):
    assert manager.boots.plan(builders.boot(consumer='an-instance')).kind is PlanKind.PLAIN
    assert [view.key for view in manager.caches()] == [unused.key]
    assert manager.boots.plan(builders.boot(consumer='another')).kind is PlanKind.PLAIN, (
        'no lock is held'
    )


def test_the_periodic_work(manager, unused):
    manager.maintenance.run(set(), 0)
    assert manager.caches() == []


def test_the_periodic_work_while_libvirt_hangs(manager, unused, hanging):
    manager.maintenance.run(set(), 0)
    assert [view.key for view in manager.caches()] == [unused.key]


def test_the_start(manager):
    builders.warm(manager._catalog)
    assert manager.clean_up() == [KEY]


# -- files


def test_what_is_synced(tmp_path, hub):
    with mock.patch.object(os, 'fsync', hub.slow(os.fsync, 'fsync')):
        files.replace_atomically(tmp_path / 'file', b'content', 0o600)
        files.sync_file(tmp_path / 'file')


def test_a_record(catalog, hub):
    with mock.patch.object(os, 'fsync', hub.slow(os.fsync, 'fsync')):
        builders.ready(catalog)


def test_the_reading_of_sealed_caches(catalog, hub):
    builders.ready(catalog, bytes(8 * builders.MIB))
    with mock.patch.object(scrub, '_digest', hub.slow(scrub._digest, 'a read')):
        assert scrub.Scrubber(catalog).scrub(4 * builders.MIB) == 4 * builders.MIB


# -- locks

ARGUMENTS = {
    'keeper': (),
    'pool': (),
    'image': (IMAGE,),
    'generation': ('base',),
    'statistics': (),
}

HOLDER = """
import pathlib, sys
from nova_qcache.system import locks
with getattr(locks, sys.argv[1])(pathlib.Path(sys.argv[2]), *sys.argv[3:], 60):
    print('held', flush=True)
    sys.stdin.read()
"""


def take(kind, folder):
    return getattr(locks, kind)(folder, *ARGUMENTS[kind], PATIENCE)


@contextlib.contextmanager
def held_by_another_process(kind, folder):
    command = [sys.executable, '-c', HOLDER, kind, str(folder), *ARGUMENTS[kind]]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b'held\n'
        yield process


@pytest.mark.parametrize('kind', ARGUMENTS)
def test_a_lock_that_another_process_holds(tmp_path, kind):
    with held_by_another_process(kind, tmp_path) as process:
        # Nobody else lets go of it: a hub that stands still would wait until the deadline.
        other = eventlet.spawn(process.stdin.close)
        with take(kind, tmp_path):
            other.wait()


@pytest.mark.parametrize('kind', ARGUMENTS)
def test_a_lock_that_another_greenthread_holds(tmp_path, kind):
    is_held, may_end = event.Event(), event.Event()

    def hold():
        with take(kind, tmp_path):
            is_held.send()
            may_end.wait()

    holder = eventlet.spawn(hold)
    is_held.wait()
    eventlet.spawn(may_end.send)
    with take(kind, tmp_path):
        holder.wait()


# -- processes


def test_a_process_is_waited_for(tmp_path):
    with open(tmp_path / 'log', 'wb') as output:
        sleeps = ['-n1', '-r1', f'import time; time.sleep({2 * PATIENCE})']
        process = processes.start_module('timeit', sleeps, output)
    # Nobody else ends it: a hub that stands still would wait until the deadline.
    eventlet.spawn(process.kill)
    assert process.wait(PATIENCE) == -signal.SIGKILL


# -- the ways of native calls


def test_a_native_call_within_a_native_call():
    assert native.run(lambda: native.run(divmod, 7, 3)) == (2, 1)


def test_an_error_is_the_callers():
    with pytest.raises(ZeroDivisionError):
        native.run(divmod, 7, 0)
    with pytest.raises(ZeroDivisionError):
        native.within(PATIENCE, lambda: native.run(divmod, 7, 0))


def test_a_deadline_of_somebody_else_is_theirs():
    with pytest.raises(eventlet.Timeout) as caught, eventlet.Timeout(0.001) as theirs:
        native.within(PATIENCE, lambda: eventlet.sleep(PATIENCE))
    assert caught.value is theirs
