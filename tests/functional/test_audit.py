# SPDX-License-Identifier: Apache-2.0
"""Audits: what guests read through a recorder on a copy of their cache, and what becomes of the
copy and of the cache."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import subprocess
from typing import Any

import pytest

from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.model.key import CacheKey
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.states import Phase
from nova_qcache.model.states import State
from nova_qcache.recorder import launch
from nova_qcache.stats.counter_store import CounterStore
from nova_qcache.stats.counters import Counters
from nova_qcache.system import control
from nova_qcache.system.paths import Paths
from tests.functional import bases
from tests.functional import guests
from tests.functional import users
from tests.functional import waiting
from tests.functional.guests import NbdGuest
from tests.functional.site import MIB
from tests.functional.site import Site

_PATIENT = f'from nova_qcache.engine import audits; audits._ANSWER_SECONDS = {waiting.PATIENCE}'
"""A boot waits half a second for the answer of an audit, which a busy machine may need."""
CACHED = 4 * MIB
"""The cache that is audited has so much of the beginning of its base."""


class Host:
    """One image of a site with a READY cache, looked at from inside."""

    def __init__(self, site: Site, base: pathlib.Path, reference: str = '') -> None:
        self.site, self.base = site, base
        self.reference = reference or str(base)
        self.paths = Paths(site.cache_path, site.run_path)
        self.catalog = Catalog(self.paths, waiting.PATIENCE)
        command = site.recorder_command(f'--base={self.reference}', site.image_id)
        with site.start(command) as recorder:
            waiting.until(lambda: len(self.catalog.keys()) == 1, 'a recording')
            (self.first,) = self.catalog.keys()
            self.second = self.first.next_revision()
            with self._guest_of(self.first) as guest:
                guest.require(base, 0, CACHED)
                self._client(self.first).seal()
                waiting.until(lambda: self.state(self.first) is State.READY, 'a cache')
            site.see_off()
            recorder.communicate(timeout=waiting.PATIENCE)
        self.sealed_path = self.paths.sealed(self.first)
        self.original = self.sealed_path.read_bytes()
        self.before = self.counted()

    def counted(self) -> Counters:
        return CounterStore(self.paths, waiting.PATIENCE).of(self.site.image_id)

    def record(self, key: CacheKey) -> CacheRecord:
        found = self.catalog.load(key)
        assert found is not None
        return found

    def state(self, key: CacheKey) -> State:
        found = self.catalog.load(key)
        return found.state if found else State.COLD

    def client(self) -> control.RecorderClient:
        """The client of the audit."""
        return self._client(self.second)

    def _client(self, key: CacheKey) -> control.RecorderClient:
        return control.RecorderClient(self.paths.control_socket(key), waiting.PATIENCE)

    def _guest_of(self, key: CacheKey) -> NbdGuest:
        waiting.until(lambda: self.records(key), 'a recorder')
        socket = str(self.paths.nbd_socket(key))
        return NbdGuest(self.site, {'socket': socket, 'export': 'top'})

    def command(self, *more: str) -> list[str]:
        return self.site.recorder_command(
            *more,
            f'--base={self.reference}',
            f'--generation={self.second.generation}',
            f'--revision={self.second.revision}',
            '--audit',
            self.site.image_id,
        )

    @contextlib.contextmanager
    def audit(self) -> Iterator[dict[str, Any]]:
        """A recorder that waits for the guest of an audit; at the end it has left."""
        process = self.site.start(self.command())
        try:
            waiting.until(lambda: self.records(self.second), 'an audit that waits')
            yield {'socket': str(self.paths.nbd_socket(self.second)), 'export': 'top'}
            self.site.see_off()
            process.communicate(timeout=waiting.PATIENCE)
        finally:
            process.kill()
            process.communicate()

    def records(self, key: CacheKey) -> bool:
        with contextlib.suppress(exception.RecorderUnreachable):
            return self._client(key).status().phase is Phase.RECORDING
        return False

    def finish(self) -> str:
        """End the measuring as the silence of its guests does, and return what is said of it."""
        self.client().seal()

        def note() -> str:
            status = self.client().status()
            return status.note if status.phase is Phase.SERVING else ''

        return waiting.until(note, 'the end of an audit')

    def open_files(self) -> list[str]:
        """Return what the daemon has open in the folder of the caches."""
        found = []
        for process in self.site.daemons():
            for name in os.listdir(f'/proc/{process.pid}/fd'):
                with contextlib.suppress(OSError):
                    found.append(os.readlink(f'/proc/{process.pid}/fd/{name}'))
        return [path for path in found if path.startswith(str(self.site.cache_path))]

    def require_untouched(self) -> None:
        """The audited cache is READY and what it was, and nothing of its copy is left."""
        assert self.state(self.first) is State.READY
        self.catalog.require_unchanged(self.record(self.first))
        assert self.sealed_path.read_bytes() == self.original
        assert self.state(self.second) is State.COLD
        assert self.site.files() == [self.paths.record(self.first), self.sealed_path]


@pytest.fixture
def host(site: Site, base: pathlib.Path) -> Host:
    return Host(site, base)


def test_a_cache_that_serves_all_stays(host: Host) -> None:
    with host.audit() as plan:
        assert host.client().claim()
        assert not host.client().claim(), 'it waits no more'
        with NbdGuest(host.site, plan) as guest:
            guest.require(host.base, 0, CACHED)
            host.finish()
            host.require_untouched()
            assert host.open_files() == [str(host.sealed_path)], 'the copy has no space any more'
            guest.require(host.base, 0, 8 * MIB)
    counted = host.counted()
    assert counted.missed_bytes == 0
    assert CACHED <= counted.audited_bytes < CACHED * 1.01
    assert counted.boot_bytes == counted.audited_bytes
    assert counted.recordings == host.before.recordings == 1
    host.require_untouched()


@pytest.mark.core
def test_a_cache_that_misses_much_is_recorded_again(host: Host) -> None:
    with host.audit() as plan, NbdGuest(host.site, plan) as guest:
        guest.require(host.base, MIB, 6 * MIB)
        assert host.state(host.first) is State.READY, 'it serves others meanwhile'
        assert host.finish().startswith('sealed: operator; ')
        guest.require(host.base, 0, 8 * MIB)
    assert host.state(host.first) is State.STALE
    assert host.record(host.first).stale_reason == 'it was recorded again as revision 2'
    sealed = host.record(host.second)
    assert sealed.state is State.READY
    path = host.catalog.require_unchanged(sealed)
    assert path.stat().st_size >= 7 * MIB
    node = guests.file_node(host.base)
    guests.require_equal(host.site, guests.play_chain(str(path), node), host.base)
    counted = host.counted()
    assert counted.recordings == 2
    assert counted.invalidations == {'revision': 1}
    assert 3 * MIB <= counted.missed_bytes < 3.1 * MIB
    assert 6 * MIB <= counted.audited_bytes < 6.1 * MIB


def test_the_new_revision_has_all_of_the_old_one(
    site: Site, base: pathlib.Path, serve: bases.Serve
) -> None:
    """Also over a base behind a socket, whose bytes the kernel counts elsewhere."""
    server = serve(base)
    host = Host(site, base, server.uri)
    with host.audit() as plan, NbdGuest(site, plan) as guest:
        before = server.bytes_read()
        guest.require(base, 2 * MIB, 4 * MIB)
        assert server.bytes_read() - before == 2 * MIB
        assert host.finish().startswith('sealed')
    counted = host.counted()
    assert 2 * MIB <= counted.missed_bytes < 2.1 * MIB
    assert 4 * MIB <= counted.audited_bytes < 4.1 * MIB
    before = server.bytes_read()
    chain = guests.play_chain(str(host.paths.sealed(host.second)), None)
    guests.read_chain(site, chain, [(0, 6 * MIB)])
    assert server.bytes_read() == before


SIZES = [512, 4096, 65536, MIB]


@pytest.mark.parametrize('size', SIZES)
def test_what_is_read_is_measured(host: Host, size: int) -> None:
    """Three quarters of it from the cache; in pieces of each size that guests use."""
    reads = min(1024, 4 * MIB // size)
    total = reads * size
    start = CACHED - total // 4 * 3
    with host.audit() as plan, NbdGuest(host.site, plan) as guest:
        for number in range(reads):
            guest.require(host.base, start + number * size, size)
        host.finish()
    counted = host.counted()
    missed = total // 4
    # Beside the bytes themselves: tables, and 8 bytes for each signal between threads. The rest of
    # a cluster that is missed is read from the base at once, and then from the copy.
    twice = missed if size < 65536 else 0
    assert 0 <= counted.missed_bytes - missed <= 65536
    assert 0 <= counted.audited_bytes - total <= 65536 + 64 * reads + twice


def test_two_guests_of_one_audit(host: Host) -> None:
    with host.audit() as plan, NbdGuest(host.site, plan) as one, NbdGuest(host.site, plan) as two:
        one.require(host.base, 0, CACHED)
        two.require(host.base, 0, CACHED)
        host.finish()
    counted = host.counted()
    assert 2 * CACHED <= counted.audited_bytes < 2.02 * CACHED
    assert counted.boot_bytes == counted.audited_bytes // 2


def test_boots_start_audits_and_never_wait_for_them(host: Host) -> None:
    host.site.configure(audit_every=2)
    for _ in range(2):
        assert host.site.boot_plan(host.base)['kind'] == 'PLAY', 'also the one that starts it'
    waiting.until(lambda: host.records(host.second), 'an audit that waits')
    plan = host.site.boot_plan(host.base, before=_PATIENT)
    assert (plan['kind'], plan['revision'], plan['is_audit']) == ('RECORD', 2, True)
    plays = host.site.boot_plan(host.base, before=_PATIENT)['kind']
    assert plays == 'PLAY', 'one is enough'
    with NbdGuest(host.site, {'socket': plan['socket'], 'export': 'top'}) as guest:
        guest.require(host.base, 0, CACHED)
        host.finish()
        guest.require(host.base, 0, CACHED)
    host.site.see_off()
    counted = host.counted()
    assert (counted.plays, counted.audits, counted.missed_bytes) == (3, 1, 0)
    assert counted.audited_bytes >= CACHED
    host.require_untouched()


def test_silence_ends_an_audit(host: Host) -> None:
    host.site.configure(recording_idle_seconds=1, recording_settle_seconds=1)
    with host.audit() as plan, NbdGuest(host.site, plan) as guest:
        guest.require(host.base, 0, CACHED)
        waiting.until(lambda: host.state(host.second) is State.COLD, 'the end by silence')
    host.require_untouched()


def test_nobody_comes(host: Host) -> None:
    with host.audit():
        assert host.state(host.second) is State.RECORDING
        host.client().dismiss()
    assert host.counted() == host.before
    host.require_untouched()


def test_a_guest_that_leaves_at_once_measures_nothing(host: Host) -> None:
    with host.audit() as plan, NbdGuest(host.site, plan) as guest:
        guest.require(host.base, 0, CACHED + MIB)
        # It has been seen, then; one that comes and goes unseen is still waited for.
        waiting.until(lambda: host.client().status().recorded_bytes, 'a look at the guest')
        guest.leave()
    assert host.counted() == host.before
    host.require_untouched()


@pytest.mark.parametrize('adopts', ['the keeper', 'a recorder'])
def test_a_recorder_that_is_killed(host: Host, adopts: str) -> None:
    with host.audit() as plan, NbdGuest(host.site, plan) as guest:
        guest.require(host.base, 0, 8 * MIB)
        host.site.kill(host.client().status().pid)
        guest.require(host.base, 0, 9 * MIB)
        options = ['--serve-only'] if adopts == 'the keeper' else []
        with _running(host, *options):
            # Its file goes after its record.
            waiting.until(lambda: len(host.site.files()) == 2, 'the end of the audit')
            guest.require(host.base, 0, 10 * MIB)
            host.require_untouched()
            waiting.until(
                lambda: host.open_files() == [str(host.sealed_path)], 'the end of the copy'
            )
            guest.leave()
    assert host.counted() == host.before


def test_a_daemon_that_is_killed(host: Host) -> None:
    with host.audit() as plan:
        with NbdGuest(host.site, plan) as guest:
            guest.require(host.base, 0, MIB)
            host.site.kill(host.client().status().daemon_pid)
            # Another daemon listens before guests may connect.
            guests.wait_until_served(host.site, plan)
        with NbdGuest(host.site, plan) as guest:
            guest.require(host.base, 0, 8 * MIB)
            assert host.open_files() == [str(host.sealed_path)], 'it plays the cache itself'
            waiting.until(lambda: len(host.site.files()) == 2, 'the end of the copy')
            host.require_untouched()
    assert host.counted() == host.before


@pytest.mark.parametrize('owner', [users.PRODUCT.uid, 0])
def test_the_copy_of_a_cache_that_is_used_no_more_becomes_none(host: Host, owner: int) -> None:
    """Retired, or with a record that the recorder cannot read any more."""
    with host.audit() as plan, NbdGuest(host.site, plan) as guest:
        guest.require(host.base, 0, 8 * MIB)
        host.catalog.retire(host.record(host.first), 'found to be wrong')
        os.chown(host.paths.record(host.first), owner, owner)
        assert 'is no longer used' in host.finish()
        guest.require(host.base, 0, 8 * MIB)
    assert host.state(host.second) is State.COLD


def test_a_cache_that_was_damaged_is_not_copied(host: Host) -> None:
    facts = host.sealed_path.stat()
    with open(host.sealed_path, 'r+b') as file:
        file.seek(facts.st_size - 100)
        file.write(b'x' * 100)
    os.utime(host.sealed_path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    done = host.site.run(host.command())
    assert done.returncode == 1
    assert 'its digest differs from that of its seal' in done.stderr
    assert host.state(host.first) is State.READY
    assert host.state(host.second) is State.COLD
    assert not host.paths.recording(host.second).exists()
    assert not host.site.recorders()


def test_a_disk_without_room_for_the_copy(site: Site, base: pathlib.Path) -> None:
    site.mount(site.cache_path, '-t', 'tmpfs', '-o', 'size=66M', 'tmpfs', user=users.PRODUCT)
    host = Host(site, base)
    done = site.run(host.command())
    assert done.returncode == 1
    assert 'cannot be reserved' in done.stderr
    host.require_untouched()
    assert not site.recorders()


@contextlib.contextmanager
def _running(host: Host, *options: str) -> Iterator['subprocess.Popen[str]']:
    process = host.site.start(host.command(*options))
    try:
        yield process
        host.site.see_off()
        process.communicate(timeout=waiting.PATIENCE)
        assert process.returncode in (0, launch.BUSY)
    finally:
        process.kill()
        process.communicate()
