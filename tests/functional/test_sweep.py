# SPDX-License-Identifier: Apache-2.0
"""What killed processes left is cleared away; what lives is left alone. And a recorder needs
nothing of the installation that it was started from."""

import json
import pathlib
import shutil
import signal
import tempfile
from typing import Any
import uuid

import psutil
import pytest

from tests.functional import account
from tests.functional import bases
from tests.functional import installation
from tests.functional import sealed
from tests.functional import waiting
from tests.functional.guests import file_node
from tests.functional.guests import NbdGuest
from tests.functional.guests import wait_until_served
from tests.functional.site import MANAGER
from tests.functional.site import MIB
from tests.functional.site import Site

_SWEEP_FOR_LONG = """
print('sweeping', flush=True)
while True:
    assert not manager.clean_up()
"""


def _sweep(site: Site) -> list[str]:
    done = site.manage('print(json.dumps([key.image_id for key in manager.clean_up()]))')
    swept: list[str] = json.loads(done.stdout)
    return swept


def _remains(site: Site) -> list[pathlib.Path]:
    folders = (site.run_path / 'guests', site.run_path / 'control')
    return sorted(path for folder in folders for path in folder.iterdir()) + site.files()


@pytest.mark.core
def test_both_were_killed(site: Site, base: pathlib.Path) -> None:
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, MIB)
        site.kill(plan['recorder_pid'])
        site.kill(plan['daemon_pid'])
    assert len(_remains(site)) >= 4
    assert _sweep(site) == [site.image_id]
    assert _remains(site) == []
    assert _sweep(site) == []
    assert site.plan(base)['kind'] == 'RECORD'


def test_what_lives_goes_on(site: Site, base: pathlib.Path) -> None:
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, MIB)
        before = _remains(site)
        assert _sweep(site) == []
        assert _remains(site) == before
        assert site.show()['state'] == 'RECORDING'
        guest.require(base, MIB, MIB)
        # A daemon without its recorder, too: the next one takes it over.
        site.kill(plan['recorder_pid'])
        assert _sweep(site) == []
        assert _remains(site) == before
        guest.require(base, 2 * MIB, MIB)
        assert site.record(base)['daemon_pid'] == plan['daemon_pid']
        guest.require(base, 3 * MIB, MIB)
        shown = site.ask('seal', site.image_id, '--wait')
    assert shown['cache_bytes'] > 4 * MIB, 'what was recorded before the sweeps is in it'
    sealed.require_sound(site, shown, base, file_node(base))


def test_the_dead_among_the_living(site: Site, base: pathlib.Path) -> None:
    dead = site.record(base)
    dead_id = site.image_id
    site.image_id = str(uuid.uuid4())
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        site.kill(dead['recorder_pid'])
        site.kill(dead['daemon_pid'])
        guest.require(base, 0, MIB)
        assert _sweep(site) == [dead_id]
        assert not [path for path in _remains(site) if path.name.startswith(dead_id)]
        guest.require(base, MIB, MIB)
        assert site.show()['state'] == 'RECORDING'


def test_a_cleanup_while_recorders_start(site: Site, base: pathlib.Path) -> None:
    """It holds their lock for a moment, and takes nothing of theirs."""
    sweeps = [
        site.start([site.product.python, '-c', MANAGER + _SWEEP_FOR_LONG, str(site.config)])
        for _ in range(2)
    ]
    try:
        for sweeping in sweeps:
            assert sweeping.stdout is not None
            assert sweeping.stdout.readline() == 'sweeping\n'
        for _ in range(2):
            plan = site.record(base)
            with NbdGuest(site, plan) as guest:
                guest.require(base, 0, MIB)
                assert site.boot_plan(base)['kind'] == 'RECORD'
            assert site.qcache('remove', site.image_id).returncode == 0
    finally:
        for sweeping in sweeps:
            sweeping.kill()
        said = [sweeping.communicate()[1] for sweeping in sweeps]
    assert said == ['', '']


@pytest.mark.parametrize('trouble', ['none', 'daemon', 'told to end'])
def test_the_installation_goes_while_a_recorder_works(
    book: account.Account, product: installation.Installation, trouble: str
) -> None:
    """Nothing of it is imported late, neither for the seal nor for what goes wrong."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix='qct-gone-', dir='/tmp'))
    try:
        site = Site(book, installation.copy(folder))
        if trouble == 'none':
            site.configure(recording_idle_seconds=1, recording_settle_seconds=1)
        base = bases.make_raw(site, 16 * MIB)
        plan = site.record(base)
        recorder = psutil.Process(plan['recorder_pid'])
        assert recorder.environ()['PYTHONPATH'] == str(folder)
        with NbdGuest(site, plan) as guest:
            # Or it might have sealed before its installation is gone.
            recorder.suspend()
            guest.require(base, 0, MIB)
            shutil.rmtree(folder)
            site.use(product)
            recorder.resume()
            guest.require(base, MIB, MIB)
            if trouble == 'none':
                _require_sealed(site, base, guest, 'idle')
            elif trouble == 'daemon':
                site.kill(plan['daemon_pid'])
                _require_served_again(site, base, plan)
            else:
                recorder.send_signal(signal.SIGTERM)
                waiting.until(lambda: recorder not in site.recorders(), 'the end of the recorder')
                guest.require(base, 2 * MIB, MIB)
                assert site.record(base)['daemon_pid'] == plan['daemon_pid']
                site.ask('seal', site.image_id)
                _require_sealed(site, base, guest, 'operator')
        site.see_off()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert list((site.run_path / 'control').iterdir()) == [], 'it ended in order'


def _require_sealed(site: Site, base: pathlib.Path, guest: NbdGuest, why: str) -> None:
    shown = site.wait_for_state('READY')
    assert shown['note'] == why
    guest.require(base, 0, 16 * MIB)
    sealed.require_sound(site, shown, base, file_node(base))
    assert site.qcache('verify', site.image_id).returncode == 0
    assert site.plan(base)['kind'] == 'PLAY'


def _require_served_again(site: Site, base: pathlib.Path, plan: dict[str, Any]) -> None:
    wait_until_served(site, plan)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, 16 * MIB)
    waiting.until(lambda: not site.files(), 'the end of the dirty recording')
