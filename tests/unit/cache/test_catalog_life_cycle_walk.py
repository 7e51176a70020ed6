# SPDX-License-Identifier: Apache-2.0
"""Each state of a cache, each thing that may happen to it, and a crash at each of its steps.

What :mod:`tests.unit.cache.test_catalog_life_cycle` leaves out stands at the end: it does not hold
yet.
"""

from collections.abc import Callable
import contextlib
import itertools
import os

import pytest

from nova_qcache import exception
from nova_qcache.cache import sealed_file
from nova_qcache.model.key import CacheKey
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import State
from tests.unit import builders
from tests.unit.builders import KEY
from tests.unit.sites import memory_folder
from tests.unit.sites import NEXT
from tests.unit.sites import Site
from tests.unit.syscalls import kill
from tests.unit.syscalls import Killed
from tests.unit.syscalls import Syscalls

REFUSED = 'refused'


def leave_renamed(site: Site) -> None:
    """RECORDING, and a recorder was killed while it sealed."""
    site.warm()
    site.paths.recording(KEY).rename(site.paths.sealed(KEY))


def leave_stale(site: Site) -> None:
    site.catalog.retire(site.ready(), '')


def leave_lost(site: Site) -> None:
    """COLD, and a file is left."""
    site.ready()
    site.paths.record(KEY).unlink()


BEGINNINGS: dict[str, Callable[[Site], object]] = {
    'COLD': lambda site: None,
    'RECORDING': Site.warm,
    'READY': Site.ready,
    'STALE': leave_stale,
    'COLD, a file': leave_lost,
    'RECORDING, renamed': leave_renamed,
}


def seal(site: Site) -> None:
    recording, sealed = site.paths.recording(KEY), site.paths.sealed(KEY)
    path = recording if recording.exists() else sealed
    facts = builders.sealed()
    if path.exists():
        facts = sealed_file.describe(path, sealed_file.digest(path), FinishReason.IDLE)
    site.catalog.seal(builders.record(), facts)


def require_nobody() -> None:
    raise exception.CacheInUse(path='', reason='it is leased', remedy='Wait')


EVENTS: dict[str, Callable[[Site], object]] = {
    'begin': lambda site: site.catalog.begin(builders.record()),
    'seal': seal,
    'retire': lambda site: site.catalog.retire(as_ready(site), ''),
    'refresh': lambda site: site.catalog.refresh(as_ready(site)),
    'carry over': lambda site: site.catalog.retag(as_ready(site), NEXT.generation),
    'discard': lambda site: site.catalog.discard(KEY),
    'discard a recording': lambda site: site.catalog.discard_recording(KEY),
    'discard while leased': lambda site: site.catalog.discard(KEY, require_nobody),
    'lease': lambda site: site.catalog.lease(KEY, lambda: site.leases.take('x', KEY)),
    'sweep': Site.clean_up,
    'write of the base': lambda site: site.generations.raise_before_write(site.source),
}


def as_ready(site: Site) -> CacheRecord:
    record = site.catalog.load(KEY)
    return record if record and record.sealed else builders.record(State.READY)


NEXT_STATES = {
    'begin': {'COLD': 'RECORDING'},
    'seal': {'RECORDING': 'READY'},
    'retire': {'COLD': 'COLD', 'RECORDING': 'RECORDING', 'READY': 'STALE', 'STALE': 'STALE'},
    'carry over': {'READY': 'STALE'},
    'discard': {'COLD': 'COLD', 'RECORDING': 'COLD', 'READY': 'COLD', 'STALE': 'COLD'},
    'discard while leased': {},
    'discard a recording': {
        'COLD': 'COLD',
        'RECORDING': 'COLD',
        'READY': 'READY',
        'STALE': 'STALE',
    },
    'sweep': {'COLD': 'COLD', 'RECORDING': 'COLD', 'READY': 'READY', 'STALE': 'STALE'},
}
"""By event and state; what is not there is refused. All other events change no state."""


def state_of(site: Site, key: CacheKey = KEY) -> str:
    return site.cache(key).partition(' ')[0]


@pytest.fixture
def folder():
    with memory_folder() as made:
        yield made


@pytest.mark.parametrize('event', EVENTS)
@pytest.mark.parametrize('beginning', BEGINNINGS)
def test_each_state_and_event_and_crash(folder, beginning, event):
    state = beginning.partition(',')[0]
    wanted = NEXT_STATES.get(event, {}).get(state, REFUSED if event in NEXT_STATES else state)
    is_over = False
    for cut in itertools.count():
        site = Site(folder / str(cut))
        BEGINNINGS[beginning](site)
        said = ''
        with Syscalls(site.folder, cut, kill) as calls:
            try:
                EVENTS[event](site)
                is_over = True
            except (exception.WrongState, exception.CacheInUse):
                said, is_over = REFUSED, True
            except Killed:
                pass
        after = state_of(site)
        assert said == (REFUSED if is_over and wanted == REFUSED else '')
        if is_over:
            assert after == (state if wanted == REFUSED else wanted)
            assert (state_of(site, NEXT) == 'READY') is (event == 'carry over' and not said)
            break
        assert after in (state, wanted), f'after a crash at {calls.names[-1]}, call {cut}'
        site.clean_up()
        assert state_of(site) == ('COLD' if after == 'RECORDING' else after)
    assert cut > 0 or event == 'discard while leased', 'there was something to cut'


@pytest.mark.parametrize('event', ['refresh', 'retire'])
def test_a_verdict_on_a_cache_that_is_another_by_now(folder, event):
    """It was removed and recorded again while the old file was compared."""
    site = Site(folder / 'site')
    judged = site.ready()
    old = site.paths.sealed(KEY).open('rb')  # whoever compares has it open: its inode is not free
    site.catalog.discard(KEY)
    now = builders.ready(site.catalog, created_at=judged.created_at + 60)
    with old, contextlib.suppress(exception.WrongState):
        if event == 'refresh':
            site.catalog.refresh(judged)
        else:
            site.catalog.retire(judged, 'its digest is another')
    assert site.catalog.load(KEY) == now


# -- what the model does not find by itself


def test_a_generation_that_a_power_loss_takes_back(folder):
    """Whoever raises it is killed before the name is synced. A cache of that generation is made;
    the power goes, and takes the counter back; the next write gets the same generation again."""
    site = Site(folder / 'site')
    first = site.generations.current(site.source)
    disk = site.disk()
    with (
        Syscalls(site.folder, after=disk.watch) as calls,
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(Killed),
    ):
        counted = os.fsync

        def fsync(fd: int) -> None:
            if os.path.isdir(f'/proc/self/fd/{fd}'):
                kill()
            counted(fd)

        patch.setattr(os, 'fsync', fsync)
        site.generations.raise_before_write(site.source)
    assert 'rename' in calls.names
    with Syscalls(site.folder, after=disk.watch):
        used = site.generations.settled(site.source)  # by a recording that becomes READY
    assert used != first
    again = []
    for outcome in disk.outcomes():
        disk.leave(outcome)
        again.append(site.generations.raise_before_write(site.source))
    assert used not in again, 'READY, and of a base of before'
