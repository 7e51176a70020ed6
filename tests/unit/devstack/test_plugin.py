# SPDX-License-Identifier: Apache-2.0
"""The DevStack plugin, phase by phase, in real bash: what it writes, and that it goes again."""

import configparser
import pathlib
import stat

import pytest

from nova_qcache import conf as qcache_conf
from nova_qcache_tempest_plugin import config
from tests.unit.devstack.machine import DevStack
from tests.unit.devstack.machine import PHASES
from tests.unit.devstack.machine import PROJECT
from tests.unit.devstack.machine import USER


def read(path: pathlib.Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.read_string(path.read_text())
    return parser


def options_of(path: pathlib.Path, section: str) -> dict[str, str]:
    parser = read(path)
    return dict(parser[section]) if section in parser else {}


# -- settings


def test_the_settings_define_the_plugin_and_enable_its_service(devstack: DevStack):
    devstack.must('stack', 'install')
    assert devstack.done() == ['define_plugin nova-qcache', f'setup_develop {PROJECT}']


def test_a_service_that_was_disabled_is_left_alone(devstack: DevStack):
    before = devstack.picture()
    devstack.configure(QCACHE_CACHE_PATH='nonsense')
    devstack.configure(DISABLED_SERVICES='qcache')  # "disable_service qcache" in local.conf
    for phase in PHASES:
        devstack.must('stack', phase)
    devstack.must('unstack')
    devstack.must('clean')
    after = devstack.picture()
    assert after.pop('etc/nova/nova-cpu.conf')[1] == devstack.nova_conf.read_text()
    assert after == before


# -- install


def test_the_driver_is_found_in_an_editable_nova(devstack: DevStack):
    devstack.must('stack', 'install')
    shim = devstack.nova_dir / 'nova/virt/qcache'
    assert shim.is_symlink()
    assert (shim / '__init__.py').read_text() == (
        PROJECT / 'nova/virt/qcache/__init__.py'
    ).read_text()


def test_something_else_of_that_name_in_nova_is_not_touched(devstack: DevStack):
    folder = devstack.nova_dir / 'nova/virt/qcache'
    folder.mkdir()
    done = devstack.run('stack', 'install')
    assert done.returncode == 1
    assert f'{folder} is in the way' in done.stderr
    assert folder.is_dir() and not folder.is_symlink()


def test_a_driver_that_nova_would_not_find_stops_the_installation(devstack: DevStack):
    devstack.program('python3', 'exit 1')
    done = devstack.run('stack', 'install')
    assert done.returncode == 1
    assert 'finds no nova.virt.qcache' in done.stderr


# -- post-config


def test_nova_compute_gets_the_driver_and_its_options(devstack: DevStack):
    devstack.configure(QCACHE_QUOTA=300)
    devstack.must('stack', 'post-config')
    assert read(devstack.nova_cpu_conf)['DEFAULT']['compute_driver'] == 'qcache.QcacheDriver'
    written = options_of(devstack.nova_cpu_conf, 'qcache')
    assert written == {
        'debug': 'True',
        'compute_driver': 'qcache.QcacheDriver',
        'cache_path': str(devstack.cache_path),
        'run_path': str(devstack.run_path),
        'quota': '300',
        'qemu_group': 'libvirt-qemu',
    }
    known = {option.name for option in qcache_conf.OPTS}
    assert set(written) - {'debug', 'compute_driver'} <= known


def test_the_folders_are_the_users_and_open_for_passing_through(devstack: DevStack):
    devstack.must('stack', 'post-config')
    for folder in (devstack.cache_path, devstack.run_path):
        assert folder.owner() == USER
        assert stat.S_IMODE(folder.stat().st_mode) == 0o711


def test_recorders_outlive_nova_compute_and_folders_a_reboot(devstack: DevStack):
    devstack.must('stack', 'post-config')
    assert read(devstack.drop_in)['Service']['KillMode'] == 'process'
    assert 'systemctl daemon-reload' in devstack.done()
    lines = devstack.tmpfiles.read_text().splitlines()
    assert lines[1].startswith(f'd {devstack.run_path} 0711 {USER} ')


@pytest.mark.parametrize(
    ('vendor', 'package', 'group'),
    [('Debian', 'deb', 'libvirt-qemu'), ('Ubuntu', 'deb', 'kvm'), ('CentOSStream', 'rpm', 'qemu')],
)
def test_the_user_joins_the_group_of_qemu(
    devstack: DevStack, vendor: str, package: str, group: str
):
    devstack.surround(os_VENDOR=vendor, os_PACKAGE=package)
    devstack.must('stack', 'post-config')
    assert f'add_user_to_group {USER} {group}' in devstack.done()
    assert options_of(devstack.nova_conf, 'qcache')['qemu_group'] == group


def test_guests_may_connect_to_recorders_where_apparmor_confines_them(devstack: DevStack):
    before = devstack.apparmor.read_text()
    devstack.must('stack', 'post-config')
    added = devstack.apparmor.read_text().removeprefix(before)
    assert added.startswith(f'{devstack.run_path}/guests/*.nbd rw,')
    devstack.configure(QCACHE_RUN_PATH=devstack.tree / 'run2')
    devstack.must('stack', 'post-config')
    assert devstack.apparmor.read_text() == before + added.replace('/run/', '/run2/')


def test_without_apparmor_there_is_no_rule(devstack: DevStack):
    (devstack.tree / 'etc/apparmor.d/abstractions/libvirt-qemu').unlink()
    before = devstack.apparmor.read_text()
    devstack.must('stack', 'post-config')
    assert devstack.apparmor.read_text() == before


# -- the base


@pytest.mark.parametrize('package', ['deb', 'rpm'])
def test_a_local_base_takes_nothing(devstack: DevStack, package: str):
    devstack.surround(os_PACKAGE=package)
    devstack.stack()
    assert not devstack.mounts()
    assert not [line for line in devstack.done() if line.startswith('install_package')]


def test_a_limited_base_is_a_slow_view_of_a_folder(devstack: DevStack):
    devstack.configure(QCACHE_BASE='limited', QCACHE_BASE_RATE='12M')
    devstack.stack()
    base = devstack.instances / '_base'
    catalog = devstack.tree / 'opt/stack/data/nova-qcache-base'
    assert 'install_package bindfs' in devstack.done()
    assert f'bindfs -o allow_other --read-rate=12M {catalog} {base}' in devstack.done()
    assert catalog.owner() == USER
    assert devstack.mounts() == [str(base)]


@pytest.mark.parametrize(('package', 'name'), [('deb', 'nfs-common'), ('rpm', 'nfs-utils')])
def test_a_base_on_nfs_is_mounted_hard(devstack: DevStack, package: str, name: str):
    devstack.surround(os_PACKAGE=package)
    devstack.configure(QCACHE_BASE='nfs', QCACHE_BASE_NFS='filer:/images')
    devstack.stack()
    base = devstack.instances / '_base'
    assert f'install_package {name}' in devstack.done()
    assert f'mount -t nfs -o hard filer:/images {base}' in devstack.done()
    assert devstack.mounts() == [str(base)]


@pytest.mark.parametrize('kind', ['limited', 'nfs'])
def test_a_base_that_cannot_be_mounted_stops_with_its_name(devstack: DevStack, kind: str):
    devstack.configure(QCACHE_BASE=kind, QCACHE_BASE_NFS='filer:/images')
    (devstack.root / 'unmountable').touch()
    done = devstack.run('stack', 'post-config')
    assert done.returncode != 0
    assert f'QCACHE_BASE={kind}' in done.stderr or 'filer:/images' in done.stderr


def test_a_share_that_is_closed_is_not_left_mounted(devstack: DevStack):
    devstack.configure(QCACHE_BASE='nfs', QCACHE_BASE_NFS='filer:/images')
    (devstack.root / 'closed').write_text(f'{devstack.instances}/_base\n')
    done = devstack.run('stack', 'post-config')
    assert done.returncode == 1
    assert f"'filer:/images' is closed to {USER}" in done.stderr
    assert not devstack.mounts()


def test_what_others_mounted_at_the_base_is_left_alone(devstack: DevStack):
    base = devstack.instances / '_base'
    (devstack.root / 'mounts').write_text(f'{base}\n')
    devstack.configure(QCACHE_BASE='limited')
    done = devstack.run('stack', 'post-config')
    assert done.returncode == 1
    assert f'something else is mounted at {base}' in done.stderr
    devstack.configure(QCACHE_BASE='local')
    devstack.stack()
    devstack.must('unstack')
    devstack.must('clean')
    assert devstack.mounts() == [str(base)]


def test_stacking_again_unmounts_the_base_before_nova_empties_the_folder(devstack: DevStack):
    devstack.configure(QCACHE_BASE='nfs', QCACHE_BASE_NFS='filer:/images')
    devstack.stack()
    devstack.configure(QCACHE_BASE='local')  # whatever local.conf says by then
    devstack.must('stack', 'pre-install')
    assert not devstack.mounts()


# -- extra and test-config


def test_the_host_is_checked_as_the_user_of_nova_compute(devstack: DevStack):
    devstack.must('stack', 'post-config')
    devstack.must('stack', 'extra')
    assert f'nova-qcache --config-file {devstack.nova_cpu_conf} check' in devstack.done()


def test_a_host_that_is_not_fit_stops_stack_sh(devstack: DevStack):
    devstack.program('nova-qcache', 'exit 1')
    done = devstack.run('stack', 'extra')
    assert done.returncode == 1
    assert 'not fit for nova-qcache' in done.stderr


def test_tempest_is_told_what_there_is_and_how_to_look(devstack: DevStack):
    devstack.stack()
    service = read(devstack.tempest_conf)[config.SERVICE_GROUP]
    assert service[config.SERVICE_OPTION.name] == 'True'
    written = options_of(devstack.tempest_conf, config.GROUP.name)
    assert set(written) <= {option.name for option in config.OPTS}
    assert written.pop('compute_host')
    command = f'{devstack.root}/bin/nova-qcache --config-file {devstack.nova_cpu_conf}'
    assert written == {
        'host_command': 'sudo',
        'nova_qcache_command': command,
        'virsh_command': 'virsh --connect qemu:///system',
    }


def test_a_controller_gets_the_package_and_tempest_alone(devstack: DevStack):
    devstack.surround(ENABLED_SERVICES='n-api,tempest')
    before = devstack.picture()
    devstack.stack()
    after = devstack.picture()
    changed = {path for path in after if before.get(path) != after[path]}
    assert changed == {'opt/stack/tempest/etc/tempest.conf', 'etc/nova/nova-cpu.conf'}
    assert options_of(devstack.tempest_conf, 'qcache') == {}
    devstack.must('unstack')
    devstack.must('clean')
    assert devstack.tempest_conf.read_text() == before['opt/stack/tempest/etc/tempest.conf'][1]


def test_without_tempest_nothing_is_written_for_it(devstack: DevStack):
    devstack.surround(ENABLED_SERVICES='n-cpu')
    before = devstack.tempest_conf.read_text()
    devstack.stack()
    assert devstack.tempest_conf.read_text() == before


# -- all of it


KINDS = [
    {},
    {'QCACHE_BASE': 'limited'},
    {'QCACHE_BASE': 'nfs', 'QCACHE_BASE_NFS': 'filer:/images'},
]


@pytest.mark.parametrize('settings', KINDS)
@pytest.mark.parametrize('phase', PHASES)
def test_a_phase_that_is_run_twice_changes_nothing(
    devstack: DevStack, phase: str, settings: dict[str, str]
):
    devstack.configure(**settings)
    for each in PHASES[: PHASES.index(phase) + 1]:
        devstack.must('stack', each)
    before, mounts = devstack.picture(), devstack.mounts()
    devstack.must('stack', phase)
    assert (devstack.picture(), devstack.mounts()) == (before, mounts)


@pytest.mark.parametrize('settings', KINDS)
def test_clean_leaves_what_was_there_before(devstack: DevStack, settings: dict[str, str]):
    devstack.configure(**settings)
    before = devstack.picture()
    devstack.stack()
    assert devstack.picture() != before
    (devstack.cache_path / 'x.qcow2').touch()
    for name in ('locks', 'pins', 'statistics', 'generations'):
        (devstack.cache_path / name).mkdir()
    (devstack.run_path / 'leases').mkdir()
    for _ in range(2):
        devstack.must('unstack')
        devstack.must('clean')
        left = devstack.picture()
        # DevStack's own clean.sh removes these two a moment later.
        assert left.pop('etc/nova/nova-cpu.conf')[1] == devstack.nova_conf.read_text()
        left.pop('opt/stack/data/nova/instances/_base', None)
        assert left == before
        assert not devstack.mounts()


def test_clean_leaves_what_is_not_ours_in_the_folders(devstack: DevStack):
    devstack.stack()
    (devstack.cache_path / 'notes.txt').write_text('mine')
    devstack.must('unstack')
    devstack.must('clean')
    assert [path.name for path in devstack.cache_path.iterdir()] == ['notes.txt']


def test_clean_leaves_another_driver_that_was_chosen_meanwhile(devstack: DevStack):
    devstack.stack()
    text = devstack.nova_conf.read_text().replace('qcache.QcacheDriver', 'fake.FakeDriver')
    devstack.nova_conf.write_text(text)
    devstack.must('clean')
    assert read(devstack.nova_conf)['DEFAULT']['compute_driver'] == 'fake.FakeDriver'


def test_unstack_and_clean_of_what_was_never_stacked(devstack: DevStack):
    before = devstack.picture()
    devstack.must('unstack')
    devstack.must('clean')
    assert devstack.picture() == before


# -- unstack


def test_nova_and_its_guests_end_before_what_they_stand_on(devstack: DevStack):
    devstack.configure(QCACHE_BASE='limited')
    devstack.stack()
    (devstack.root / 'guests').write_text('instance-00000001\nmine\n')
    devstack.must('unstack')
    base = devstack.instances / '_base'
    wanted = ['stop_process n-cpu', 'virsh destroy instance-00000001', f'umount {base}']
    assert [line for line in devstack.done() if line in wanted] == wanted
    assert (devstack.root / 'guests').read_text() == 'mine\n'


def test_a_base_in_use_stops_unstack_sh_before_nova_empties_it(devstack: DevStack):
    devstack.configure(QCACHE_BASE='nfs', QCACHE_BASE_NFS='filer:/images')
    devstack.stack()
    (devstack.root / 'busy').touch()
    done = devstack.run('unstack')
    assert done.returncode != 0
    base = devstack.instances / '_base'
    assert f'{base} is in use and stays mounted' in done.stderr
    assert devstack.mounts() == [str(base)]
