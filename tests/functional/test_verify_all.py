# SPDX-License-Identifier: Apache-2.0
"""All caches of a host, read against what was sealed and against their bases."""

import json
import os
import pathlib
import uuid

import pytest

from tests.functional import bases
from tests.functional.guests import NbdGuest
from tests.functional.site import MIB
from tests.functional.site import Site

NUMBER = 4


@pytest.fixture
def recorded(site: Site) -> dict[str, pathlib.Path]:
    """READY caches of some images, each with a base of its own."""
    found = {}
    for number in range(NUMBER):
        base = bases.make_raw(site, 4 * MIB, f'base-{number}')
        site.image_id = str(uuid.uuid4())
        with NbdGuest(site, site.record(base)) as guest:
            guest.require(base, 0, 2 * MIB)
            site.ask('seal', site.image_id, '--wait')
        found[site.image_id] = base
    site.see_off()
    return found


def _state(site: Site, image_id: str) -> str:
    state: str = site.ask('show', image_id)['state']
    return state


def test_nothing_is_wrong(site: Site, recorded: dict[str, pathlib.Path]) -> None:
    rows = site.ask('verify', '--all')
    assert {row['image_id'] for row in rows} == set(recorded)
    assert {row['result'] for row in rows} == {'equal'}
    assert all(row['compared_bytes'] >= 2 * MIB for row in rows)


@pytest.mark.core
def test_each_for_itself(site: Site, recorded: dict[str, pathlib.Path]) -> None:
    """What is wrong with one says nothing of the others."""
    changed, damaged, gone, sound = recorded
    bases.flip(recorded[changed], MIB)
    path = pathlib.Path(site.ask('show', damaged)['path'])
    facts = path.stat()
    bases.flip(path, facts.st_size - 1)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    recorded[gone].rename(site.bases / 'away')

    done = site.qcache('verify', '--all', '-f', 'json')
    assert done.returncode == 1, done
    results = {row['image_id']: row['result'] for row in json.loads(done.stdout)}
    assert str(MIB) in results[changed]
    assert 'differs from what was sealed' in results[damaged]
    assert 'cannot be compared' in results[gone]
    assert str(recorded[gone]) in results[gone]
    assert results[sound] == 'equal'
    states = {image: _state(site, image) for image in recorded}
    assert states == {changed: 'STALE', damaged: 'STALE', gone: 'READY', sound: 'READY'}

    (site.bases / 'away').rename(recorded[gone])
    rows = site.ask('verify', '--all')
    assert {row['image_id']: row['result'] for row in rows} == {gone: 'equal', sound: 'equal'}


def test_no_cache(site: Site) -> None:
    assert site.ask('verify', '--all') == []


@pytest.mark.parametrize('arguments', [(), ('--all', str(uuid.UUID(int=5)))])
def test_one_image_or_all(site: Site, arguments: tuple[str, ...]) -> None:
    done = site.qcache('verify', *arguments)
    assert done.returncode == 2, done
    assert 'IMAGE' in done.stderr
    assert '--all' in done.stderr
