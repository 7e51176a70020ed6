# SPDX-License-Identifier: Apache-2.0
"""XML that is kept: suspended guests, rescues, what Nova reads back."""

import contextlib
import os
import pathlib
from unittest import mock

import libvirt
from nova import exception as nova_exception
from nova import objects
from nova.virt.libvirt import driver as stock
from nova.virt.libvirt import guest as libvirt_guest
import pytest

from nova_qcache.virt import chain
from nova_qcache.virt import driver as driver_module
from tests.unit.virt import documents
from tests.unit.virt import libvirt_double

CONTEXT = mock.sentinel.context


def warnings(caplog):
    name = driver_module.__name__
    return [record.getMessage() for record in caplog.records if record.name == name]


def test_a_rescue_and_a_resume_get_xml_without(driver, running, instance):
    xml = driver._get_existing_domain_xml(instance, [])
    assert documents.same(xml, documents.PLAIN)


def test_the_xml_of_a_domain_that_is_not_there_is_novas(driver, domain, instance, planner):
    """Nova makes it anew, and a plan with it."""
    with (
        mock.patch.object(stock.blockinfo, 'get_disk_info', autospec=True),
        mock.patch.object(stock.LibvirtDriver, '_get_guest_xml', autospec=True) as made,
        mock.patch.object(objects.Instance, 'image_meta', mock.sentinel.meta),
    ):
        made.return_value = documents.PLAYING
        xml = driver._get_existing_domain_xml(instance, [], block_device_info=None)
    assert documents.same(xml, documents.PLAIN)
    planner.release.assert_called_once_with(instance)


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
    assert warnings(caplog) == [
        f'Failed to remove the cache from the saved state; the cache stays in use: {fault}'
    ]


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
    more = {'block_device_info': None, 'share_info': ['a share']}
    assert passed == [CONTEXT, ['a network'], (), more]


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
        assert (args, kwargs) == ((CONTEXT, *VOLUMES, instance, '/dev/vdb', 0), {})
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
