# SPDX-License-Identifier: Apache-2.0
"""A small real guest boots plain, recording and playing, and reads the same bytes each time."""

from collections.abc import Iterator
import contextlib
import pathlib
from typing import Any

import psutil
import pytest

from tests.functional import bases
from tests.functional import real_guests
from tests.functional import sealed
from tests.functional import users
from tests.functional import waiting
from tests.functional.real_guests import block_chains
from tests.functional.real_guests import Kernel
from tests.functional.site import MIB
from tests.functional.site import Site

_BLOCKS = [(offset, 1024) for offset in range(0, 32 * 1024, 3 * 1024)] + [(31 * 1024 + 4, 60)]
_APPEND = 'qcache.blocks=' + ','.join(f'{offset}+{length}' for offset, length in _BLOCKS)
_BYTES = sum(length for _, length in _BLOCKS) * 1024


@pytest.fixture(scope='session')
def built() -> pathlib.Path:
    return real_guests.build()


@pytest.fixture
def kernel(site: Site, built: pathlib.Path) -> Kernel:
    return Kernel(site, built)


@pytest.fixture
def disk(site: Site) -> pathlib.Path:
    """What the base holds: 32 MiB."""
    return bases.make_raw(site, 32 * MIB)


@pytest.fixture
def server(site: Site, disk: pathlib.Path, serve: bases.Serve) -> bases.NbdServer:
    return serve(disk)


def _base_chain(server: bases.NbdServer) -> list[dict[str, Any]]:
    chain: list[dict[str, Any]] = block_chains.nbd_socket(server.uri.partition('=')[2])
    return chain


def _below(plan: dict[str, Any], server: bases.NbdServer) -> list[dict[str, Any]]:
    """Return what an overlay stands on, as Nova's driver will put it into a domain."""
    chain: list[dict[str, Any]]
    if plan['kind'] == 'RECORD':
        chain = block_chains.nbd_socket(plan['socket'], node='recorder', export=plan['export'])
    elif plan['kind'] == 'PLAY':
        chain = block_chains.sealed_cache(plan['cache'], _base_chain(server))
    else:
        chain = _base_chain(server)
    return chain


@contextlib.contextmanager
def _booted(
    site: Site,
    kernel: Kernel,
    plan: dict[str, Any],
    server: bases.NbdServer,
    names: tuple[str, ...] = ('guest',),
) -> Iterator[list[Any]]:
    """Boot guests at the same time; all of them have read all their blocks then."""
    with contextlib.ExitStack() as stack:
        guests = []
        for name in names:
            disk = real_guests.make_overlay(site, f'{name}-{plan["kind"]}', server.uri)
            chain = block_chains.overlay(disk, _below(plan, server))
            guests.append(stack.enter_context(real_guests.guest(kernel, name, chain, _APPEND)))
        for guest in guests:
            guest.wait_for('QCACHE booted', waiting.PATIENCE)
            assert guest.blocks() == real_guests.checksums(server.path, _BLOCKS)
            assert not guest.read_errors()
            process = psutil.Process(guest.pid)
            assert process.uids() == (users.GUEST.uid,) * 3
            assert 'qemu-system' in process.name()
        yield guests


@pytest.mark.core
def test_plain_recording_playing(site: Site, kernel: Kernel, server: bases.NbdServer) -> None:
    plain = {'kind': 'PLAIN'}
    with _booted(site, kernel, plain, server):
        assert server.bytes_read() >= _BYTES

    plan = site.boot_plan(server.uri) | {'export': 'top'}
    assert plan['kind'] == 'RECORD'
    with _booted(site, kernel, plan, server):
        shown = site.ask('seal', site.image_id, '--wait')
    assert shown['cache_bytes'] > _BYTES
    sealed.require_sound(site, shown, server.path, None)
    site.see_off()

    plan = site.boot_plan(server.uri)
    assert plan['kind'] == 'PLAY'
    before = server.bytes_read()
    with _booted(site, kernel, plan, server):
        assert server.bytes_read() - before <= 0.03 * _BYTES
        done = site.qcache('remove', site.image_id)
        assert 'qemu has it open' in done.stderr, done


def test_three_guests_at_once(
    site: Site, kernel: Kernel, disk: pathlib.Path, server: bases.NbdServer
) -> None:
    plan = site.boot_plan(server.uri) | {'export': 'top'}
    assert plan['kind'] == 'RECORD'
    with _booted(site, kernel, plan, server, ('one', 'two', 'three')):
        # What one guest has fetched is there for the others.
        assert server.bytes_read() < 1.5 * _BYTES
        shown = site.ask('seal', site.image_id, '--wait')
        assert shown['guests'] == 3
    sealed.require_sound(site, shown, disk, None)


def test_a_guest_goes_on_when_its_recorder_is_killed(
    site: Site, kernel: Kernel, server: bases.NbdServer
) -> None:
    plan = site.record(server.uri)
    with _booted(site, kernel, plan, server) as (guest,):
        site.kill(plan['recorder_pid'])
        assert guest.qmp('query-status')['status'] == 'running'
        adopted = site.record(server.uri)
        assert adopted['daemon_pid'] == plan['daemon_pid']
        assert site.ask('seal', site.image_id, '--wait')['state'] == 'READY'
        assert guest.qmp('query-status')['status'] == 'running'
