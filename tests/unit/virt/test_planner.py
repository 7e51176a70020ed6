# SPDX-License-Identifier: Apache-2.0
"""From an instance to a plan; and that no fault on the way reaches Nova."""

import contextlib
import dataclasses
import logging
import operator
import subprocess
import time
from unittest import mock

from nova import objects
from nova.compute import vm_states
import pytest

from nova_qcache import conf as qcache_conf
from nova_qcache import exception
from nova_qcache.cache.pins import Pins
from nova_qcache.engine.boots import Boots
from nova_qcache.engine.maintenance import Maintenance
from nova_qcache.model.plan import Boot
from nova_qcache.model.plan import Cause
from nova_qcache.model.plan import PlanKind
from nova_qcache.model.plan import Policy
from nova_qcache.system import confinement
from nova_qcache.system import process_survival
from nova_qcache.system.libvirt_domains import LibvirtDomains
from nova_qcache.system.paths import Paths
from nova_qcache.virt import eligibility
from nova_qcache.virt import planner as planner_module
from nova_qcache.virt.planner import Planner
from tests.unit.builders import IMAGE
from tests.unit.builders import OTHER_IMAGE
from tests.unit.virt import documents

LIBVIRT_9_0 = (9, 0, 0)
LIBVIRT_9_2 = (9, 2, 0)

SURPRISES = [
    exception.LockTimeout(name='x', path='y', seconds=1),
    OSError(28, 'No space left on device'),
    ValueError('embedded null byte'),
    RuntimeError('a plugin'),
    RecursionError('too deep'),
    subprocess.TimeoutExpired('qemu-img', 10),
    AssertionError(),
]


@pytest.fixture
def host_problems():
    """What speaks against recording on this host: nothing, unless a test says otherwise."""
    with (
        mock.patch.object(confinement, 'problem', autospec=True, return_value=None) as confined,
        mock.patch.object(process_survival, 'problem', autospec=True, return_value=None) as ends,
    ):
        yield mock.Mock(confinement=confined, process_survival=ends)


def domains(version=LIBVIRT_9_0):
    """The libvirt of that version; an exception in its place is raised."""
    made = mock.create_autospec(LibvirtDomains, instance=True)
    made.version.side_effect = [version]
    return made


@pytest.fixture
def made():
    """The class of the manager that the planner makes."""
    with mock.patch.object(planner_module, 'Manager', autospec=True) as made:
        yield made


@pytest.fixture
def manager(made, record, tmp_path):
    manager = made.return_value
    manager.paths = Paths(tmp_path / 'cache', tmp_path / 'run')
    manager.boots = mock.create_autospec(Boots, instance=True)
    manager.pins = mock.create_autospec(Pins, instance=True)
    manager.maintenance = mock.create_autospec(Maintenance, instance=True)
    manager.boots.plan.return_value = record
    return manager


@pytest.fixture
def planner(manager, host_problems):
    planner = Planner()
    planner.start(domains())
    return planner


@pytest.fixture
def ask(planner, instance, overlay_path):
    """Ask for the plan of the instance's root disk."""

    def ask(disk_name='disk', mapping=None, extra_specs=None):
        return planner.plan(
            instance, disk_name, str(overlay_path), mapping or {}, extra_specs or {}
        )

    return ask


def asked(manager) -> Boot:
    """Return what the manager was asked last."""
    (boot,) = manager.boots.plan.call_args.args
    assert isinstance(boot, Boot)
    return boot


def problems(caplog):
    return [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]


# -- a plan


def test_a_plan_is_the_managers(ask, overlay, base_path, manager, plan):
    manager.boots.plan.return_value = plan
    assert ask() is plan
    manager.boots.plan.assert_called_once_with(
        Boot(IMAGE, str(base_path), 'raw', consumer=documents.INSTANCE)
    )


def test_somebody_is_there_for_guests_that_are_saved(ask, overlay, manager, plan):
    """From the lease on, which a keeper that is about to end sees."""
    manager.boots.plan.side_effect = lambda boot: manager.boots.keep.reset_mock() or plan
    ask()
    manager.boots.keep.assert_called_once_with()


def test_a_plain_guest_needs_nobody(ask, overlay, manager, plan):
    manager.boots.plan.return_value = dataclasses.replace(plan, kind=PlanKind.PLAIN)
    manager.boots.keep.reset_mock()
    ask()
    manager.boots.keep.assert_not_called()


def test_the_chain_ends_where_the_overlay_says(ask, overlay, base_path, tmp_path, manager):
    """The base is not the one that a path is made up for."""
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    moved = base_path.rename(elsewhere / base_path.name)
    rebase = ['qemu-img', 'rebase', '-u', '-b', str(moved), '-F', 'qcow2', str(overlay)]
    subprocess.run(rebase, check=True)
    ask()
    assert (asked(manager).base, asked(manager).base_format) == (str(moved), 'qcow2')


def test_what_the_image_or_flavor_wishes_is_passed_on(ask, overlay, manager):
    ask(extra_specs={'qcache:policy': 'always'})
    assert asked(manager).policy is Policy.ALWAYS


def test_an_image_of_one_boot_is_said_to_be_one(ask, overlay, instance, manager):
    instance.vm_state = vm_states.SHELVED_OFFLOADED
    instance.system_metadata['image_base_image_ref'] = OTHER_IMAGE
    ask()
    assert asked(manager).boots_once


def test_a_plain_plan_is_none(ask, overlay, manager, record):
    manager.boots.plan.return_value = dataclasses.replace(record, kind=PlanKind.PLAIN, socket=None)
    assert ask() is None


def test_what_is_not_eligible_is_no_question_for_the_manager(ask, overlay, manager, caplog):
    caplog.set_level(logging.INFO)
    assert ask('disk.swap') is None
    assert ask(mapping={'encrypted': True}) is None
    assert ask(extra_specs={'qcache:policy': 'never'}) is None
    manager.boots.plan.assert_not_called()
    assert 'boots without a cache: its disk is encrypted' in caplog.text
    assert problems(caplog) == []


def test_an_overlay_that_is_not_there(ask, overlay_path, manager, caplog):
    assert ask() is None
    manager.boots.plan.assert_not_called()
    assert problems(caplog) == []


@pytest.mark.parametrize('content', [b'', b'QFI', b'no qcow2 image' * 100])
def test_an_overlay_that_is_no_qcow2_image(ask, overlay, manager, content):
    overlay.write_bytes(content)
    assert ask() is None
    manager.boots.plan.assert_not_called()


def test_a_disk_without_a_base(ask, overlay, manager, caplog):
    caplog.set_level(logging.INFO)
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', str(overlay), '1M'], check=True)
    assert ask() is None
    manager.boots.plan.assert_not_called()
    assert 'its disk has no base image' in caplog.text


def test_a_legacy_base_with_its_size_in_its_name(ask, overlay, base_path, manager, caplog):
    caplog.set_level(logging.INFO)
    legacy = base_path.rename(f'{base_path}_20')
    subprocess.run(
        ['qemu-img', 'rebase', '-u', '-b', str(legacy), '-F', 'raw', str(overlay)],
        check=True,
    )
    assert ask() is None
    manager.boots.plan.assert_not_called()
    assert "is not the base of the instance's image" in caplog.text


@pytest.mark.parametrize('surprise', SURPRISES, ids=lambda surprise: type(surprise).__name__)
def test_no_fault_of_the_manager_reaches_nova(ask, overlay, manager, surprise, caplog):
    manager.boots.plan.side_effect = surprise
    assert ask() is None
    assert [level for level, _ in problems(caplog)] == [logging.ERROR]


def test_no_fault_of_an_instance_reaches_nova(planner, caplog):
    assert planner.plan(mock.Mock(spec=['uuid']), 'disk', '/x', {}, {}) is None
    assert [level for level, _ in problems(caplog)] == [logging.ERROR]


def test_a_manager_that_says_nonsense(ask, overlay, manager):
    manager.boots.plan.return_value = None
    assert ask() is None


def test_what_ends_the_process_does(ask, overlay, manager):
    manager.boots.plan.side_effect = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        ask()


# -- what Nova says


def test_a_release_is_the_instances(planner, instance, manager):
    planner.release(instance)
    manager.boots.release.assert_called_once_with(documents.INSTANCE)


@pytest.mark.parametrize(
    ('disk_name', 'released'), [('disk', True), ('disk.swap', False), ('disk.config', False)]
)
def test_an_earlier_plan_of_the_root_disk_ends(ask, overlay, manager, disk_name, released):
    """Another disk says nothing about it: Nova asks for all disks of a domain in one go."""
    ask(disk_name, extra_specs={'qcache:policy': 'never'})
    assert manager.boots.release.called is released


def test_a_plan_is_kept(ask, overlay, manager):
    ask()
    manager.boots.release.assert_not_called()


@pytest.mark.parametrize('error', [None, ConnectionError('Glance is away')])
def test_a_write_is_announced_before_and_after(planner, manager, error):
    """After, too: for what was made or compared meanwhile."""
    with contextlib.suppress(ConnectionError), planner.writing('/base'):
        manager.boots.announce_write.assert_called_once_with('/base', 'raw')
        if error:
            raise error
    assert manager.boots.announce_write.mock_calls == [mock.call('/base', 'raw')] * 2


@pytest.mark.parametrize('surprise', SURPRISES, ids=repr)
def test_what_is_only_noted_fails_nothing_of_novas(planner, manager, instance, overlay, surprise):
    planner.plan(instance, 'disk', str(overlay), {}, {})
    for verb in ('boots.release', 'boots.count', 'allocated_beside', 'pins.pin'):
        operator.attrgetter(verb)(manager).side_effect = surprise
    planner.fall_back(instance)
    planner.started(instance)
    manager.boots.count.assert_called_once()
    planner.release(instance)
    planner.precached(IMAGE)
    assert planner.disk_usage('/instances') == 0


# -- start


def test_a_planner_that_is_not_started_plans_nothing(instance, overlay, made):
    planner = Planner()
    assert planner.plan(instance, 'disk', str(overlay), {}, {}) is None
    planner.release(instance)
    with planner.writing('/base'):
        pass
    planner.run_maintenance(set())
    planner.precached(IMAGE)
    planner.fall_back(instance)
    planner.started(instance)
    assert planner.disk_usage('/') == 0
    made.assert_not_called()


def test_it_starts_with_novas_configuration(planner, made, nova_conf, tmp_path):
    made.assert_called_once_with(nova_conf, mock.ANY)
    assert isinstance(made.call_args.args[1], LibvirtDomains)
    assert qcache_conf.instances_path(nova_conf) == tmp_path / 'instances'


def test_a_folder_of_instances_that_the_operator_names_is_kept(manager, host_problems, nova_conf):
    nova_conf.set_override('instances_path', '/elsewhere', 'qcache')
    Planner().start(domains())
    assert str(qcache_conf.instances_path(nova_conf)) == '/elsewhere'


@pytest.mark.parametrize('problem', ['confinement', 'process_survival'])
def test_a_reason_is_said_once_and_passed_on(
    manager, host_problems, instance, overlay, caplog, problem
):
    getattr(host_problems, problem).return_value = 'the remedy is here'
    planner = Planner()
    planner.start(domains())
    assert problems(caplog) == [
        (logging.WARNING, 'nova-qcache cannot record on this host: the remedy is here')
    ]
    for _ in range(2):
        planner.plan(instance, 'disk', str(overlay), {}, {})
        assert asked(manager).no_recording == 'the remedy is here'
    assert len(problems(caplog)) == 1


def test_the_sockets_of_guests_are_what_is_confined(planner, manager, host_problems):
    host_problems.confinement.assert_called_once_with(manager.paths.guests)


@pytest.mark.parametrize(
    ('version', 'seconds'),
    [((8, 0, 0), 0), (LIBVIRT_9_0, 0), ((9, 1, 999), 0), (LIBVIRT_9_2, 77), ((11, 3, 0), 77)],
)
def test_guests_reconnect_only_where_libvirt_knows_it(
    manager, host_problems, nova_conf, version, seconds
):
    nova_conf.set_override('base_reconnect_seconds', 77, 'qcache')
    planner = Planner()
    assert planner.reconnect_seconds == 0
    planner.start(domains(version))
    assert planner.reconnect_seconds == seconds


def test_a_libvirt_that_does_not_say_its_version(manager, host_problems, ask, overlay, caplog):
    planner = Planner()
    planner.start(domains(exception.DomainsUnknown(uri='x', reason='it hangs')))
    assert planner.reconnect_seconds == 0
    assert problems(caplog) == [
        (logging.WARNING, 'Failed to ask libvirt for its version; using no <reconnect>: it hangs')
    ]
    manager.boots.keep.assert_called_with()


@pytest.mark.parametrize('surprise', SURPRISES, ids=repr)
@pytest.mark.parametrize('verb', ['clean_up', 'boots.keep'])
def test_no_fault_of_ours_fails_the_start_of_nova_compute(manager, host_problems, verb, surprise):
    operator.attrgetter(verb)(manager).side_effect = surprise
    Planner().start(domains())


@pytest.fixture
def folders(nova_conf, short_folder):
    """A real manager's folders."""
    nova_conf.set_override('cache_path', str(short_folder / 'cache'), 'qcache')
    nova_conf.set_override('run_path', str(short_folder / 'run'), 'qcache')
    return short_folder


def started(caplog):
    planner = Planner()
    planner.start(domains(LIBVIRT_9_2))
    return planner, problems(caplog)


@pytest.mark.parametrize(
    ('option', 'value', 'said'),
    [
        ('quota', -1, 'quota'),
        ('quota', 0, 'quota'),
        ('cluster_size', 5000, 'cluster_size'),
        ('cache_path', 'relative', 'cache_path'),
        ('cache_path', '/var/lib/nova/instances/_base', 'image cache manager'),
        ('run_path', '/dev/null', '/dev/null'),
        ('cache_path', '/proc/nowhere/cache', '/proc/nowhere/cache'),
    ],
)
def test_what_makes_no_sense_is_one_error_and_it_stays_off(
    folders, nova_conf, host_problems, instance, overlay, caplog, option, value, said
):
    nova_conf.set_override(option, value, 'qcache')
    planner, errors = started(caplog)
    assert [level for level, _ in errors] == [logging.ERROR]
    assert 'nova-qcache is off, and all instances boot without a cache' in errors[0][1]
    assert said in errors[0][1]
    with mock.patch.object(eligibility, 'refusal_of', autospec=True) as eligible:
        for _ in range(2):
            assert planner.plan(instance, 'disk', str(overlay), {}, {}) is None
    eligible.assert_not_called()  # for that Nova may ask the conductor
    planner.started(instance)
    planner.release(instance)
    planner.precached(IMAGE)
    planner.run_maintenance({IMAGE})
    with planner.writing('/base'):
        assert planner.disk_usage('/') == 0
    assert len(problems(caplog)) == 1


@pytest.mark.parametrize('where', ['manager', 'confinement', 'process_survival'])
def test_no_fault_at_the_start_reaches_nova(manager, made, host_problems, where, caplog):
    fault = RuntimeError('never thought of')
    {'manager': made}.get(where, getattr(host_problems, where)).side_effect = fault
    planner, errors = started(caplog)
    assert [level for level, _ in errors] == [logging.ERROR]
    assert 'never thought of' in caplog.text
    with planner.writing('/base'):
        pass
    manager.boots.announce_write.assert_not_called()


def test_with_a_real_manager(
    folders, nova_conf, host_problems, instance, overlay, base_path, caplog, launch_start, recorder
):
    """Nothing between the instance and the engine but the engine's own doubles."""
    caplog.set_level(logging.INFO)
    planner, errors = started(caplog)
    assert errors == []
    plan = planner.plan(instance, 'disk', str(overlay), {}, {})
    assert plan is not None
    assert plan.kind is PlanKind.RECORD
    assert (plan.image_id, plan.base, plan.base_format) == (IMAGE, str(base_path), 'raw')
    (lease,) = (folders / 'run' / 'leases').glob('*.json')
    assert lease.name.startswith(documents.INSTANCE)
    planner.release(instance)
    assert not lease.exists()
    assert f'Image {IMAGE}: RECORD' in caplog.text


def test_a_real_manager_and_a_reason(
    folders, host_problems, instance, overlay, launch_start, recorder, caplog
):
    host_problems.confinement.return_value = 'closed'
    planner, _ = started(caplog)
    assert planner.plan(instance, 'disk', str(overlay), {}, {}) is None
    launch_start.assert_not_called()


# -- what Glance says of an image


@pytest.mark.parametrize(
    ('image', 'said'),
    [
        ({'id': IMAGE, 'checksum': 'c0ffee'}, 'md5:c0ffee'),
        ({'id': IMAGE, 'checksum': ''}, ''),
        ({'id': IMAGE}, ''),
        ({'checksum': 'c0ffee'}, ''),
        ({'id': OTHER_IMAGE, 'checksum': 'c0ffee'}, ''),
    ],
)
def test_glances_hash_is_passed_on_for_new_instances(
    planner, ask, overlay, instance, manager, image, said
):
    with planner.spawning(instance, objects.ImageMeta(**image)):
        ask()
        assert asked(manager).image_hash == said
    ask()
    assert asked(manager).image_hash == ''


def test_an_unshelve_begins_on_another_image(planner, ask, overlay, instance, manager):
    """Nova says that the shelved disk's image is the instance's, until the instance runs."""
    instance.image_ref = OTHER_IMAGE
    with planner.spawning(instance, objects.ImageMeta(id=OTHER_IMAGE, checksum='c0ffee')):
        ask()
    assert (asked(manager).image_id, asked(manager).image_hash) == (IMAGE, '')


def test_a_spawn_that_fails_is_forgotten(planner, ask, overlay, instance, manager):
    with (
        contextlib.suppress(ValueError),
        planner.spawning(instance, objects.ImageMeta(id=IMAGE, checksum='c0ffee')),
    ):
        raise ValueError
    ask()
    assert asked(manager).image_hash == ''


# -- periodic work


@pytest.mark.parametrize(('removes', 'age'), [(True, 777), (False, None)])
def test_caches_age_as_bases_do(planner, manager, nova_conf, removes, age):
    nova_conf.set_override('remove_unused_base_images', removes, 'image_cache')
    nova_conf.set_override('remove_unused_original_minimum_age_seconds', 777, 'image_cache')
    planner.run_maintenance({IMAGE})
    manager.maintenance.run.assert_called_once_with({IMAGE}, age)
    assert manager.boots.keep.call_count == 2  # at the start, too


@pytest.mark.parametrize('surprise', SURPRISES)
def test_periodic_work_of_novas_goes_on(planner, manager, caplog, surprise):
    manager.maintenance.run.side_effect = surprise
    planner.run_maintenance(set())
    assert 'error in the periodic run' in caplog.text


def test_a_precached_image_is_pinned_for_as_long_as_its_unused_base_stays(
    planner, manager, nova_conf
):
    nova_conf.set_override('remove_unused_original_minimum_age_seconds', 777, 'image_cache')
    before = time.time()
    planner.precached(IMAGE)
    ((image_id, until, reason),) = (call.args for call in manager.pins.pin.mock_calls)
    assert (image_id, reason) == (IMAGE, 'precached')
    assert before + 777 <= until <= time.time() + 777


def test_a_pin_that_cannot_be_written_fails_no_request(planner, manager, caplog):
    manager.pins.pin.side_effect = OSError(28, 'No space left on device')
    planner.precached(IMAGE)
    assert [level for level, _ in problems(caplog)] == [logging.WARNING]


# -- what counts


def counted(manager):
    return [call.args[0] for call in manager.boots.count.mock_calls]


def test_a_boot_counts_once_and_when_it_has_started(
    ask, overlay, planner, manager, instance, plan
):
    manager.boots.plan.return_value = plan
    ask()
    ask('disk.swap')  # whose plan is another matter
    assert counted(manager) == []
    planner.started(instance)
    planner.started(instance)
    assert counted(manager) == [plan]


@pytest.mark.parametrize(
    ('mapping', 'extra_specs', 'cause'),
    [
        ({'encrypted': True}, {}, Cause.INELIGIBLE),
        ({}, {'qcache:policy': 'never'}, Cause.POLICY),
    ],
)
def test_a_boot_that_nobody_planned_a_cache_for_counts(
    ask, overlay, planner, manager, instance, mapping, extra_specs, cause
):
    ask(mapping=mapping, extra_specs=extra_specs)
    planner.started(instance)
    (plan,) = counted(manager)
    assert (plan.kind, plan.image_id, plan.cause) == (PlanKind.PLAIN, IMAGE, cause)


def test_a_start_without_the_cache_counts_as_one(ask, overlay, planner, manager, instance, plan):
    """It read all from the base: no cache has saved anything."""
    manager.boots.plan.return_value = plan
    ask()
    planner.fall_back(instance)
    planner.started(instance)
    (said,) = counted(manager)
    assert (said.kind, said.image_id, said.cause) == (PlanKind.PLAIN, IMAGE, Cause.FALLBACK)


def test_a_start_that_never_came_does_not_count(ask, overlay, planner, manager, instance):
    ask()
    planner.release(instance)
    planner.started(instance)
    assert counted(manager) == []


def test_a_start_of_an_earlier_plan_does_not_count(ask, overlay, planner, manager, instance):
    ask()
    manager.boots.plan.side_effect = RuntimeError('a plugin')
    ask()
    planner.started(instance)
    assert counted(manager) == []


def test_a_start_that_nobody_planned_does_not_count(planner, manager, instance):
    """A resume, for one."""
    planner.fall_back(instance)
    planner.started(instance)
    assert counted(manager) == []


def test_what_caches_take_counts_beside_the_instances(planner, manager):
    manager.allocated_beside.return_value = 4096
    assert planner.disk_usage('/instances') == 4096
    manager.allocated_beside.assert_called_once_with('/instances')
    manager.allocated_beside.side_effect = OSError(5, 'Input/output error')
    assert planner.disk_usage('/instances') == 0
