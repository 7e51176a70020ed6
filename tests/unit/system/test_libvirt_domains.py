# SPDX-License-Identifier: Apache-2.0
"""What libvirt is asked, and what its silence means."""

import sys
import threading
from typing import Any
from unittest import mock
from xml.parsers import expat

import pytest

from nova_qcache import exception
from nova_qcache.system import libvirt_domains
from nova_qcache.system import native
from nova_qcache.system import waiting
from nova_qcache.system.libvirt_domains import LibvirtDomains
from nova_qcache.system.libvirt_domains import Paused
from nova_qcache.system.libvirt_domains import Saved
from tests import chains
from tests.unit import fake_libvirt
from tests.unit.builders import KEY
from tests.unit.fake_libvirt import Connection
from tests.unit.fake_libvirt import Domain
from tests.unit.fake_libvirt import gone
from tests.unit.fake_libvirt import LibvirtError
from tests.unit.fake_libvirt import Snapshot

URI = 'qemu:///system'
REFUSED = LibvirtError("Failed to connect socket to '/var/run/libvirt/libvirt-sock-ro'")
LOST = LibvirtError('internal error: client socket is closed')


@pytest.fixture
def host():
    """A connection with one domain; the module libvirt is there as ``host.libvirt``."""
    connection: Any = Connection([Domain('one')])
    connection.libvirt = fake_libvirt.module(connection)
    with mock.patch.dict(sys.modules, {'libvirt': connection.libvirt}):
        yield connection


def documents(domains=None):
    return list((domains or LibvirtDomains(URI)).documents())


def unknown(domains=None):
    with pytest.raises(exception.DomainsUnknown) as caught:
        documents(domains)
    said = str(caught.value)
    assert 'set [qcache] libvirt_uri, or add --force' in said
    return said


def test_no_domain(host):
    host.domains = []
    assert documents() == []
    assert (host.libvirt.opened, host.closed) == ([URI], 1)


def test_a_transient_domain(host):
    host.domains = [Domain('one', '<running/>')]
    assert documents() == [('domain one', '<running/>')]


def test_all_documents_of_all_domains(host):
    host.domains = [
        Domain('one', '<running/>', '<next/>'),
        Domain('two', '<off/>', '<off/>', '<saved/>', snapshots=[Snapshot('a', '<then/>')]),
        Domain('three', '<only/>'),
    ]
    assert documents() == [
        ('domain one', '<running/>'),
        ('definition of domain one', '<next/>'),
        ('domain two', '<off/>'),
        ('definition of domain two', '<off/>'),
        ('saved domain two', '<saved/>'),
        ('snapshot a of domain two', '<then/>'),
        ('domain three', '<only/>'),
    ]
    assert host.closed == 1


def test_the_connection_is_read_only_and_of_the_uri(host):
    documents(LibvirtDomains('qemu+unix:///session'))
    assert host.libvirt.opened == ['qemu+unix:///session']


def test_libvirt_prints_nothing(host, capfd):
    documents()
    (handler,) = host.libvirt.handlers
    handler(None, (38, 7, 'Failed to connect', 2, '', None, None, -1, -1))
    assert capfd.readouterr() == ('', '')


def test_the_connection_is_closed_when_nobody_asks_on(host):
    found: Any = LibvirtDomains(URI).documents()
    next(found)
    assert host.closed == 0
    found.close()
    assert host.closed == 1


# -- domains that end meanwhile


def test_a_domain_that_ended_uses_nothing(host):
    host.domains = [Domain('one', fake_libvirt.gone()), Domain('two', '<running/>')]
    assert documents() == [('domain two', '<running/>')]


@pytest.mark.parametrize('where', ['live', 'inactive', 'saved'])
def test_a_domain_that_ends_between_two_questions(host, where):
    whole: dict[str, Any] = {'live': '<running/>', 'inactive': '<next/>', 'saved': '<saved/>'}
    host.domains = [Domain('one', **(whole | {where: fake_libvirt.gone()})), Domain('two')]
    found = dict(documents())
    assert sorted(set(found.values()) - {'<domain/>'}) == sorted(
        text for name, text in whole.items() if name != where
    )
    assert found['domain two'] == '<domain/>'


def test_a_snapshot_that_is_deleted_between_two_questions(host):
    deleted = LibvirtError('no snapshot', fake_libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT)
    host.domains = [Domain('one', snapshots=[Snapshot('a', deleted), Snapshot('b', '<b/>')])]
    assert documents()[1:] == [('snapshot b of domain one', '<b/>')]


QUESTIONS = ['name', 'isPersistent', 'hasManagedSaveImage', 'listAllSnapshots']


@pytest.mark.parametrize('question', QUESTIONS)
def test_a_domain_that_ends_before_a_question(host, question):
    with mock.patch.object(Domain, question, autospec=True, side_effect=fake_libvirt.gone()):
        found = documents()
    assert found in ([], [('domain one', '<domain/>')])
    assert host.closed == 1


# -- libvirt does not tell


def test_no_module():
    with mock.patch.dict(sys.modules, {'libvirt': None}):
        said = unknown()
    assert (
        f'Cannot determine which files the domains at {URI} use: this Python has no module' in said
    )


def test_no_connection(host):
    host.libvirt.openReadOnly = mock.Mock(side_effect=REFUSED)
    assert str(REFUSED) in unknown()


def test_a_uri_that_is_none(host):
    host.libvirt.openReadOnly = mock.Mock(side_effect=LibvirtError('no connection driver'))
    said = unknown(LibvirtDomains('nonsense:///'))
    assert 'nonsense:///' in said
    assert 'no connection driver' in said


@pytest.mark.parametrize(
    'question',
    [*QUESTIONS, 'XMLDesc', 'managedSaveGetXMLDesc'],
)
def test_a_connection_that_is_lost(host, question):
    host.domains = [Domain('one', '<running/>', '<next/>', '<saved/>')]
    with mock.patch.object(Domain, question, autospec=True, side_effect=LOST):
        assert str(LOST) in unknown()
    assert host.closed == 1


def test_a_list_that_is_not_given(host):
    host.domains = LOST
    assert str(LOST) in unknown()
    assert host.closed == 1


def test_a_save_that_was_removed_meanwhile_is_not_told(host):
    """It may run now: what was asked before does not count any more."""
    error = LibvirtError(
        'domain does not have managed save image', fake_libvirt.VIR_ERR_OPERATION_INVALID
    )
    host.domains = [Domain('one', '<off/>', '<off/>', error)]
    assert 'managed save' in unknown()


@pytest.mark.parametrize('domains', [[Domain('one')], LOST])
def test_a_connection_that_cannot_be_closed(host, domains):
    host.domains, host.close_error = domains, LibvirtError('virConnectClose() failed')
    if domains is LOST:
        assert str(LOST) in unknown()
    else:
        assert documents() == [('domain one', '<domain/>')]


# -- libvirt hangs


@pytest.fixture
def hang(host):
    """The first question waits for this event, and has no time to."""
    answered = threading.Event()
    with (
        mock.patch.object(libvirt_domains, '_ANSWER_SECONDS', 0),
        mock.patch.object(Connection, 'listAllDomains', autospec=True) as asked,
    ):
        asked.side_effect = lambda *args: answered.wait() and [Domain('one')]
        yield answered
        answered.set()


def test_a_question_has_a_deadline(hang):
    assert 'no answer within 0 s' in unknown()


def test_who_asks_a_libvirt_that_hangs_is_told_at_once(hang, host):
    domains = LibvirtDomains(URI)
    unknown(domains)
    libvirt_domains._ANSWER_SECONDS = 600
    assert 'it has not answered an earlier question yet' in unknown(domains)
    assert host.closed == 0, 'that is a question, too'
    assert len(host.libvirt.opened) == 1
    hang.set()
    waiting.until(
        lambda: not domains._late or None,
        what='the late answer',
        seconds=60,
        remedy='none',
        poll_seconds=0.01,
    )
    assert documents(domains) == [('domain one', '<domain/>')]


@pytest.mark.parametrize('number', [None, 'x', mock.Mock()])
def test_a_version_that_is_no_number(host, number):
    with (
        mock.patch.object(Connection, 'getLibVersion', autospec=True, return_value=number),
        pytest.raises(exception.DomainsUnknown, match='its version is'),
    ):
        LibvirtDomains(URI).version()


def test_each_question_is_a_native_call(host):
    snapshots = [Snapshot('a', '<then/>')]
    host.domains = [
        Domain('one', '<off/>', '<off/>', '<saved/>', FOR_AN_ERROR, snapshots=snapshots)
    ]
    asked_natively = 0

    def run(function, *args):
        nonlocal asked_natively
        asked_natively += 1
        with mock.patch.object(fake_libvirt, '_answer', lambda value: value):
            return function(*args)

    domains = LibvirtDomains(URI)
    with (
        mock.patch.object(native, 'run', run),
        mock.patch.object(
            fake_libvirt, '_answer', autospec=True, side_effect=AssertionError('on the hub')
        ),
    ):
        assert len(documents(domains)) == 4
        assert len(list(domains.living())) == 1
        assert len(domains.paused()) == 1
        domains.resume('uuid-of-one')
        domains.version()
    assert asked_natively > 8


# -- a connection that is somebody else's


def test_a_connection_that_is_given_is_used_and_left_open(host):
    mine = Connection([Domain('mine')])
    assert documents(LibvirtDomains(URI, lambda: mine)) == [('domain mine', '<domain/>')]
    assert mine.closed == 0
    assert host.libvirt.opened == []
    assert host.libvirt.handlers == [], 'it is its owner who listens'


def test_a_connection_that_is_not_given(host):
    assert str(REFUSED) in unknown(LibvirtDomains(URI, mock.Mock(side_effect=REFUSED)))


@pytest.mark.parametrize('error', [RuntimeError('not yet up'), OSError(5, 'x'), KeyError('uri')])
def test_a_connection_whose_owner_has_errors_of_its_own(host, error):
    """Nova's HypervisorUnavailable, for one, is no error of libvirt's."""
    assert str(error) in unknown(LibvirtDomains(URI, mock.Mock(side_effect=error)))


@pytest.mark.parametrize('end', [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_program_is_no_trouble_of_libvirts(host, end):
    with pytest.raises(end):
        documents(LibvirtDomains(URI, mock.Mock(side_effect=end)))


def test_a_connection_that_is_given_anew_each_time(host):
    connect = mock.Mock(side_effect=[Connection([]), Connection([Domain('x')])])
    domains = LibvirtDomains(URI, connect)
    assert documents(domains) == []
    assert documents(domains) == [('domain x', '<domain/>')]


# -- for the keeper

FAILED, FULL = (
    fake_libvirt.VIR_DOMAIN_DISK_ERROR_UNSPEC,
    fake_libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE,
)
FOR_AN_ERROR = (fake_libvirt.VIR_DOMAIN_PAUSED, fake_libvirt.VIR_DOMAIN_PAUSED_IOERROR)
BY_ITS_USER = (fake_libvirt.VIR_DOMAIN_PAUSED, 1)


def test_living_ones_are_told_by_what_they_run_with(host):
    host.domains = [Domain('one', '<running/>', '<next/>', '<saved/>'), Domain('two', gone())]
    assert list(LibvirtDomains(URI).living()) == [('domain one', '<running/>')]


def test_those_paused_for_an_error(host):
    host.domains = [
        Domain('one', '<x/>', why=FOR_AN_ERROR, errors={'vda': FAILED, 'vdb': FULL}),
        Domain('two', why=BY_ITS_USER, errors={'vda': FAILED}),
        Domain('three', '<y/>', why=FOR_AN_ERROR, errors={'vda': FAILED}),
        Domain('four', why=gone()),
        Domain('five', gone(), why=FOR_AN_ERROR),
    ]
    assert LibvirtDomains(URI).paused() == [
        Paused('uuid-of-one', 'one', '<x/>', frozenset({'vda'}), True),
        Paused('uuid-of-three', 'three', '<y/>', frozenset({'vda'}), False),
    ]


@pytest.mark.parametrize('ask', ['living', 'paused', 'strip_saved'])
def test_libvirt_does_not_tell_the_keeper(host, ask):
    host.domains = LOST
    with pytest.raises(exception.DomainsUnknown):
        list(getattr(LibvirtDomains(URI), ask)())
    assert host.closed == 1


def test_resume(host):
    host.domains = [Domain('one'), Domain('two')]
    LibvirtDomains(URI).resume('uuid-of-two')
    assert [each.resumed for each in host.domains] == [0, 1]
    assert host.closed == 1


def test_who_has_ended_is_not_resumed(host):
    LibvirtDomains(URI).resume('uuid-of-nobody')


def test_a_resume_that_libvirt_refuses(host):
    host.domains = [Domain('one', why=LibvirtError('not paused'))]
    with pytest.raises(exception.DomainsUnknown, match='not paused'):
        LibvirtDomains(URI).resume('uuid-of-one')


SAVED = f"""<domain><devices><disk>
<driver name='qemu' rerror_policy='stop'/><source file='/disk'/>
{chains.record(f'/guests/{KEY.stem}.nbd')}<target dev='vda'/>
</disk></devices></domain>"""
FOREIGN = "<domain><devices><disk><source file='/disk'/></disk></devices></domain>"


def test_saved_ones_are_stripped(host):
    host.domains = [Domain('one', saved=SAVED, tells_secrets=True), Domain('two', saved=FOREIGN)]
    host.domains[1].tells_secrets = True
    assert LibvirtDomains(URI).strip_saved() == [Saved('one', SAVED)]
    assert KEY.stem not in host.domains[0].saved
    assert 'rerror_policy' not in host.domains[0].saved
    assert host.domains[1].saved == FOREIGN
    assert LibvirtDomains(URI).strip_saved() == []


@pytest.mark.parametrize('code', ['NO_DOMAIN', 'OPERATION_INVALID'])
def test_one_that_has_started_or_gone_meanwhile_is_not_saved(host, code):
    error = LibvirtError('x', getattr(fake_libvirt, f'VIR_ERR_{code}'))
    host.domains = [Domain('one', saved=error), Domain('two', saved=SAVED)]
    for domain in host.domains:
        domain.tells_secrets = True
    assert [each.name for each in LibvirtDomains(URI).strip_saved()] == ['two']


def test_one_that_cannot_be_stripped_stops_no_other(host):
    error = LibvirtError('new xml too large to fit in file')
    broken = LibvirtError('failed to read the header')
    host.domains = [
        Domain('one', saved=SAVED, define_error=error),
        Domain('two', saved=broken),
        Domain('three', saved=SAVED),
    ]
    for domain in host.domains:
        domain.tells_secrets = True
    assert LibvirtDomains(URI).strip_saved() == [
        Saved('one', SAVED, error),
        Saved('two', '', broken),
        Saved('three', SAVED),
    ]


def test_one_whose_xml_nobody_can_read_stops_no_other(host):
    host.domains = [Domain('one', saved='<domain>'), Domain('two', saved=SAVED)]
    for domain in host.domains:
        domain.tells_secrets = True
    one, two = LibvirtDomains(URI).strip_saved()
    assert (one.name, one.xml, type(one.error)) == ('one', '', expat.ExpatError)
    assert two == Saved('two', SAVED)


def test_its_version_by_a_connection_that_may_write(host):
    assert LibvirtDomains(URI).version() == (9, 2, 1)
    assert host.writable
    assert host.closed == 1
