# SPDX-License-Identifier: Apache-2.0
"""A base that is away for a while makes reads wait; they do not fail."""

import pathlib

import psutil
import pytest

from tests.functional import bases
from tests.functional import sealed
from tests.functional import waiting
from tests.functional.guests import NbdGuest
from tests.functional.site import MIB
from tests.functional.site import Site
from tests.functional.watching import wait_for_looks

_LOOKS = 6
"""Of the recorder: a read that was begun has long got to the base by then."""


@pytest.fixture
def server(site: Site, base: pathlib.Path, serve: bases.Serve) -> bases.NbdServer:
    site.configure(recording_settle_seconds=1)  # it looks around four times a second
    return serve(base)


@pytest.mark.core
def test_reads_wait(site: Site, base: pathlib.Path, server: bases.NbdServer) -> None:
    plan = site.record(server.uri)
    with NbdGuest(site, plan) as guest, NbdGuest(site, plan) as other:
        guest.require(base, 0, 2 * MIB)
        server.stop()
        guest.begin(8 * MIB, MIB)
        wait_for_looks(plan['recorder_pid'], _LOOKS)
        assert guest.waits
        other.require(base, 0, 2 * MIB)  # what is recorded needs no base
        server.start()
        guest.finish(base, 8 * MIB, MIB)
        shown = site.ask('seal', site.image_id, '--wait')
        guest.require(base, 0, 16 * MIB)
    assert shown['cache_bytes'] > 3 * MIB
    sealed.require_sound(site, shown, base, None)


def test_a_seal_waits(site: Site, base: pathlib.Path, server: bases.NbdServer) -> None:
    """Whether it begins or not: nobody is cut off, and it is READY when the base is back."""
    plan = site.record(server.uri)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, 2 * MIB)
        server.stop()
        guest.begin(8 * MIB, MIB)
        wait_for_looks(plan['recorder_pid'], _LOOKS)
        site.ask('seal', site.image_id)
        waiting.until(lambda: site.show()['phase'] == 'sealing', 'the beginning of a seal')
        assert guest.waits
        shown = site.show()
        assert (shown['state'], shown['phase']) == ('RECORDING', 'sealing')
        server.start()
        guest.finish(base, 8 * MIB, MIB)
        shown = site.wait_for_state('READY')
        guest.require(base, 0, 16 * MIB)
    sealed.require_sound(site, shown, base, None)


def test_guests_after_the_seal_wait(
    site: Site, base: pathlib.Path, server: bases.NbdServer
) -> None:
    plan = site.record(server.uri)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, 2 * MIB)
        shown = site.ask('seal', site.image_id, '--wait')
        server.stop()
        guest.require(base, 0, 2 * MIB)
        guest.begin(8 * MIB, MIB)
        wait_for_looks(plan['recorder_pid'], _LOOKS)
        assert guest.waits
        server.start()
        guest.finish(base, 8 * MIB, MIB)
    sealed.require_sound(site, shown, base, None)


def test_a_base_that_never_comes_back(site: Site, base: pathlib.Path, serve: bases.Serve) -> None:
    """The guest sees an I/O error in the end; nothing hangs and nothing half-made stays."""
    site.configure(base_reconnect_seconds=1)
    server = serve(base)
    with NbdGuest(site, site.record(server.uri)) as guest:
        guest.require(base, 0, 2 * MIB)
        server.stop()
        assert guest.read(8 * MIB, MIB).startswith('error')
    site.see_off()
    assert not site.files()


def test_an_outage_is_no_end_of_a_boot(
    site: Site, base: pathlib.Path, server: bases.NbdServer
) -> None:
    """A guest that waits for its base has not read all it needs; a seal would make all wait."""
    site.configure(recording_idle_seconds=1)
    plan = site.record(server.uri)
    with NbdGuest(site, plan) as guest, NbdGuest(site, plan) as other:
        # It sees nothing of the time between the last growth and the beginning of the outage.
        recorder = psutil.Process(plan['recorder_pid'])
        recorder.suspend()
        guest.require(base, 0, 2 * MIB)
        server.stop()
        recorder.resume()
        guest.begin(8 * MIB, MIB)
        try:
            wait_for_looks(recorder.pid, 24)  # longer than recording_idle_seconds
            assert site.show()['phase'] == 'recording'
            other.require(base, 0, 2 * MIB)
        finally:
            server.start()
            guest.finish(base, 8 * MIB, MIB)
