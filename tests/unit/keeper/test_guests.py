# SPDX-License-Identifier: Apache-2.0
"""Which paused guests go on, and for whom a recorder stays."""

import itertools
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.keeper.guests import Guests
from nova_qcache.model.states import Phase
from nova_qcache.qemu import overlay
from nova_qcache.recorder import respawn
from nova_qcache.system import processes
from nova_qcache.system.libvirt_domains import LibvirtDomains
from nova_qcache.system.libvirt_domains import Paused
from tests.unit import builders
from tests.unit.builders import KEY

UUID = '11111111-2222-3333-4444-555555555555'
ARGUMENTS = ['--config-file=/x']


@pytest.fixture
def domains():
    made = mock.create_autospec(LibvirtDomains, instance=True)
    made.paused.return_value = []
    made.living.return_value = []
    return made


@pytest.fixture
def clock():
    with mock.patch('nova_qcache.keeper.guests.time.monotonic', autospec=True) as made:
        made.return_value = 1000.0
        yield made


@pytest.fixture
def guests(paths, domains, clock):
    return Guests(paths, domains, ARGUMENTS)


@pytest.fixture
def daemon(paths):
    with mock.patch.object(processes, 'listener_pid', autospec=True, return_value=4711) as made:
        yield made
    assert {call.args for call in made.call_args_list} <= {(paths.nbd_socket(KEY),)}


def xml(path, target='vda'):
    return f"""<domain><devices><disk type='file' device='disk'>
    <source file='/instances/1/disk'/><target dev='{target}'/>
    <backingStore type='network'><source protocol='nbd' name='top'>
    <host transport='unix' socket='{path}'/></source><backingStore/></backingStore>
    </disk></devices></domain>"""


def paused(paths, failed=('vda',), *, full=False, document=None):
    document = document or xml(paths.nbd_socket(KEY))
    return Paused(UUID, 'one', document, frozenset(failed), full)


def test_nobody(guests, domains):
    guests.run_once()
    domains.resume.assert_not_called()


def test_one_goes_on(guests, paths, domains, daemon):
    domains.paused.return_value = [paused(paths)]
    guests.run_once()
    domains.resume.assert_called_once_with(UUID)


def test_one_whose_daemon_is_not_back(guests, paths, domains):
    domains.paused.return_value = [paused(paths)]
    guests.run_once()
    domains.resume.assert_not_called()


@pytest.mark.parametrize(
    'change',
    [
        {'full': True},
        {'failed': ()},
        {'failed': ('vdb',)},
        {'document': xml('/elsewhere/x.nbd')},
        {'document': '<domain/>'},
    ],
)
def test_one_who_is_paused_for_something_else(guests, paths, domains, daemon, change):
    domains.paused.return_value = [paused(paths, **change)]
    guests.run_once()
    domains.resume.assert_not_called()


def test_repeats_are_bounded(guests, paths, domains, daemon, clock):
    domains.paused.return_value = [paused(paths)]
    times = []
    for _ in range(1000):
        before = domains.resume.call_count
        guests.run_once()
        if domains.resume.call_count > before:
            times.append(clock.return_value)
        clock.return_value += 1
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[:7] == [1, 2, 4, 8, 16, 32, 60]
    assert len([at for at in times if at < times[0] + 600]) == 12


@pytest.mark.parametrize(('seconds', 'waits'), [(9, True), (20, False)])
def test_pauses_begin_anew_after_a_guest_has_run_for_a_while(
    guests, paths, domains, daemon, clock, seconds, waits
):
    """Its daemon is killed again and again, and it is paused twice each time."""
    for _ in range(4):
        domains.paused.return_value = [paused(paths)]
        before = domains.resume.call_count
        guests.run_once()
        clock.return_value += 1
        guests.run_once()
        resumed = domains.resume.call_count - before
        domains.paused.return_value = []
        for _ in range(seconds):
            clock.return_value += 1
            guests.run_once()
    assert (resumed < 2) == waits


def test_another_day_it_is_resumed_again(guests, paths, domains, daemon, clock):
    domains.paused.return_value = [paused(paths)]
    for _ in range(1000):
        guests.run_once()
        clock.return_value += 1
        if domains.resume.call_count == 12:
            break
    clock.return_value += 601
    guests.run_once()
    assert domains.resume.call_count == 13


# -- a base that cannot be read


@pytest.fixture
def unreadable(recorder):
    """The recorder answers, and knows of blocks that cannot be read."""
    recorder.status.side_effect = None
    recorder.status.return_value = builders.status(unreadable_blocks=1)
    return recorder


def resumes(guests, domains, clock, seconds):
    """Return how often a domain is resumed in so many seconds, and is paused again each time."""
    before = domains.resume.call_count
    for _ in range(seconds):
        guests.run_once()
        clock.return_value += 1
    return domains.resume.call_count - before


def test_one_whose_base_cannot_be_read_is_not_resumed_in_vain(
    guests, paths, domains, daemon, clock, unreadable, caplog
):
    domains.paused.return_value = [paused(paths)]
    assert resumes(guests, domains, clock, 2000) == 2, 'something else may have paused it'
    (said,) = (each.message for each in caplog.records if each.levelname == 'ERROR')
    assert said.startswith('Domain one stays paused: the base of its disk vda cannot be read')


def test_one_whose_base_can_be_read_again(
    guests, paths, domains, daemon, clock, unreadable, caplog
):
    domains.paused.return_value = [paused(paths)]
    resumes(guests, domains, clock, 100)
    unreadable.status.return_value = builders.status()
    assert resumes(guests, domains, clock, 1) == 1


def test_another_daemon_is_another_reason(guests, paths, domains, daemon, clock, unreadable):
    """A block that another guest wanted says nothing of one whose daemon was killed."""
    domains.paused.return_value = [paused(paths)]
    resumes(guests, domains, clock, 100)
    daemon.return_value += 1
    assert resumes(guests, domains, clock, 100) == 2


# -- those who will come back


def test_who_is_not_connected_holds_the_recorder(guests, paths, domains, recorder):
    respawn.note(paths, KEY, [])
    domains.living.return_value = [('domain one', xml(paths.nbd_socket(KEY)))] * 2
    recorder.status.side_effect = None
    recorder.status.return_value = builders.status(Phase.SERVING, guests=1)
    guests.run_once()
    recorder.hold.assert_called_once_with()


def test_who_is_connected_needs_no_hold(guests, paths, domains, recorder):
    respawn.note(paths, KEY, [])
    domains.living.return_value = [('domain one', xml(paths.nbd_socket(KEY)))]
    recorder.status.side_effect = None
    recorder.status.return_value = builders.status(Phase.SERVING, guests=1)
    guests.run_once()
    recorder.hold.assert_not_called()


def test_it_looks_at_all_domains_now_and_then(guests, domains, clock):
    for _ in range(25):
        guests.run_once()
        clock.return_value += 1
    assert domains.living.call_count == 3


def test_a_lost_respawn_spec_is_known_by_the_guest(guests, paths, domains, recorder):
    domains.living.return_value = [('domain one', xml(paths.nbd_socket(KEY)))]
    base = overlay.Backing('/base', 'raw')
    with mock.patch.object(overlay, 'backing', autospec=True, return_value=base) as asked:
        guests.run_once()
    assert str(asked.call_args.args[0]) == '/instances/1/disk'
    wanted = [*ARGUMENTS, '--base=/base', '--base-format=raw', KEY.image_id]
    assert respawn.read(paths, KEY) == wanted


@pytest.mark.parametrize('answer', [None, exception.InvalidBase(base='x', reason='y', remedy='z')])
def test_a_guest_whose_base_nobody_knows(guests, paths, domains, recorder, answer):
    domains.living.return_value = [('domain one', xml(paths.nbd_socket(KEY)))]
    with mock.patch.object(overlay, 'backing', autospec=True, side_effect=[answer]):
        guests.run_once()
    assert respawn.read(paths, KEY) is None


def test_what_is_no_xml(guests, paths, domains):
    domains.living.return_value = [('domain one', '<domain')]
    with pytest.raises(exception.DomainsUnknown):
        guests.run_once()
