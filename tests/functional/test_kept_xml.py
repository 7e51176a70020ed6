# SPDX-License-Identifier: Apache-2.0
"""XML that libvirt keeps for a later start of a guest, of a real libvirt."""

import pathlib
from typing import Any

import pytest

from tests.functional import real_guests
from tests.functional.real_guests import Kernel
from tests.functional.real_libvirt import Domain
from tests.functional.real_libvirt import Libvirt
from tests.functional.site import Site


@pytest.fixture(scope='session')
def built() -> pathlib.Path:
    return real_guests.build()


@pytest.fixture
def libvirt(site: Site) -> Libvirt:
    made = Libvirt(site)
    site.configure(libvirt_uri=made.uri)
    return made


@pytest.fixture
def domain(site: Site, libvirt: Libvirt, built: pathlib.Path, base: pathlib.Path) -> Domain:
    return Domain(libvirt, site, Kernel(site, built), base)


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
    domain: Domain,
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
