# SPDX-License-Identifier: Apache-2.0
"""XML that libvirt keeps for a later start of a guest, of a real libvirt."""

from collections.abc import Iterator
import contextlib
import pathlib
import shutil
import signal
from typing import Any

import psutil
import pytest

from tests.functional import real_guests
from tests.functional import users
from tests.functional import waiting
from tests.functional.guests import NbdGuest
from tests.functional.libvirt_host import CountingDomain
from tests.functional.libvirt_host import Libvirt
from tests.functional.real_guests import Kernel
from tests.functional.site import MIB
from tests.functional.site import Site

HOOK = pathlib.Path(__file__).parents[2] / 'etc/libvirt/hooks/qemu.d/nova-qcache'


@pytest.fixture(scope='session')
def built() -> pathlib.Path:
    return real_guests.build()


def _libvirt(site: Site, hook: str = '') -> Libvirt:
    """Return one beside caches that lie on a tmpfs."""
    # Before libvirtd starts: it has a mount namespace of its own.
    site.mount(site.cache_path, '-t', 'tmpfs', 'tmpfs', user=users.PRODUCT)
    made = Libvirt(site.account, hook)
    site.configure(libvirt_uri=made.uri)
    return made


@pytest.fixture
def libvirt(site: Site) -> Libvirt:
    return _libvirt(site)


@pytest.fixture
def domain(
    site: Site, libvirt: Libvirt, built: pathlib.Path, base: pathlib.Path
) -> CountingDomain:
    return CountingDomain(site, libvirt, Kernel(site, built), base)


# -- snapshots with memory

_INTERNAL = ['snapshot-create-as', 'one', 'snapshot']


def _external(libvirt: Libvirt) -> list[str]:
    memory, disk = (f'file={libvirt.folder / name}' for name in ('memory', 'disk'))
    return [*_INTERNAL, f'--memspec={memory}', f'--diskspec=vda,{disk}']


def _removes(site: Site) -> bool:
    done = site.qcache('remove', site.image_id)
    assert done.returncode in (0, 1), done
    if done.returncode:
        assert 'snapshot snapshot of domain one names it' in done.stderr, done
    return done.returncode == 0


@pytest.mark.parametrize('where', ['internal', 'external'])
def test_a_snapshot_with_memory_keeps_its_cache(
    site: Site,
    libvirt: Libvirt,
    domain: CountingDomain,
    base: pathlib.Path,
    cache: dict[str, Any],
    where: str,
) -> None:
    domain.start(site.boot_plan(base))
    domain.wait_until_it_reads()
    is_internal = where == 'internal'
    libvirt.virsh(*(_INTERNAL if is_internal else _external(libvirt)))
    libvirt.virsh('destroy', 'one')
    assert not _removes(site)
    assert pathlib.Path(cache['path']).exists()
    if is_internal:  # libvirt 9.0 neither reverts to others nor deletes all of them
        libvirt.virsh('snapshot-revert', 'one', 'snapshot')
        domain.wait_until_it_reads()
        libvirt.virsh('destroy', 'one')
        libvirt.virsh('snapshot-delete', 'one', 'snapshot')
    else:
        libvirt.virsh('snapshot-delete', 'one', 'snapshot', '--metadata')
    assert _removes(site)


# -- managed saves


@pytest.fixture
def keeping(site: Site, libvirt: Libvirt) -> Iterator[None]:
    site.configure(start_keeper=True)
    yield
    libvirt.end_guests()
    site.end_keeper()


def _keep(site: Site) -> None:
    """Do what nova-compute does when it starts, and at each boot."""
    site.manage('manager.boots.keep()')


def _plan(site: Site, base: pathlib.Path, phase: str) -> dict[str, Any]:
    if phase != 'playing':
        return site.boot_plan(base)
    with NbdGuest(site, site.record(base)) as guest:
        guest.require(base, 0, 8 * MIB)
        site.ask('seal', site.image_id, '--wait')
    site.see_off()
    plan = site.boot_plan(base)
    assert plan['kind'] == 'PLAY'
    _keep(site)
    return plan


def _names_ours(site: Site, libvirt: Libvirt) -> bool:
    return site.image_id in libvirt.virsh('managedsave-dumpxml', 'one')


def _switch_off(site: Site) -> None:
    """What is left when a host has been switched off and on: disks, and nothing in memory."""

    def look() -> bool:
        for process in [*site.running('nova_qcache.cmd.keeper'), *site.recorders()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return not site.running('nova_qcache.cmd.keeper') and not site.recorders()

    waiting.until(look, 'the end of all processes')
    shutil.rmtree(site.run_path)
    site.make_folder('run')
    for path in site.files():
        path.unlink()


@pytest.mark.parametrize(
    'between',
    [
        'nothing',
        pytest.param('a boot', marks=pytest.mark.core),
        'a boot of a host where nobody saw it',
    ],
)
@pytest.mark.parametrize('phase', ['recording', 'sealed', 'playing'])
def test_a_guest_that_somebody_else_saves(
    site: Site,
    libvirt: Libvirt,
    domain: CountingDomain,
    base: pathlib.Path,
    keeping: None,
    phase: str,
    between: str,
) -> None:
    domain.start(_plan(site, base, phase))
    domain.wait_until_it_reads()
    if phase == 'sealed':
        site.ask('seal', site.image_id, '--wait')
    waiting.until(lambda: site.running('nova_qcache.cmd.keeper'), 'the keeper')
    is_seen = 'nobody' not in between
    if not is_seen:
        for keeper in site.running('nova_qcache.cmd.keeper'):
            keeper.send_signal(signal.SIGSTOP)
    libvirt.virsh('managedsave', 'one')
    if is_seen:
        waiting.until(lambda: not _names_ours(site, libvirt), 'a plain memory image')
    if between == 'nothing':
        site.see_off()
    else:
        _switch_off(site)
    if not is_seen:
        assert _names_ours(site, libvirt)
        assert libvirt.try_virsh('start', 'one').returncode != 0
        _keep(site)
        waiting.until(lambda: not _names_ours(site, libvirt), 'a plain memory image')
    libvirt.virsh('start', 'one')
    assert site.image_id not in libvirt.virsh('dumpxml', 'one')
    domain.wait_until_it_reads()


# -- the hook


def _hook(site: Site) -> str:
    """Return the hook of this host, which has the product in a Python of its own."""
    environment = ' '.join(f'{k}={v}' for k, v in site.product.environment.items())
    python = site.program('python', f'#!/bin/sh\n{environment} exec {site.product.python} "$@"\n')
    text = HOOK.read_text()
    assert 'python=/usr/bin/python3' in text
    return text.replace('python=/usr/bin/python3', f'python={python}')


def _start_recording(
    site: Site, libvirt: Libvirt, built: pathlib.Path, base: pathlib.Path
) -> CountingDomain:
    domain = CountingDomain(site, libvirt, Kernel(site, built), base)
    domain.start(site.boot_plan(base))
    domain.wait_until_it_reads()
    return domain


@pytest.mark.parametrize('how', ['managedsave', 'save'])
def test_with_the_hook_nothing_of_ours_has_to_be_there(
    site: Site, built: pathlib.Path, base: pathlib.Path, how: str
) -> None:
    libvirt = _libvirt(site, _hook(site))
    domain = _start_recording(site, libvirt, built, base)
    file = str(libvirt.folder / 'saved')
    libvirt.virsh(how, 'one', *([file] if how == 'save' else []))
    _switch_off(site)
    libvirt.virsh(*(['restore', file] if how == 'save' else ['start', 'one']))
    assert site.image_id not in libvirt.virsh('dumpxml', 'one')
    domain.wait_until_it_reads()


def test_a_hook_that_fails_changes_nothing(
    site: Site, built: pathlib.Path, base: pathlib.Path
) -> None:
    libvirt = _libvirt(site, HOOK.read_text().replace('python=/usr/bin/', 'python=/nowhere/'))
    domain = _start_recording(site, libvirt, built, base)
    libvirt.virsh('managedsave', 'one')
    libvirt.virsh('start', 'one')
    assert site.image_id in libvirt.virsh('dumpxml', 'one')
    domain.wait_until_it_reads()
