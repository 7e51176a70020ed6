# SPDX-License-Identifier: Apache-2.0
"""Record, seal, play: every way in which a recording ends, on every kind of base."""

from collections.abc import Callable
import contextlib
import dataclasses
import hashlib
import pathlib
from typing import Any

import pytest

from nova_qcache.recorder import quota
from tests.functional import bases
from tests.functional import guests
from tests.functional import sealed
from tests.functional import waiting
from tests.functional import watching
from tests.functional.guests import NbdGuest
from tests.functional.site import MIB
from tests.functional.site import Site

pytestmark = pytest.mark.core


@dataclasses.dataclass
class Base:
    """One base in the three ways in which one speaks of it."""

    reference: str
    base_format: str
    content: pathlib.Path
    node: dict[str, Any] | None


def _make_base(kind: str, site: Site, serve: bases.Serve) -> Base:
    raw = bases.make_raw(site, 16 * MIB + (700 if kind == 'odd length' else 0))
    if kind in ('nbd', 'nbd+unix', 'nbd with qcow2'):
        served = bases.make_qcow2(site, raw) if kind == 'nbd with qcow2' else raw
        server = serve(served, tcp=kind == 'nbd')
        base_format = 'qcow2' if kind == 'nbd with qcow2' else 'raw'
        return Base(server.uri, base_format, raw, None)
    if kind == 'qcow2':
        path = bases.make_qcow2(site, raw)
        return Base(str(path), 'qcow2', raw, guests.file_node(path))
    if kind == 'bindfs':
        shown = site.make_folder('shown')
        site.bindfs(site.bases, shown)
        raw = shown / raw.name
    return Base(str(raw), 'raw', raw, guests.file_node(raw))


@pytest.mark.parametrize(
    'kind', ['raw', 'odd length', 'qcow2', 'nbd', 'nbd+unix', 'nbd with qcow2', 'bindfs']
)
def test_record_seal_play(site: Site, serve: bases.Serve, kind: str) -> None:
    base = _make_base(kind, site, serve)
    plan = site.record(base.reference, base.base_format)
    assert (plan['kind'], plan['state']) == ('RECORD', 'RECORDING')
    reserved = pathlib.Path(plan['path']).stat().st_blocks * 512
    assert plan['quota_bytes'] == 64 * MIB
    assert quota.file_limit(64 * MIB) <= reserved <= 64 * MIB

    with NbdGuest(site, plan) as guest:
        for offset in (0, 5 * MIB, 5 * MIB + 4096, 9 * MIB + 512):
            guest.require(base.content, offset, 128 * 1024)
        guest.require(base.content, base.content.stat().st_size // 512 * 512 - 1024, 1024)
        shown = site.ask('seal', site.image_id, '--wait')
        assert shown['note'] == 'operator'
        guest.require(base.content, 0, MIB)
    sealed.require_sound(site, shown, base.content, base.node, base.base_format)

    played = site.plan(base.reference, base.base_format)
    assert (played['kind'], played['cache']) == ('PLAY', shown['path'])
    assert site.ask('verify', site.image_id)[0]['result'] == 'equal'


def test_playing_guests_read_nothing_of_what_was_recorded(
    site: Site, base: pathlib.Path, serve: bases.Serve
) -> None:
    server = serve(base)
    ranges = [(offset * MIB, 256 * 1024) for offset in range(0, 16, 2)]
    with NbdGuest(site, site.record(server.uri)) as guest:
        for offset, length in ranges:
            guest.require(base, offset, length)
        shown = site.ask('seal', site.image_id, '--wait')
    chain = guests.play_chain(shown['path'], None)

    before = server.bytes_read()
    guests.read_chain(site, chain, ranges)
    assert server.bytes_read() == before
    guests.read_chain(site, chain, [(MIB, 65536)])  # was not recorded: the count does count
    assert server.bytes_read() == before + 65536


def test_zeros_are_recorded_as_well(site: Site, base: pathlib.Path, serve: bases.Serve) -> None:
    """The base says which ranges are zeros; a server that trusts it never reads those."""
    with open(base, 'r+b') as file:
        file.truncate(4 * MIB)
        file.truncate(16 * MIB)
    server = serve(base)
    ranges = [(2 * MIB, 65536), (8 * MIB, 256 * 1024)]
    with NbdGuest(site, site.record(server.uri)) as guest:
        asked = server.questions()
        for offset, length in ranges:
            guest.require(base, offset, length)
        assert server.questions() == asked, 'each question is a way to the base and back'
        shown = site.ask('seal', site.image_id, '--wait')
    assert shown['cache_bytes'] < MIB, 'zeros take no space'
    before = server.bytes_read()
    guests.read_chain(site, guests.play_chain(shown['path'], None), ranges)
    assert server.bytes_read() == before


def test_a_base_that_fails_is_an_error_and_nothing_made_up(
    site: Site, base: pathlib.Path, serve: bases.Serve
) -> None:
    server = serve(base)
    plan = site.record(server.uri)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, MIB)
        server.failing.touch()
        assert guest.read(8 * MIB, 4096).startswith('error')
        waiting.until(lambda: site.recorder().unreadable_blocks, 'what cannot be read')
    server.failing.unlink()
    waiting.until(lambda: not site.recorder().unreadable_blocks, 'another look at the base')
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, 16 * MIB)
        shown = site.ask('seal', site.image_id, '--wait')
    sealed.require_sound(site, shown, base, None)


def _read_some(guest: NbdGuest, base: pathlib.Path) -> None:
    guest.require(base, 0, 2 * MIB)
    guest.require(base, 8 * MIB, MIB)


def _finish_by_quota(site: Site, base: pathlib.Path) -> None:
    with NbdGuest(site, site.record(base, 'raw', '--quota=4')) as guest:
        for offset in range(0, 12 * MIB, 256 * 1024):
            guest.require(base, offset, 256 * 1024)
        shown = site.wait_for_state('READY')
        assert shown['cache_bytes'] > 2 * MIB


def _finish_by_idle(site: Site, base: pathlib.Path) -> None:
    site.configure(recording_idle_seconds=1, recording_settle_seconds=1)
    with NbdGuest(site, site.record(base)) as guest:
        _read_some(guest, base)
        site.wait_for_state('READY')
        guest.require(base, 4 * MIB, 4096)


def _finish_by_last_guest(site: Site, base: pathlib.Path) -> None:
    site.configure(recording_settle_seconds=1, guest_grace_seconds=0)
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        _read_some(guest, base)
        site.wait_until_seen()
        # Several times recording_settle_seconds without growth: it has settled.
        watching.wait_for_looks(plan['recorder_pid'], 30)
        assert site.show()['state'] == 'RECORDING'
    site.wait_for_state('READY')


def _finish_by_time(site: Site, base: pathlib.Path) -> None:
    site.configure(recording_max_seconds=1)
    plan = site.record(base)
    blocks = iter(range(0, 16 * MIB, 4096))
    with contextlib.ExitStack() as stack:
        # It drops what has not grown by then: it sees the guest after its first read.
        with site.suspended(plan['recorder_pid']):
            guest = stack.enter_context(NbdGuest(site, plan))
            guest.require(base, next(blocks), 4096)

        def read_on() -> bool:
            guest.require(base, next(blocks), 4096)
            return bool(site.show()['state'] == 'READY')

        waiting.until(read_on, 'the end of a recording that always grows')


@pytest.mark.parametrize(
    ('reason', 'finish'),
    [
        ('quota', _finish_by_quota),
        ('idle', _finish_by_idle),
        ('last-guest', _finish_by_last_guest),
        ('max-time', _finish_by_time),
    ],
)
def test_finish_reasons(
    site: Site, base: pathlib.Path, reason: str, finish: Callable[[Site, pathlib.Path], None]
) -> None:
    finish(site, base)
    shown = site.wait_for_state('READY')
    assert shown['note'] == reason
    sealed.require_sound(site, shown, base, guests.file_node(base))


def test_a_guest_that_leaves_at_once_leaves_no_cache(site: Site, base: pathlib.Path) -> None:
    site.configure(guest_grace_seconds=0)
    with NbdGuest(site, site.record(base)) as guest:
        _read_some(guest, base)
        site.wait_until_seen()
    site.wait_until_cold()
    assert site.plan(base)['kind'] == 'RECORD'


def test_a_guest_that_reads_nothing_leaves_no_cache(site: Site, base: pathlib.Path) -> None:
    site.configure(guest_grace_seconds=0)
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        assert guest.connected
        watching.wait_for_looks(plan['recorder_pid'], 10)
    site.wait_until_cold()


def test_a_guest_that_never_comes(site: Site, base: pathlib.Path) -> None:
    site.configure(plan_lease_seconds=1, guest_grace_seconds=0)
    done = site.run(site.recorder_command(f'--base={base}', site.image_id))
    assert done.returncode == 0, done
    assert 'recording now (into ' in done.stdout, done
    assert not site.files()
    assert not list((site.run_path / 'guests').iterdir())


def test_nothing_is_written_after_the_seal(site: Site, base: pathlib.Path) -> None:
    with NbdGuest(site, site.record(base)) as guest:
        _read_some(guest, base)
        recording = pathlib.Path(site.show()['path'])
        assert len(watching.writers_of(site.cache_path, recording.name)) == 1
        shown = site.ask('seal', site.image_id, '--wait')
        path = pathlib.Path(shown['path'])
        facts, content = path.stat(), hashlib.sha256(path.read_bytes()).digest()
        for offset in range(0, 16 * MIB, MIB):
            guest.require(base, offset, MIB)
        after = path.stat()
        assert (after.st_mtime_ns, after.st_size) == (facts.st_mtime_ns, facts.st_size)
        assert after.st_blocks == facts.st_blocks
        assert hashlib.sha256(path.read_bytes()).digest() == content
        assert not watching.writers_of(site.cache_path, path.stem)


def test_a_recorder_serves_its_guests_after_the_seal_and_leaves_with_the_last(
    site: Site, base: pathlib.Path
) -> None:
    site.configure(guest_grace_seconds=0)
    plan = site.record(base)
    with NbdGuest(site, plan) as first, NbdGuest(site, plan) as second:
        _read_some(first, base)
        shown = site.ask('seal', site.image_id, '--wait')
        first.leave()
        waiting.until(lambda: site.recorder().guests == 1, 'the end of a connection')
        watching.wait_for_looks(plan['recorder_pid'])
        assert {process.pid for process in site.recorders()} == {
            shown['recorder_pid'],
            shown['daemon_pid'],
        }
        second.require(base, 12 * MIB, MIB)
    waiting.until(lambda: not site.recorders(), 'the end of the recorder')
    assert not list((site.run_path / 'guests').iterdir())
    assert not list((site.run_path / 'control').iterdir())
    assert site.show()['state'] == 'READY'


def test_guests_come_and_go(site: Site, base: pathlib.Path) -> None:
    plan = site.record(base)
    for offset in range(3):
        with NbdGuest(site, plan) as guest:
            guest.require(base, offset * MIB, MIB)
    with NbdGuest(site, plan) as guest:
        assert site.show()['state'] == 'RECORDING'
        guest.require(base, 3 * MIB, MIB)
        shown = site.ask('seal', site.image_id, '--wait')
        assert shown['cache_bytes'] >= 4 * MIB
    for offset in range(4, 7):
        with NbdGuest(site, plan) as guest:
            guest.require(base, offset * MIB, MIB)
    sealed.require_sound(site, site.show(), base, guests.file_node(base))
