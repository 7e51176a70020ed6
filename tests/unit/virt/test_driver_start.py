# SPDX-License-Identifier: Apache-2.0
"""The start of a domain: through its cache, and without one if that fails."""

import contextlib
from typing import Any
from unittest import mock

import libvirt
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


def test_without_a_chain_all_is_stock(driver, domain, instance, release):
    guest = driver._create_guest(CONTEXT, documents.PLAIN, instance)
    assert isinstance(guest, libvirt_guest.Guest)
    assert domain.starts == [(documents.PLAIN, 0)]
    driver._host.write_instance_config.assert_called_once_with(documents.PLAIN)
    assert release == [documents.PLAIN]


@pytest.mark.parametrize('pause', [False, True])
def test_what_has_started_counts(driver, domain, instance, chained, planner, pause):
    driver._create_guest(CONTEXT, chained, instance, power_on=not pause, pause=pause)
    names = [name for name, _, _ in planner.mock_calls]
    assert names == ['started', 'release'], 'what is released is forgotten'


def test_what_has_not_started_does_not_count(driver, domain, instance, chained, planner):
    driver._create_guest(CONTEXT, chained, instance, power_on=False, pause=False)
    domain.launch_errors = [libvirt_double.error('first'), libvirt_double.error('second')]
    with pytest.raises(libvirt.libvirtError):
        driver._create_guest(CONTEXT, chained, instance)
    planner.started.assert_not_called()


def test_a_start_that_is_tried_again_counts_once(driver, domain, instance, chained, planner):
    domain.launch_errors = [libvirt_double.error('no such socket')]
    driver._create_guest(CONTEXT, chained, instance)
    names = [name for name, _, _ in planner.mock_calls]
    assert names == ['fall_back', 'started', 'release']


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
    driver, domain, instance, chained, release, planner, caplog
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
    planner.fall_back.assert_called_once_with(instance)
    assert len(release) == 1
    assert warnings(caplog) == [
        'Guest failed to start with its cache; retrying without it: no such socket'
    ]


def test_the_second_try_is_as_the_first(driver, domain, instance, chained):
    domain.launch_errors = [libvirt_double.error('no such socket')]
    driver._create_guest(CONTEXT, chained, instance, False, True)
    assert [flags for _, flags in domain.starts] == [libvirt.VIR_DOMAIN_START_PAUSED] * 2


def test_a_definition_that_is_refused_is_tried_once_without(driver, domain, instance, chained):
    libvirt_double.refuse(driver, chain.is_in, libvirt_double.error('unknown element'))
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
    libvirt_double.refuse(driver, lambda xml: domain.active is not None, fault)
    guest = driver._create_guest(CONTEXT, chained, instance)
    assert guest._domain.active == chained
    assert warnings(caplog) == [
        'Failed to remove the cache from the persistent domain XML; the cache stays in use: '
        f'{fault}'
    ]
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


STARTS: dict[str, tuple[Any, ...]] = {
    'spawn': (CONTEXT, mock.sentinel.instance, mock.sentinel.image, [], 'password', {}),
    '_hard_reboot': (CONTEXT, mock.sentinel.instance, [], None),
    '_get_guest_xml': (CONTEXT, mock.sentinel.instance, [], {}, mock.sentinel.image),
    '_create_guest_with_network': (CONTEXT, documents.PLAIN, mock.sentinel.instance, [], None),
}


@pytest.mark.parametrize('error', [OSError('no network'), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize('name', STARTS)
def test_a_start_that_fails_before_its_domain_keeps_no_lease(driver, planner, name, error):
    with (
        mock.patch.object(stock.LibvirtDriver, name, autospec=True, side_effect=error),
        pytest.raises(type(error)),
    ):
        getattr(driver, name)(*STARTS[name])
    planner.release.assert_called_once_with(mock.sentinel.instance)


@pytest.mark.parametrize('name', STARTS)
def test_a_part_of_a_start_that_succeeds_keeps_its_lease(driver, planner, name):
    with mock.patch.object(stock.LibvirtDriver, name, autospec=True) as nova:
        getattr(driver, name)(*STARTS[name])
    assert nova.call_count == 1
    planner.release.assert_not_called()


def test_a_network_that_cannot_be_plugged_keeps_no_lease(driver, planner, instance, chained):
    """As in a spawn, a migration or a reboot."""
    with (
        mock.patch.object(
            stock.LibvirtDriver, 'plug_vifs', autospec=True, side_effect=OSError('no network')
        ),
        mock.patch.object(stock.LibvirtDriver, '_cleanup', autospec=True),
        pytest.raises(OSError),
    ):
        driver._create_guest_with_network(CONTEXT, chained, instance, [], None)
    planner.release.assert_called_once_with(instance)


def test_xml_that_cannot_be_read_is_novas(driver, domain, instance, planner, caplog):
    driver._create_guest(CONTEXT, '<domain', instance)
    assert domain.starts == [('<domain', 0)]
    (said,) = warnings(caplog)
    assert said.startswith('Failed to parse the domain XML; using it unchanged: ')
    planner.release.assert_called_with(instance)


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
        CONTEXT,
        instance,
        image,
        [],
        'password',
        {},
        network_info=None,
        block_device_info=None,
        power_on=False,
        accel_info=None,
    )
    planner.spawning.assert_called_once_with(instance, image)
