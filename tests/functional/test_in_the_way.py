# SPDX-License-Identifier: Apache-2.0
"""What no boot can use keeps no image plain; what serves its guests is seen and can be ended."""

import pathlib
import shutil
from typing import Any

import pytest

from tests.functional import bases
from tests.functional import sealed
from tests.functional import waiting
from tests.functional.guests import NbdGuest
from tests.functional.site import MIB
from tests.functional.site import Site


@pytest.mark.core
def test_a_damaged_cache_is_recorded_again_beside_it(
    site: Site, base: pathlib.Path, cache: dict[str, Any]
) -> None:
    """It stays for as long as guests read it, or for good where expiry is switched off."""
    sealed.damage(pathlib.Path(cache['path']))
    assert site.qcache('verify', site.image_id).returncode == 1
    assert site.show()['state'] == 'STALE'
    plan = site.boot_plan(base)
    assert (plan['kind'], plan['revision']) == ('RECORD', 2)
    with NbdGuest(site, {**plan, 'export': 'top'}) as guest:
        guest.require(base, 0, 4 * MIB)
        shown = site.ask('seal', site.image_id, '--wait')
    assert (shown['state'], shown['revision']) == ('READY', 2)
    assert site.plan(base)['cache'] == shown['path'] != cache['path']
    assert pathlib.Path(cache['path']).exists()
    (row,) = site.ask('verify', site.image_id)
    assert row['result'] == 'equal'


def test_a_base_that_was_moved(site: Site, base: pathlib.Path, cache: dict[str, Any]) -> None:
    """With the counter beside it, as when ``instances_path`` changes."""
    moved = site.make_folder('moved') / base.name
    for path in base.parent.iterdir():
        shutil.move(path, moved.parent)
    plan = site.boot_plan(moved)
    assert (plan['kind'], plan['revision']) == ('RECORD', 2)
    with NbdGuest(site, {**plan, 'export': 'top'}) as guest:
        guest.require(moved, 0, 4 * MIB)
        site.ask('seal', site.image_id, '--wait')
    assert site.plan(moved)['kind'] == 'PLAY'
    assert {row['state'] for row in site.ask('list')} == {'READY', 'STALE'}


def test_a_recording_that_fails_costs_no_cache(
    site: Site, base: pathlib.Path, cache: dict[str, Any]
) -> None:
    empty = site.bases / 'empty'
    empty.touch()
    for other in (empty, site.bases / 'no-such', 'nbd://127.0.0.1:1/x'):
        done = site.qcache('record', site.image_id, f'--base={other}')
        assert done.returncode == 1, done
    assert site.show()['state'] == 'READY'
    assert site.plan(base)['kind'] == 'PLAY'


def test_what_serves_guests_of_a_base_that_was_given_up(site: Site, base: pathlib.Path) -> None:
    other = bases.make_raw(site, 16 * MIB, 'other.raw')
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, MIB)
        site.record(other)

        def given_up() -> bool:
            rows = site.ask('list')
            return {(row['state'], row['guests']) for row in rows} == {
                ('RECORDING', 0),
                ('COLD', 1),
            }

        waiting.until(given_up, 'the end of the first recording')
        done = site.qcache('remove', site.image_id)
        assert (done.returncode, '1 guests read' in done.stderr) == (1, True), done
        guest.require(base, MIB, MIB)
    waiting.until(lambda: site.qcache('remove', site.image_id).returncode == 0, 'no guest')
    # It is over for who asks it, and its process has still to end.
    waiting.until(lambda: not site.recorders(), 'the end of the recorders')
    assert site.ask('list') == []


def test_a_daemon_whose_recorder_has_died(site: Site, base: pathlib.Path) -> None:
    plan = site.record(base)
    site.kill(plan['recorder_pid'])
    (row,) = site.ask('list')
    assert row['state'] == 'DIRTY'
    site.ask('remove', site.image_id, '--force')
    assert not site.recorders()
    assert site.ask('list') == []
