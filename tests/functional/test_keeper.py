# SPDX-License-Identifier: Apache-2.0
"""The keeper: whatever is killed under guests comes back by itself."""

import contextlib
import os
import pathlib
import re
import signal
from typing import Any

import psutil
import pytest

from tests.functional import sealed
from tests.functional import users
from tests.functional import waiting
from tests.functional.guests import file_node
from tests.functional.guests import NbdGuest
from tests.functional.guests import wait_until_served
from tests.functional.site import MIB
from tests.functional.site import Site

pytestmark = pytest.mark.usefixtures('keeping')


def _keepers(site: Site) -> list[psutil.Process]:
    return site.running('nova_qcache.cmd.keeper')


def _has_another_recorder(site: Site, plan: dict[str, Any]) -> bool:
    shown = site.qcache('show', site.image_id, '-f', 'json')
    found = re.search(r'"recorder_pid": ([0-9]+)', shown.stdout)
    return found is not None and int(found[1]) != plan['recorder_pid']


@pytest.mark.core
def test_a_killed_recorder_is_replaced(site: Site, base: pathlib.Path) -> None:
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, 4 * MIB)
        site.kill(plan['recorder_pid'])
        waiting.until(lambda: _has_another_recorder(site, plan), 'another recorder')
        guest.require(base, 4 * MIB, 4 * MIB)
        shown = site.show()
        assert (shown['phase'], shown['daemon_pid']) == ('recording', plan['daemon_pid'])
        shown = site.ask('seal', site.image_id, '--wait')
    assert shown['cache_bytes'] > 8 * MIB
    sealed.require_sound(site, shown, base, file_node(base))


@pytest.mark.core
@pytest.mark.parametrize('seal', [False, True], ids=['recording', 'sealed'])
@pytest.mark.parametrize('first', ['recorder_pid', 'daemon_pid'])
def test_both_killed(site: Site, base: pathlib.Path, first: str, seal: bool) -> None:
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, 4 * MIB)
        if seal:
            site.ask('seal', site.image_id, '--wait')
        second = 'daemon_pid' if first == 'recorder_pid' else 'recorder_pid'
        for which in (first, second):
            with contextlib.suppress(ProcessLookupError):
                site.kill(plan[which])
        wait_until_served(site, plan)
        with NbdGuest(site, plan) as returned:
            returned.require(base, 0, 16 * MIB)
            # What was being recorded is dirty, and goes once the guests are served.
            waiting.until(lambda: bool(site.files()) == seal, 'the end of the recording')
    site.see_off()
    assert site.plan(base)['kind'] == ('PLAY' if seal else 'RECORD')


def test_a_killed_keeper_is_replaced(site: Site, base: pathlib.Path) -> None:
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        waiting.until(lambda: _keepers(site), 'the keeper')
        (keeper,) = _keepers(site)
        site.kill(keeper.pid)
        waiting.until(lambda: _keepers(site), 'another keeper')
        assert len(_keepers(site)) == 1
        guest.require(base, 0, MIB)


def test_all_three_killed_and_a_boot_comes(site: Site, base: pathlib.Path) -> None:
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, MIB)
        waiting.until(lambda: _keepers(site), 'the keeper')
        for process in [*_keepers(site), *site.recorders()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        again = site.boot_plan(base)
        assert again['kind'] in ('RECORD', 'PLAIN')
        wait_until_served(site, plan)


def test_it_leaves_by_itself(site: Site, base: pathlib.Path) -> None:
    site.configure(guest_grace_seconds=0)
    with NbdGuest(site, site.record(base)) as guest:
        guest.require(base, 0, MIB)
        site.wait_until_seen()
        waiting.until(lambda: _keepers(site), 'the keeper')
    waiting.until(lambda: not _keepers(site) and not site.recorders(), 'its end')
    assert not list((site.run_path / 'control').iterdir())


def test_it_leaves_when_told(site: Site, base: pathlib.Path) -> None:
    with NbdGuest(site, site.record(base)):
        waiting.until(lambda: _keepers(site), 'the keeper')
        (keeper,) = _keepers(site)
        keeper.send_signal(signal.SIGSTOP)
        keeper.send_signal(signal.SIGTERM)
        keeper.send_signal(signal.SIGCONT)
        waiting.until(lambda: keeper not in _keepers(site), 'its end')


def test_a_damaged_cache_is_recorded_again(
    site: Site, base: pathlib.Path, cache: dict[str, Any]
) -> None:
    sealed.damage(pathlib.Path(cache['path']))
    assert site.boot_plan(base)['kind'] == 'PLAIN'
    waiting.until(lambda: not site.files(), 'room for another one')
    assert site.plan(base)['kind'] == 'RECORD'


def test_a_cache_that_was_restored_plays(
    site: Site, base: pathlib.Path, cache: dict[str, Any]
) -> None:
    path = pathlib.Path(cache['path'])
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    os.chown(path, users.PRODUCT.uid, users.PRODUCT.gid)
    plan = site.boot_plan(base)
    assert plan['kind'] == 'PLAIN'
    assert 'replaced or written to' in plan['reason']
    revalidations = site.run_path / 'examinations'
    waiting.until(lambda: not list(revalidations.glob('*.examine')), 'its turn')
    assert site.plan(base)['kind'] == 'PLAY'
    assert path.stat().st_mode & 0o777 == 0o440, 'as it was sealed'
