# SPDX-License-Identifier: Apache-2.0
"""Guests that somebody saves: when they are looked at, and who stays for them."""

import logging
from operator import attrgetter
import threading
import time
from types import SimpleNamespace
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.keeper import saved as saved_module
from nova_qcache.keeper.lifecycle import Lifecycle
from nova_qcache.keeper.saved import SavedGuests
from nova_qcache.system.libvirt_domains import LibvirtDomains
from nova_qcache.system.libvirt_domains import Saved
from tests import chains
from tests.unit.builders import KEY

ERROR = RuntimeError('new xml too large to fit in file')


def xml(chain):
    return f'<domain><devices><disk>{chain}</disk></devices></domain>'


@pytest.fixture
def recording(paths):
    return xml(chains.record(paths.nbd_socket(KEY)))


@pytest.fixture
def playing(paths):
    return xml(chains.play(paths.sealed(KEY), '/base'))


@pytest.fixture
def unreadable():
    return '<domain>'


@pytest.fixture
def domains():
    made = mock.create_autospec(LibvirtDomains, instance=True)
    made.strip_saved.return_value = []
    made.living.return_value = []
    return made


@pytest.fixture
def events():
    return mock.create_autospec(Lifecycle, instance=True)


@pytest.fixture
def happened():
    return threading.Event()


@pytest.fixture
def saved(paths, leases, domains, events, happened):
    with mock.patch.object(saved_module, '_EVERY_SECONDS', 0):
        yield SavedGuests(paths, leases, domains, events, happened)


def test_it_looks_after_it_has_begun_to_listen(saved, domains, events):
    events.listen.side_effect = lambda: domains.strip_saved.assert_not_called()
    saved.run_once()
    events.listen.assert_called_once_with()
    domains.strip_saved.assert_called_once_with()


def test_it_looks_again_at_each_event(saved, domains, happened):
    """Also at one that comes while it looks."""
    looks = iter([happened.set, happened.set, lambda: None])
    domains.strip_saved.side_effect = lambda: next(looks)() or []
    saved.run_once()
    assert domains.strip_saved.call_count == 3


def test_a_boot_of_many_asks_for_the_xml_of_all_only_now_and_then(saved, domains, happened):
    """Meanwhile one that has just started may have a chain."""
    clock = [time.monotonic() + 1e6]
    needed = []

    def strip_saved():
        needed.append(saved.is_needed())
        clock[0] += 1
        if domains.strip_saved.call_count < 8:
            happened.set()
        return []

    domains.strip_saved.side_effect = strip_saved
    with mock.patch.object(time, 'monotonic', autospec=True, side_effect=lambda: clock[0]):
        saved.run_once()
        assert domains.living.call_count == 2
        # It has asked at the first and at the sixth.
        assert needed == [False, False, True, True, True, True, False, True]
        assert saved.is_needed()
        saved.run_once()
        assert not saved.is_needed()


def test_nobody_is_there(saved):
    saved.run_once()
    assert not saved.is_needed()


@pytest.mark.parametrize('kind', ['recording', 'playing'])
def test_as_long_as_a_guest_runs_on_a_chain_somebody_is_there(saved, domains, request, kind):
    domains.living.return_value = [
        ('domain one', xml('')),
        ('domain two', request.getfixturevalue(kind)),
    ]
    saved.run_once()
    assert saved.is_needed()
    domains.living.return_value = [('domain one', xml(''))]
    saved.run_once()
    assert not saved.is_needed()


def test_a_guest_whose_xml_nobody_can_read_may_have_a_chain(saved, domains, unreadable):
    domains.living.return_value = [('domain one', unreadable), ('domain two', xml(''))]
    saved.run_once()
    assert saved.is_needed()


@pytest.mark.parametrize('fails', ['events.listen', 'domains.strip_saved', 'domains.living'])
def test_until_libvirt_has_told_somebody_is_there_for_a_while(saved, events, domains, fails):
    asked = attrgetter(fails)(SimpleNamespace(events=events, domains=domains))
    asked.side_effect = exception.DomainsUnknown(uri='x', reason='not there yet')
    assert saved.is_needed()
    with pytest.raises(exception.DomainsUnknown):
        saved.run_once()
    assert saved.is_needed()
    much_later = time.monotonic() + 600
    with mock.patch.object(time, 'monotonic', autospec=True, return_value=much_later):
        assert not saved.is_needed()
    asked.side_effect = None
    saved.run_once()
    assert not saved.is_needed()


def test_a_boot_that_is_on_its_way_needs_somebody(saved, leases):
    saved.run_once()
    leases.take('an-instance', KEY)
    assert saved.is_needed()
    leases.release('an-instance')
    assert not saved.is_needed()


def test_who_does_not_tell_changes_nothing(saved, domains, playing):
    domains.living.return_value = [('domain one', playing)]
    saved.run_once()
    domains.living.side_effect = exception.DomainsUnknown(uri='x', reason='away')
    with pytest.raises(exception.DomainsUnknown):
        saved.run_once()
    assert saved.is_needed()


def test_one_that_was_stripped_needs_nobody(saved, domains, recorder, recording, caplog):
    domains.strip_saved.return_value = [Saved('one', recording)]
    saved.run_once()
    assert not saved.is_needed()
    recorder.hold.assert_not_called()
    assert [each for each in caplog.records if each.levelno > logging.INFO] == []


def test_one_that_cannot_be_stripped_keeps_its_recorder(
    saved, paths, domains, recorder, recording, caplog
):
    domains.strip_saved.return_value = [Saved('one', recording, ERROR)]
    for _ in range(3):
        saved.run_once()
    assert saved.is_needed()
    assert recorder.hold.call_count == 3
    said = [each.getMessage() for each in caplog.records if each.levelno > logging.INFO]
    assert said == [f'Failed to remove the cache from the saved state of domain one: {ERROR}']


def test_each_one_that_cannot_be_stripped_is_named(saved, domains, caplog):
    """Nova's names of domains differ in digits only."""
    names = ['instance-00000001', 'instance-00000002']
    domains.strip_saved.return_value = [Saved(name, '', ERROR) for name in names]
    for _ in range(3):
        saved.run_once()
    said = [each.getMessage() for each in caplog.records if each.levelno > logging.INFO]
    assert said == [
        f'Failed to remove the cache from the saved state of domain {name}: {ERROR}'
        for name in names
    ]


@pytest.mark.parametrize('what', ['playing', 'unreadable', None])
def test_one_that_cannot_be_stripped_and_names_no_recorder(
    saved, domains, recorder, request, what
):
    document = request.getfixturevalue(what) if what else ''
    domains.strip_saved.return_value = [Saved('one', document, ERROR)]
    saved.run_once()
    assert saved.is_needed()
    recorder.hold.assert_not_called()
