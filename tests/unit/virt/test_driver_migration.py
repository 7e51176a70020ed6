# SPDX-License-Identifier: Apache-2.0
"""XML that leaves the host has no chain of ours."""

from unittest import mock

import libvirt
from nova.objects import migrate_data as migrate_data_objects
from nova.virt.libvirt import driver as stock
from nova.virt.libvirt import guest as libvirt_guest
import pytest

from nova_qcache.virt import chain
from nova_qcache.virt import driver as driver_module
from tests.unit.virt import documents
from tests.unit.virt import libvirt_double

CONTEXT = mock.sentinel.context


@pytest.fixture
def migrate_data():
    return migrate_data_objects.LibvirtLiveMigrateData(
        block_migration=False,
        serial_listen_addr='127.0.0.1',
        serial_listen_ports=[],
        target_connect_addr=None,
        graphics_listen_addr_vnc=None,
        graphics_listen_addr_spice=None,
        bdms=[],
    )


@pytest.fixture
def migrate(driver, instance, migrate_data, nova_conf):
    """Stock Nova's live migration of that guest."""
    nova_conf.set_override('live_migration_bandwidth', 17, 'libvirt')
    driver._live_migration_flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
    driver._block_migration_flags = (
        driver._live_migration_flags | libvirt.VIR_MIGRATE_NON_SHARED_INC
    )

    def migrate(guest, devices=()):
        driver._live_migration_operation(
            CONTEXT, instance, 'there', False, migrate_data, guest, list(devices)
        )

    return migrate


def test_what_leaves_the_host_has_no_chain(migrate, running):
    migrate(libvirt_guest.Guest(running))
    ((uri, params, flags),) = running.migrations
    assert documents.same(params['destination_xml'], documents.PLAIN)
    assert documents.same(params['persistent_xml'], documents.PLAIN)
    assert uri == 'qemu+tcp://there/system'
    assert params['bandwidth'] == 17
    assert flags == libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER


def test_xml_that_cannot_be_read_leaves_as_it_is(driver, running, instance, caplog):
    guest = driver_module._MigratingGuest(libvirt_guest.Guest(running), instance)
    guest.migrate('qemu+tcp://there/system', destination_xml='<domain')
    ((_, params, _),) = running.migrations
    assert params['destination_xml'] == '<domain'
    assert 'Failed to parse the domain XML; using it unchanged' in caplog.text


def test_all_else_leaves_as_with_stock_nova(driver, migrate, running, migrate_data):
    migrate_data.block_migration = True
    migrate_data.target_connect_addr = '192.0.2.9'
    migrate(libvirt_guest.Guest(running), ['vda', 'vdb'])
    stock.LibvirtDriver._live_migration_operation(
        driver,
        CONTEXT,
        mock.Mock(),
        'there',
        True,
        migrate_data,
        libvirt_guest.Guest(running),
        ['vda', 'vdb'],
    )
    ours, theirs = running.migrations
    for _, params, _ in (ours, theirs):
        for name in ('destination_xml', 'persistent_xml'):
            params[name] = documents._canonical(chain.strip(params[name]))
    assert ours == theirs
    assert ours[1]['migrate_disks'] == ['vda', 'vdb']
    assert 'migrate_uri' in ours[1]


def test_what_runs_here_keeps_its_chain(migrate, running, chained):
    migrate(libvirt_guest.Guest(running))
    assert running.active == chained


def test_a_guest_without_a_chain_leaves_as_it_is(migrate, domain):
    domain.inactive = domain.active = documents.DETECTED
    migrate(libvirt_guest.Guest(domain))
    assert documents.same(domain.migrations[0][1]['destination_xml'], documents.DETECTED)


def test_nova_sees_the_guest_itself_but_for_its_migration(driver, running, instance):
    guest = mock.create_autospec(libvirt_guest.Guest, instance=True)
    guest.migrate.return_value = mock.sentinel.migrated
    with mock.patch.object(
        stock.LibvirtDriver, '_live_migration_operation', autospec=True
    ) as theirs:
        driver._live_migration_operation(
            CONTEXT, instance, 'there', False, mock.sentinel.data, guest, ['vda']
        )
    self, *args, emigrant, devices = theirs.call_args.args
    assert self is driver
    assert args == [CONTEXT, instance, 'there', False, mock.sentinel.data]
    assert devices == ['vda']
    assert emigrant.get_xml_desc is guest.get_xml_desc
    assert emigrant.uuid is guest.uuid
    assert emigrant.migrate('uri', flags=3) is mock.sentinel.migrated
    emigrant.migrate('uri', migrate_uri='other', destination_xml=None)
    assert guest.migrate.mock_calls == [
        mock.call('uri', flags=3),
        mock.call('uri', migrate_uri='other', destination_xml=None),
    ]
    with pytest.raises(AttributeError):
        _ = emigrant.no_such_thing


def test_a_migration_that_fails_is_novas_error(migrate, running):
    with (
        mock.patch.object(
            running, 'migrateToURI3', autospec=True, side_effect=libvirt_double.error('away')
        ),
        pytest.raises(libvirt.libvirtError, match='away'),
    ):
        migrate(libvirt_guest.Guest(running))
