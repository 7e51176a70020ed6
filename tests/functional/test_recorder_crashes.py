# SPDX-License-Identifier: Apache-2.0
"""kill -9 of recorder and daemon at every point: guests go on, no half-made cache is ever used."""

import contextlib
import os
import pathlib
import time
from typing import Any

import pytest

from nova_qcache.qemu import block_graph
from tests.functional import bases
from tests.functional import sealed
from tests.functional import waiting
from tests.functional.guests import file_node
from tests.functional.guests import Load
from tests.functional.guests import NbdGuest
from tests.functional.guests import wait_until_served
from tests.functional.monitor import Monitor
from tests.functional.site import MIB
from tests.functional.site import NEVER
from tests.functional.site import Site
from tests.functional.watching import WriterWatch

_LOAD = ('--clients=2', '--depth=2', '--size=65536', f'--bytes={128 * MIB}')


def _read_some(guest: NbdGuest, base: pathlib.Path) -> None:
    for offset in range(0, 8 * MIB, 2 * MIB):
        guest.require(base, offset, 512 * 1024)


def _qmp_socket(site: Site, plan: dict[str, Any]) -> pathlib.Path:
    stem = pathlib.Path(plan['socket']).stem
    return site.run_path / 'control' / f'{stem}.qmp'


@pytest.mark.core
def test_a_killed_recorder_is_succeeded(site: Site, base: pathlib.Path) -> None:
    with WriterWatch(site.cache_path) as watch:
        plan = site.record(base)
        with (
            NbdGuest(site, plan) as guest,
            Load(site, plan, base, *_LOAD, f'--hold={NEVER}') as load,
        ):
            _read_some(guest, base)
            site.kill(plan['recorder_pid'])
            _read_some(guest, base)  # the daemon serves on

            adopted = site.record(base)
            assert adopted['socket'] == plan['socket']
            assert adopted['daemon_pid'] == plan['daemon_pid']
            assert adopted['recorder_pid'] != plan['recorder_pid']
            assert (adopted['kind'], adopted['phase']) == ('RECORD', 'recording')
            load.wait_until_read()
            shown = site.ask('seal', site.image_id, '--wait')
            _read_some(guest, base)
            load.process.terminate()
            load.require_faultless()
    assert shown['cache_bytes'] > 8 * MIB
    sealed.require_sound(site, shown, base, file_node(base))
    assert watch.most_at_once == 1
    # The daemon, and before it the tools that made the empty file; no second daemon.
    assert plan['daemon_pid'] in watch.writers


def _interrupted(site: Site, plan: dict[str, Any], point: str) -> None:
    """Bring daemon and files to where the recorder was when it was killed while it sealed."""
    path = pathlib.Path(plan['path'])
    commands = [
        (command, arguments)
        for command, arguments in block_graph.sealing(path)
        if not arguments.get('node-name', '').startswith('refusing')  # nothing is
    ]
    reached = len(commands) if point in ('all', 'closed', 'renamed') else int(point)
    with Monitor(_qmp_socket(site, plan)) as monitor:
        for command, arguments in commands[:reached]:
            monitor.execute(command, arguments)
    if point in ('closed', 'renamed'):
        os.truncate(path, path.stat().st_size)
        path.chmod(0o440)
    if point == 'renamed':
        path.rename(path.with_suffix('.qcow2'))


@pytest.mark.parametrize(
    'point',
    [
        *('0', '2', '3', '5', '6', 'all'),  # commands of block_graph.sealing that were done
        *('closed', 'renamed'),  # all were, and the file is read-only; and has its last name
    ],
)
def test_a_recorder_killed_while_it_seals(site: Site, base: pathlib.Path, point: str) -> None:
    with WriterWatch(site.cache_path) as watch:
        plan = site.record(base)
        with NbdGuest(site, plan) as guest:
            _read_some(guest, base)
            site.kill(plan['recorder_pid'])
            _interrupted(site, plan, point)
            _read_some(guest, base)
            assert site.show()['state'] != 'READY'

            if point in ('0', '2', '3', '5'):  # it still records: the seal was never heard of
                site.record(base)
                site.ask('seal', site.image_id, '--wait')
            else:  # it goes on at once, and may be done before anybody can join
                site.qcache('record', site.image_id, f'--base={base}')
            shown = site.wait_for_state('READY')
            assert shown['daemon_pid'] == plan['daemon_pid']
            guest.require(base, 0, 16 * MIB)
    sealed.require_sound(site, shown, base, file_node(base))
    assert shown['cache_bytes'] > 2 * MIB
    assert watch.most_at_once == 1


@pytest.mark.parametrize('delay', [0.0, 0.02, 0.05])
def test_a_recorder_killed_at_some_moment_of_its_seal(
    site: Site, base: pathlib.Path, delay: float
) -> None:
    """The same without a script: wherever it is by then, what becomes READY is sound."""
    site.configure(start_keeper=True)
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        _read_some(guest, base)
        site.ask('seal', site.image_id)
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            site.kill(plan['recorder_pid'])
        _read_some(guest, base)
        # The keeper has a recorder see to the daemon, whatever there is of a cache.
        guest.require(base, 8 * MIB, MIB)
        shown = waiting.until(lambda: _sealed(site), 'the seal')
    site.end_keeper()
    sealed.require_sound(site, shown, base, file_node(base))


def _sealed(site: Site) -> dict[str, Any]:
    site.qcache('seal', site.image_id)  # it was killed before it had begun, perhaps
    shown = site.show()
    return shown if shown['state'] == 'READY' else {}


@pytest.mark.core
def test_a_killed_daemon_costs_the_recording(site: Site, base: pathlib.Path) -> None:
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        _read_some(guest, base)
        site.kill(plan['daemon_pid'])
        assert guest.read(0, 4096).startswith('error')

    wait_until_served(site, plan)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, 16 * MIB)
        waiting.until(lambda: not site.files(), 'the end of the dirty recording')
        (row,) = site.ask('list')
        assert (row['state'], row['guests']) == ('COLD', 1)
        again = site.record(base)
        assert again['socket'] != plan['socket']
        with NbdGuest(site, again) as other:
            _read_some(other, base)
            shown = site.ask('seal', site.image_id, '--wait')
        guest.require(base, 0, 16 * MIB)
    site.see_off()
    sealed.require_sound(site, shown, base, file_node(base))


@pytest.mark.core
def test_a_killed_daemon_after_the_seal_costs_nothing(site: Site, base: pathlib.Path) -> None:
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        _read_some(guest, base)
        shown = site.ask('seal', site.image_id, '--wait')
        site.kill(plan['daemon_pid'])

    wait_until_served(site, plan)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, 16 * MIB)
    sealed.require_sound(site, shown, base, file_node(base))
    assert site.plan(base)['kind'] == 'PLAY'


def test_guests_without_a_recording_ask_their_base_for_reads_alone(
    site: Site, base: pathlib.Path, serve: bases.Serve
) -> None:
    server = serve(base)
    plan = site.record(server.uri)
    site.kill(plan['daemon_pid'])
    wait_until_served(site, plan)
    with NbdGuest(site, plan) as guest:
        asked, count = server.questions(), server.bytes_read()
        guest.require(base, 4 * MIB, MIB)
        assert server.bytes_read() >= count + MIB
        assert server.questions() == asked, 'each question is a way to the base and back'


@pytest.mark.parametrize('first', ['recorder_pid', 'daemon_pid'])
def test_both_killed(site: Site, base: pathlib.Path, first: str) -> None:
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        _read_some(guest, base)
        second = 'daemon_pid' if first == 'recorder_pid' else 'recorder_pid'
        for which in (first, second):
            with contextlib.suppress(ProcessLookupError):
                site.kill(plan[which])
    for process in site.recorders():  # a daemon that the recorder started again before it died
        site.kill(process.pid)
    dirty = pathlib.Path(plan['path'])
    if dirty.exists():
        # BROKEN: it was killed when it had removed the record, and not the file yet.
        assert site.show()['state'] in ('DIRTY', 'BROKEN')
        # Bytes that no recording may take over
        with open(dirty, 'r+b') as file:
            file.seek(0, os.SEEK_END)
            file.write(b'dirt' * 1024)

    again = site.record(base)
    assert again['state'] == 'RECORDING'
    assert again['cache_bytes'] < MIB // 2
    assert b'dirt' * 8 not in pathlib.Path(again['path']).read_bytes()
    with NbdGuest(site, again) as guest:
        _read_some(guest, base)
        shown = site.ask('seal', site.image_id, '--wait')
    sealed.require_sound(site, shown, base, file_node(base))
