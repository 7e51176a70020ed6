# SPDX-License-Identifier: Apache-2.0
"""Which XML is used when: stock Nova runs below the driver, on a libvirt that is a double."""

import contextlib
import inspect
import logging
import os
import pathlib
from unittest import mock

import libvirt
from nova import exception as nova_exception
from nova import objects
from nova.objects import migrate_data as migrate_data_objects
import nova.privsep.path
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt import fake
from nova.virt import images
from nova.virt.libvirt import driver as stock
from nova.virt.libvirt import guest as libvirt_guest
from nova.virt.libvirt.cpu import api as cpu_api
import pytest

from nova_qcache.virt import chain
from nova_qcache.virt import driver as driver_module
from nova_qcache.virt import imagebackend
from nova_qcache.virt import imagecache
from nova_qcache.virt.driver import QcacheDriver
from tests.unit.builders import IMAGE
from tests.unit.virt import documents
from tests.unit.virt import libvirt_double
from tests.unit.virt.libvirt_double import FakeDomain

CONTEXT = mock.sentinel.context


@pytest.fixture
def domain():
    """Not defined yet."""
    return FakeDomain()


@pytest.fixture
def running(domain, chained):
    """It runs on a chain of ours, and is defined without, as the driver leaves it."""
    domain.inactive, domain.active = documents.PLAIN, chained
    return domain


@pytest.fixture
def driver(domain, planner):
    with mock.patch.object(driver_module, 'Planner', autospec=True, return_value=planner):
        made = QcacheDriver(fake.FakeVirtAPI())
    made._host = libvirt_double.host(domain)
    made.cpu_api = mock.create_autospec(cpu_api.API, instance=True)
    return made


@pytest.fixture
def release(planner, domain):
    """What the domain is defined with when its lease ends."""
    defined = []
    planner.release.side_effect = lambda instance: defined.append(domain.inactive)
    return defined


def warnings(caplog):
    name = driver_module.__name__
    return [record.getMessage() for record in caplog.records if record.name == name]


def refuse(driver, when, error):
    """Let libvirt refuse to define such a document."""
    define = driver._host.write_instance_config.side_effect

    def may_define(xml):
        if when(xml):
            raise error
        return define(xml)

    driver._host.write_instance_config.side_effect = may_define


def test_the_double_is_like_libvirt():
    for name, method in inspect.getmembers(FakeDomain, inspect.isfunction):
        if not name.startswith('_'):
            ours = list(inspect.signature(method).parameters)
            theirs = list(inspect.signature(getattr(libvirt.virDomain, name)).parameters)
            assert ours == theirs, name


# -- the start of a domain


def test_without_a_chain_all_is_stock(driver, domain, instance, release):
    guest = driver._create_guest(CONTEXT, documents.PLAIN, instance)
    assert isinstance(guest, libvirt_guest.Guest)
    assert domain.starts == [(documents.PLAIN, 0)]
    driver._host.write_instance_config.assert_called_once_with(documents.PLAIN)
    assert release == [documents.PLAIN]


def test_a_chain_is_only_in_what_runs(driver, domain, instance, chained, release, caplog):
    guest = driver._create_guest(CONTEXT, chained, instance)
    assert guest._domain is domain
    assert domain.starts == [(chained, 0)]
    assert documents.same(domain.active, chained)
    assert documents.same(domain.inactive, documents.PLAIN)
    assert warnings(caplog) == []
    assert release == [domain.inactive], 'the lease ends when all is done, and once'


def test_a_guest_that_waits_for_its_network_has_its_chain(
    driver, domain, instance, chained, release
):
    driver._create_guest(CONTEXT, chained, instance, power_on=False, pause=True)
    assert domain.starts == [(chained, libvirt.VIR_DOMAIN_START_PAUSED)]
    assert documents.same(domain.inactive, documents.PLAIN)
    assert len(release) == 1


def test_what_is_not_started_is_defined_without(driver, domain, instance, chained, release):
    called = mock.Mock(return_value=None)
    driver._create_guest(
        CONTEXT, chained, instance, power_on=False, pause=False, post_xml_callback=called
    )
    assert domain.starts == []
    assert documents.same(domain.inactive, documents.PLAIN)
    driver._host.write_instance_config.assert_called_once()
    called.assert_called_once_with()
    assert len(release) == 1


def test_the_callback_is_between_definition_and_start(driver, domain, instance, chained):
    seen = []
    driver._create_guest(
        CONTEXT,
        chained,
        instance,
        post_xml_callback=lambda: seen.append((domain.inactive, list(domain.starts))),
    )
    assert seen == [(chained, [])]


def test_a_start_that_fails_is_tried_once_without(
    driver, domain, instance, chained, release, caplog
):
    domain.launch_errors = [libvirt_double.error('no such socket')]
    called = mock.Mock(return_value=None)
    guest = driver._create_guest(CONTEXT, chained, instance, post_xml_callback=called)
    assert guest._domain is domain
    assert [flags for _, flags in domain.starts] == [0, 0]
    (first, _), (second, _) = domain.starts
    assert first == chained
    assert documents.same(second, documents.PLAIN)
    assert documents.same(domain.inactive, documents.PLAIN)
    called.assert_called_once_with()
    assert len(release) == 1
    assert warnings(caplog) == [
        'It does not start through its cache, and boots without: no such socket'
    ]


def test_the_second_try_is_as_the_first(driver, domain, instance, chained):
    domain.launch_errors = [libvirt_double.error('no such socket')]
    driver._create_guest(CONTEXT, chained, instance, False, True)
    assert [flags for _, flags in domain.starts] == [libvirt.VIR_DOMAIN_START_PAUSED] * 2


def test_a_definition_that_is_refused_is_tried_once_without(driver, domain, instance, chained):
    refuse(driver, chain.is_in, libvirt_double.error('unknown element'))
    called = mock.Mock(return_value=None)
    driver._create_guest(CONTEXT, chained, instance, post_xml_callback=called)
    assert len(domain.starts) == 1
    assert documents.same(domain.starts[0][0], documents.PLAIN)
    called.assert_called_once_with()


def test_a_callback_that_fails_is_made_again(driver, domain, instance, chained):
    called = mock.Mock(side_effect=[OSError(28, 'No space left on device'), None])
    driver._create_guest(CONTEXT, chained, instance, post_xml_callback=called)
    assert called.call_count == 2
    assert len(domain.starts) == 1
    assert documents.same(domain.starts[0][0], documents.PLAIN)


def test_a_callback_that_fails_twice_is_novas_error(driver, domain, instance, chained, release):
    called = mock.Mock(side_effect=[OSError('first'), OSError('second')])
    with pytest.raises(OSError, match='second'):
        driver._create_guest(CONTEXT, chained, instance, post_xml_callback=called)
    assert domain.starts == []
    assert len(release) == 1


def test_a_callback_without_a_chain_is_not_made_again(driver, domain, instance):
    called = mock.Mock(side_effect=OSError('once'))
    with pytest.raises(OSError, match='once'):
        driver._create_guest(CONTEXT, documents.PLAIN, instance, post_xml_callback=called)
    called.assert_called_once_with()


def test_two_starts_that_fail_are_the_second_error(driver, domain, instance, chained, release):
    domain.launch_errors = [libvirt_double.error('first'), libvirt_double.error('second')]
    with pytest.raises(libvirt.libvirtError, match='second'):
        driver._create_guest(CONTEXT, chained, instance)
    assert len(domain.starts) == 2
    assert len(release) == 1


def test_without_a_chain_a_start_is_tried_once(driver, domain, instance, release):
    domain.launch_errors = [libvirt_double.error('no memory')]
    with pytest.raises(libvirt.libvirtError, match='no memory'):
        driver._create_guest(CONTEXT, documents.PLAIN, instance)
    assert len(domain.starts) == 1
    assert len(release) == 1


def test_what_ends_the_process_is_not_tried_again(driver, domain, instance, chained, release):
    domain.launch_errors = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        driver._create_guest(CONTEXT, chained, instance)
    assert len(domain.starts) == 1
    assert len(release) == 1


@pytest.mark.parametrize(
    'fault', [libvirt_double.error('away'), RuntimeError('x')], ids=['libvirt', 'other']
)
def test_a_definition_that_stays_does_no_harm(
    driver, domain, instance, chained, release, caplog, fault
):
    refuse(driver, lambda xml: domain.active is not None, fault)
    guest = driver._create_guest(CONTEXT, chained, instance)
    assert guest._domain.active == chained
    assert warnings(caplog) == [f'Its definition keeps naming its cache: {fault}']
    assert len(release) == 1


def test_secrets_are_kept_in_the_definition(driver, domain, instance, chained):
    with mock.patch.object(domain, 'XMLDesc', wraps=domain.XMLDesc) as dump:
        driver._create_guest(CONTEXT, chained, instance)
    flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    dump.assert_called_once_with(flags=flags)


def test_nova_creates_its_guests_with_network_through_it(driver, domain, instance, chained):
    """The way of a spawn and of a hard reboot."""
    with (
        mock.patch.object(stock.LibvirtDriver, 'plug_vifs', autospec=True),
        mock.patch.object(stock.LibvirtDriver, '_lxc_disk_handler', autospec=True) as handler,
    ):
        handler.return_value = contextlib.nullcontext()
        driver._create_guest_with_network(CONTEXT, chained, instance, [], None)
    assert domain.starts == [(chained, 0)]
    assert documents.same(domain.inactive, documents.PLAIN)


def test_the_image_of_a_new_instance_is_known_while_it_starts(driver, planner, instance):
    happened = mock.Mock()
    spawning = planner.spawning.return_value
    spawning.__enter__.side_effect = happened.begin
    spawning.__exit__.side_effect = happened.end
    image = objects.ImageMeta(checksum='c0ffee')
    with mock.patch.object(stock.LibvirtDriver, 'spawn', happened.nova):
        driver.spawn(CONTEXT, instance, image, [], 'password', {}, power_on=False)
    assert [call[0] for call in happened.mock_calls] == ['begin', 'nova', 'end']
    happened.nova.assert_called_once_with(
        CONTEXT, instance, image, [], 'password', {}, power_on=False
    )
    planner.spawning.assert_called_once_with(instance, image)


# -- soft reboot


def moved(xml, overlay):
    """The domain with its disk in the test's own folder."""
    return xml.replace(documents.OVERLAY, str(overlay))


@pytest.fixture
def soft(domain, overlay, nova_conf):
    """A domain that runs plain, and can be rebooted."""
    nova_conf.set_override('wait_soft_reboot_seconds', 1, 'libvirt')
    domain.inactive = moved(documents.PLAIN, overlay)
    domain.active = moved(documents.DETECTED, overlay)
    return domain


def test_a_soft_reboot_starts_through_the_cache(
    driver, soft, instance, overlay, planner, plan, release, caplog
):
    planner.plan.return_value = plan
    instance.flavor.extra_specs = {'qcache:policy': 'auto'}
    plain = soft.inactive
    assert driver._soft_reboot(instance) is True
    planner.plan.assert_called_once_with(
        instance, 'disk', str(overlay), {}, {'qcache:policy': 'auto'}
    )
    assert [xml for xml, _ in soft.starts] == [chain.insert(plain, str(overlay), plan)]
    assert chain.is_in(soft.active)
    assert documents.same(soft.inactive, plain)
    assert release == [soft.inactive]
    assert warnings(caplog) == []


def test_a_soft_reboot_reconnects_as_a_boot_does(driver, soft, instance, planner, record):
    planner.plan.return_value = record
    planner.reconnect_seconds = 30
    driver._soft_reboot(instance)
    assert '<reconnect delay="30"/>' in soft.starts[0][0]


def test_a_soft_reboot_of_a_guest_that_does_not_listen(
    driver, soft, instance, planner, plan, release
):
    planner.plan.return_value = plan
    soft.shuts_down = False
    plain = soft.inactive
    assert driver._soft_reboot(instance) is False
    assert soft.starts == []
    assert documents.same(soft.inactive, plain)
    assert len(release) == 1


def test_a_soft_reboot_that_fails(driver, soft, instance, planner, plan, release):
    """Stock Nova goes on with a hard reboot after this error."""
    planner.plan.return_value = plan
    plain = soft.inactive
    soft.launch_errors = [libvirt_double.error('no such socket')]
    with pytest.raises(libvirt.libvirtError, match='no such socket'):
        driver._soft_reboot(instance)
    assert documents.same(soft.inactive, plain)
    assert len(release) == 1


def test_a_soft_reboot_without_a_plan_is_stock(driver, soft, instance, planner, release):
    assert driver._soft_reboot(instance) is True
    planner.plan.assert_called_once()
    assert [xml for xml, _ in soft.starts] == [soft.inactive]
    driver._host.write_instance_config.assert_not_called()
    assert len(release) == 1, 'a plan that became plain may have left a lease'


@pytest.mark.parametrize('where', ['volume', 'raw', 'rbd', 'default'])
def test_a_soft_reboot_of_another_disk_is_stock(
    driver, soft, instance, planner, play, nova_conf, overlay, where
):
    planner.plan.return_value = play
    info = overlay.parent / 'disk.info'
    if where == 'volume':
        instance.image_ref = ''
    else:
        driver.image_backend = imagebackend.Backend(False, planner)
        nova_conf.set_override('images_type', where, 'libvirt')
    assert driver._soft_reboot(instance) is True
    assert [xml for xml, _ in soft.starts] == [soft.inactive]
    planner.plan.assert_not_called()
    driver._host.write_instance_config.assert_not_called()
    assert not info.exists()


@pytest.mark.parametrize('fault', [libvirt_double.error('refused'), ValueError('a fault of ours')])
def test_a_plan_that_cannot_be_defined_is_no_plan(
    driver, soft, instance, planner, plan, release, caplog, fault
):
    planner.plan.return_value = plan
    refuse(driver, chain.is_in, fault)
    assert driver._soft_reboot(instance) is True
    assert [xml for xml, _ in soft.starts] == [soft.inactive]
    assert warnings(caplog) == [f'It restarts without a cache: {fault}']
    assert len(release) == 1


def test_a_definition_that_stays_does_no_harm_to_a_soft_reboot(
    driver, soft, instance, planner, play, release, caplog
):
    planner.plan.return_value = play
    refuse(driver, lambda xml: not chain.is_in(xml), libvirt_double.error('away'))
    assert driver._soft_reboot(instance) is True
    assert warnings(caplog) == ['Its definition keeps naming its cache: away']
    assert len(release) == 1


def test_an_instance_that_is_not_there(driver, domain, instance, overlay, planner, play, release):
    planner.plan.return_value = play
    with pytest.raises(nova_exception.InstanceNotFound):
        driver._soft_reboot(instance)
    assert len(release) == 1


# -- XML that is kept


def test_a_rescue_and_a_resume_get_xml_without(driver, running, instance):
    xml = driver._get_existing_domain_xml(instance, [])
    assert documents.same(xml, documents.PLAIN)


def test_the_xml_of_a_domain_that_is_not_there_is_novas(driver, domain, instance):
    """Nova makes it anew, and a plan with it."""
    with (
        mock.patch.object(stock.blockinfo, 'get_disk_info', autospec=True),
        mock.patch.object(stock.LibvirtDriver, '_get_guest_xml', autospec=True) as made,
        mock.patch.object(objects.Instance, 'image_meta', mock.sentinel.meta),
    ):
        made.return_value = documents.PLAYING
        xml = driver._get_existing_domain_xml(instance, [], block_device_info=None)
    assert documents.same(xml, documents.PLAIN)


@pytest.fixture
def saving(driver):
    """What of a suspend and a resume is not about XML is left out."""
    nothing = ('_detach_pci_devices', '_detach_direct_passthrough_ports')
    with contextlib.ExitStack() as stack:
        for name in (*nothing, '_detach_mediated_devices'):
            stack.enter_context(mock.patch.object(stock.LibvirtDriver, name, autospec=True))
        stack.enter_context(mock.patch.object(objects.Instance, 'get_pci_devices', autospec=True))
        yield


def test_a_suspended_guest_is_saved_without(driver, running, instance, saving, caplog):
    driver.suspend(CONTEXT, instance)
    assert running.active is None
    assert documents.same(running.saved, documents.PLAIN)
    assert documents.same(running.inactive, documents.PLAIN)
    assert warnings(caplog) == []


def test_secrets_are_kept_in_what_is_saved(driver, running, instance, saving):
    with (
        mock.patch.object(
            running, 'managedSaveGetXMLDesc', wraps=running.managedSaveGetXMLDesc
        ) as dump,
        mock.patch.object(
            running, 'managedSaveDefineXML', wraps=running.managedSaveDefineXML
        ) as define,
    ):
        driver.suspend(CONTEXT, instance)
    dump.assert_called_once_with(libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
    define.assert_called_once_with(mock.ANY, 0)


def test_a_guest_without_a_chain_is_saved_as_it_is(driver, domain, instance, saving):
    domain.inactive = domain.active = documents.DETECTED
    with mock.patch.object(domain, 'managedSaveDefineXML', autospec=True) as define:
        driver.suspend(CONTEXT, instance)
    define.assert_not_called()
    assert domain.saved == documents.DETECTED


QUESTIONS = ('hasManagedSaveImage', 'managedSaveGetXMLDesc', 'managedSaveDefineXML')


@pytest.mark.parametrize('name', QUESTIONS)
@pytest.mark.parametrize(
    'fault', [libvirt_double.error('away'), RuntimeError('x')], ids=['libvirt', 'other']
)
def test_a_suspend_never_fails_because_of_its_chain(
    driver, running, instance, saving, caplog, name, fault
):
    with mock.patch.object(running, name, autospec=True, side_effect=fault):
        driver.suspend(CONTEXT, instance)
    assert running.saved is not None
    assert warnings(caplog) == [f'Its saved state keeps naming its cache: {fault}']


def test_a_suspend_that_fails_is_novas_error(driver, running, instance, saving):
    error = libvirt_double.error('no space')
    with (
        mock.patch.object(running, 'managedSave', autospec=True, side_effect=error),
        pytest.raises(libvirt.libvirtError, match='no space'),
    ):
        driver.suspend(CONTEXT, instance)
    assert chain.is_in(running.active)


@pytest.fixture
def resumed(domain):
    """What stock Nova's resume finds saved."""
    seen = []

    def resume(self, context, instance, network_info, *args, **kwargs):
        seen.append((domain.saved, context, network_info, args, kwargs))

    with mock.patch.object(stock.LibvirtDriver, 'resume', resume):
        yield seen


def test_what_another_nova_compute_saved_is_resumed_without(driver, running, instance, resumed):
    running.managedSave(0)
    driver.resume(CONTEXT, instance, ['a network'], None, share_info=['a share'])
    ((saved, *passed),) = resumed
    assert documents.same(saved, documents.PLAIN)
    assert passed == [CONTEXT, ['a network'], (None,), {'share_info': ['a share']}]


def test_nothing_saved_is_nothing_to_do(driver, running, instance, resumed, caplog):
    driver.resume(CONTEXT, instance, [])
    assert len(resumed) == 1
    assert warnings(caplog) == []


@pytest.mark.parametrize('name', QUESTIONS)
def test_a_resume_never_fails_because_of_its_chain(
    driver, running, instance, resumed, caplog, name
):
    running.managedSave(0)
    with mock.patch.object(running, name, autospec=True, side_effect=libvirt_double.error('away')):
        driver.resume(CONTEXT, instance, [])
    assert len(resumed) == 1
    assert len(warnings(caplog)) == 1


def test_a_resume_of_a_domain_that_is_not_there_is_novas(driver, domain, instance, resumed):
    driver.resume(CONTEXT, instance, [])
    assert len(resumed) == 1


def test_a_resume_starts_without(driver, running, instance, saving):
    """All of stock Nova's resume that is about XML."""
    driver.suspend(CONTEXT, instance)
    guest = driver._create_guest(CONTEXT, driver._get_existing_domain_xml(instance, []), instance)
    assert guest._domain is running
    assert not chain.is_in(running.active)


@pytest.fixture
def kept(tmp_path):
    """Nova's unrescue.xml."""
    path = pathlib.Path(tmp_path) / 'instances' / documents.INSTANCE / 'unrescue.xml'
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def unrescued(driver, domain):
    """The end of a rescue, but for the end of the rescued domain."""
    domain.inactive = domain.active = documents.PLAIN
    with mock.patch.object(stock.LibvirtDriver, '_destroy', autospec=True):
        yield


def test_an_unrescue_starts_without(driver, domain, instance, kept, unrescued, chained, caplog):
    kept.write_text(chained)
    driver.unrescue(CONTEXT, instance)
    assert len(domain.starts) == 1
    assert documents.same(domain.starts[0][0], documents.PLAIN)
    assert warnings(caplog) == []
    assert os.listdir(kept.parent) == []


def test_an_unrescue_without_a_chain_is_stock(driver, domain, instance, kept, unrescued):
    kept.write_text(documents.DETECTED)
    inode = kept.stat().st_ino
    with mock.patch.object(stock.LibvirtDriver, 'unrescue', autospec=True):
        driver.unrescue(CONTEXT, instance)
    assert (kept.read_text(), kept.stat().st_ino) == (documents.DETECTED, inode)


def test_an_unrescue_without_its_xml_is_novas_error(driver, domain, instance, kept, unrescued):
    with pytest.raises(FileNotFoundError):
        driver.unrescue(CONTEXT, instance)


@pytest.mark.parametrize('content', [b'', b'<domain>', b'\xff\xfe\xff', b'text'])
def test_what_is_kept_damaged_is_novas_error(driver, instance, kept, unrescued, content, caplog):
    kept.write_bytes(content)
    with mock.patch.object(stock.LibvirtDriver, 'unrescue', autospec=True) as theirs:
        driver.unrescue(CONTEXT, instance)
    theirs.assert_called_once_with(driver, CONTEXT, instance)
    assert kept.read_bytes() == content
    assert len(warnings(caplog)) == 1


def test_what_is_kept_is_not_lost_on_a_full_disk(driver, instance, kept, unrescued, caplog):
    kept.write_text(documents.PLAYING)
    os.symlink('/dev/full', f'{kept}.plain')
    with mock.patch.object(stock.LibvirtDriver, 'unrescue', autospec=True) as theirs:
        driver.unrescue(CONTEXT, instance)
    theirs.assert_called_once_with(driver, CONTEXT, instance)
    assert kept.read_text() == documents.PLAYING
    assert 'No space left on device' in warnings(caplog)[0]


VOLUMES = ({'driver_volume_type': 'nfs'}, {'driver_volume_type': 'rbd'})


@pytest.mark.parametrize('fails', [False, True])
def test_a_volume_that_is_swapped_leaves_no_chain(driver, running, instance, fails):
    """Stock Nova defines what is running, then."""

    def swap(self, *args, **kwargs):
        assert (args, kwargs) == ((CONTEXT, *VOLUMES, instance, '/dev/vdb'), {'resize_to': 0})
        self._host.write_instance_config(running.active)
        if fails:
            raise nova_exception.VolumeRebaseFailed(reason='x')

    expected = pytest.raises(nova_exception.VolumeRebaseFailed)
    with (
        mock.patch.object(stock.LibvirtDriver, 'swap_volume', swap),
        expected if fails else contextlib.nullcontext(),
    ):
        driver.swap_volume(CONTEXT, *VOLUMES, instance, '/dev/vdb', resize_to=0)
    assert documents.same(running.inactive, documents.PLAIN)


def test_stock_nova_does_define_what_is_running(driver, running, instance):
    """Else the method above is for nothing."""
    conf = mock.Mock(source_path='/new', target_dev='vdb')
    conf.to_xml.return_value = '<disk/>'
    guest = mock.create_autospec(libvirt_guest.Guest, instance=True)
    guest.get_xml_desc.side_effect = lambda dump_inactive, **_: (
        running.inactive if dump_inactive else running.active
    )
    driver._swap_volume(guest, 'vdb', conf, 0)
    assert chain.is_in(running.inactive)


# -- XML that leaves the host


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


# -- writes of a base


@pytest.fixture
def happened(events):
    with (
        mock.patch.object(nova.privsep.path, 'utime', autospec=True) as utime,
        mock.patch.object(images, 'fetch_to_raw', autospec=True) as fetch,
    ):
        utime.side_effect = lambda path: events.append(('touch', path))
        fetch.side_effect = lambda context, image, path: events.append(('fetch', image, path))
        yield events


def test_an_image_that_is_cached_by_request_is_announced(driver, base_path, happened):
    base_path.unlink()
    assert driver.cache_image(CONTEXT, IMAGE) is True
    base = str(base_path)
    assert happened == [('writing', base), ('fetch', IMAGE, base), 'written']


def test_an_image_that_is_there_is_touched(driver, base_path, happened):
    assert driver.cache_image(CONTEXT, IMAGE) is False
    base = str(base_path)
    assert happened == [('touching', base), ('touch', base), 'touched']


# -- the whole driver


@pytest.fixture
def fake_libvirt(nova_conf):
    fixture = fakelibvirt.LibvirtFixture()
    fixture.setUp()
    yield
    fixture.cleanUp()


def test_it_is_made_as_nova_makes_it(fake_libvirt):
    made = QcacheDriver(fake.FakeVirtAPI(), False)
    assert type(made.image_backend) is imagebackend.Backend
    assert made.image_backend.backend('qcow2') is imagebackend.Qcow2
    assert type(made.image_cache_manager) is imagecache.ImageCacheManager
    assert made.image_cache_manager._planner is made._planner
    assert made.image_backend._planner is made._planner


@pytest.mark.parametrize('use_cow', [True, False])
def test_use_cow_images_is_heeded(fake_libvirt, nova_conf, use_cow):
    nova_conf.set_override('use_cow_images', use_cow)
    made = QcacheDriver(fake.FakeVirtAPI())
    assert (made.image_backend.backend('default') is imagebackend.Qcow2) is use_cow


def test_its_capabilities_are_stock(fake_libvirt):
    ours, theirs = (
        made(fake.FakeVirtAPI()).capabilities for made in (QcacheDriver, stock.LibvirtDriver)
    )
    assert ours == theirs


def test_the_planner_starts_when_nova_has(driver, domain, planner, chained):
    domain.inactive = documents.PLAIN
    domain.active = chained
    connection = mock.create_autospec(libvirt.virConnect, instance=True)
    connection.getLibVersion.return_value = 9_002_000
    connection.listAllDomains.return_value = [domain]
    driver._host.get_connection.return_value = connection
    happened = mock.Mock()
    planner.start.side_effect = happened.planner
    with mock.patch.object(stock.LibvirtDriver, 'init_host', happened.nova):
        driver.init_host('this host')
    assert [call[0] for call in happened.mock_calls] == ['nova', 'planner']
    happened.nova.assert_called_once_with('this host')
    (domains, version), _ = planner.start.call_args
    assert version == 9_002_000
    assert [text for _, text in domains.documents()] == [chained, documents.PLAIN]


def test_its_warnings_are_of_the_instance(driver, domain, instance, chained, caplog):
    caplog.set_level(logging.WARNING)
    domain.launch_errors = [libvirt_double.error('x')]
    driver._create_guest(CONTEXT, chained, instance)
    record = next(r for r in caplog.records if r.name == driver_module.__name__)
    assert record.instance is instance or documents.INSTANCE in str(record.instance)
