# SPDX-License-Identifier: Apache-2.0
"""Does AppArmor or SELinux keep guests from a recorder; each test has a root folder of its own."""

import configparser
import os
import pathlib
from unittest import mock

import pytest

from nova_qcache import conf as qcache_conf
from nova_qcache.system import confinement

ROOT = pathlib.Path(__file__).parents[3]
GUESTS = pathlib.Path('/run/nova-qcache/guests')
RULE = f'{GUESTS}/*.nbd rw,'

ENABLED = 'sys/module/apparmor/parameters/enabled'
ABSTRACTION = 'etc/apparmor.d/abstractions/libvirt-qemu'
LOCAL = 'etc/apparmor.d/local/abstractions/libvirt-qemu'
ENFORCE = 'sys/fs/selinux/enforce'
LIBVIRT = 'etc/libvirt/qemu.conf'

# The ends of the abstraction in Debian 12, and as libvirt itself has it.
INCLUDES = [
    '  #include <local/abstractions/libvirt-qemu>',
    '  include if exists <local/abstractions/libvirt-qemu>',
]


class Host:
    """A root folder in the making."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, path, text):
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + '\n')

    def problem(self, guests=GUESTS):
        return confinement.problem(guests, self.folder)


@pytest.fixture
def host(tmp_path):
    """A host without any confinement."""
    return Host(tmp_path)


@pytest.fixture
def apparmor(host):
    """A host with AppArmor and libvirt, and without our rule."""
    host.write(ENABLED, 'Y')
    host.write(ABSTRACTION, f'  #include <abstractions/base>\n  /dev/kvm rw,\n{INCLUDES[0]}')
    host.write(LOCAL, '')
    return host


@pytest.fixture
def getxattr():
    with mock.patch.object(os, 'getxattr', autospec=True) as made:
        made.return_value = b'system_u:object_r:var_run_t:s0\0'
        yield made


@pytest.fixture
def selinux(host, getxattr):
    """A host with SELinux, and without our module."""
    host.write(ENFORCE, '1')
    return host


def test_a_host_without_any(host):
    assert host.problem() is None


# -- AppArmor


def test_no_rule(apparmor):
    assert apparmor.problem() == (
        'no rule of AppArmor lets guests connect to the sockets in /run/nova-qcache/guests; '
        f'append the line `{RULE}` to {apparmor.folder}/{LOCAL}, make that and its folder if they '
        'are missing, and restart nova-compute'
    )


@pytest.mark.parametrize('include', INCLUDES)
def test_the_rule_that_is_proposed(apparmor, include):
    apparmor.write(ABSTRACTION, include)
    proposed = apparmor.problem().split('`')[1]
    apparmor.write(LOCAL, proposed)
    assert apparmor.problem() is None


@pytest.mark.parametrize('name', ['a place', '{a,b}', '[a]*?', 'a^b'])
def test_the_rule_that_is_proposed_for_an_odd_folder(apparmor, tmp_path, name):
    folder = tmp_path / name / 'guests'
    apparmor.write(LOCAL, apparmor.problem(folder).split('`')[1])
    assert apparmor.problem(folder) is None
    assert apparmor.problem(tmp_path / 'a' / 'guests') is not None


def test_a_local_file_that_is_not_there(apparmor):
    (apparmor.folder / LOCAL).unlink()
    assert f'{apparmor.folder}/{LOCAL}' in apparmor.problem()


def test_the_abstraction_of_debian_13(apparmor):
    """It includes two places of the host's own, neither of which is there, nor is the folder."""
    (apparmor.folder / LOCAL).unlink()
    (apparmor.folder / LOCAL).parent.rmdir()
    apparmor.write(
        ABSTRACTION,
        '  include if exists <abstractions/libvirt-qemu.d>\n'
        '  include if exists <local/abstractions/libvirt-qemu>\n',
    )
    assert f'to {apparmor.folder}/{LOCAL}, make that and its folder' in apparmor.problem()
    apparmor.write(LOCAL, RULE)
    assert apparmor.problem() is None


def test_a_local_file_that_nothing_includes(apparmor):
    apparmor.write(ABSTRACTION, '/dev/kvm rw,')
    apparmor.write(LOCAL, RULE)
    assert f'to {apparmor.folder}/{ABSTRACTION},' in apparmor.problem()
    apparmor.write(ABSTRACTION, RULE)
    assert apparmor.problem() is None


@pytest.mark.parametrize('enabled', ['N', ''])
def test_apparmor_that_is_off(apparmor, enabled):
    apparmor.write(ENABLED, enabled)
    assert apparmor.problem() is None


def test_a_host_without_libvirt(apparmor):
    (apparmor.folder / ABSTRACTION).unlink()
    assert apparmor.problem() is None


@pytest.mark.parametrize(
    'rule',
    [
        '/run/nova-qcache/guests/* rw,',
        '  /run/nova-qcache/guests/*.nbd rw,  # of nova-qcache',
        '"/run/nova-qcache/guests/*.nbd" rw,',
        '/run/nova-qcache/** rwk,',
        '/run/nova-qcache/{guests,control}/*.nbd wr,',
        '/{var/,}run/nova-qcache/guests/*.nbd rw,',
        '/{,var/}run/nova-qcache/guests/*.nbd rw,',
        '@{run}/nova-qcache/guests/*.nbd rw,',
        '@{run}nova-qcache/guests/*.nbd rw,',
        '/run/nova?qcache/guests/[0-9a-f]*.nbd rw,',
        '/run/nova-qcache/guests/[[0-9a-f]*.nbd rw,',
        '/run/nova\\-qcache/guests/*.nbd rw,',
        'allow /run/nova-qcache/guests/*.nbd rw,',
        'audit file /run/nova-qcache/guests/*.nbd rw,',
        '/run/nova-qcache/guests/* r,\n/run/nova-qcache/guests/* w,',
        f'deny /run/nova-qcache/control/* rw,\n{RULE}',
        f'deny /run/nova-qcache/guests/* x,\n{RULE}',
    ],
)
def test_a_rule_that_will_do(apparmor, rule):
    apparmor.write(LOCAL, rule)
    assert apparmor.problem() is None


@pytest.mark.parametrize(
    'rule',
    [
        f'# {RULE}',
        f'#{RULE}',
        RULE.rstrip(','),
        '/run/nova-qcache/guests/*.nbd r,',
        '/run/nova-qcache/guests/*.nbd w,',
        '/run/nova-qcache/guests/*.sock rw,',
        '/run/nova-qcache/guests/ rw,',
        '/run/nova-qcache/* rw,',
        '/var/run/nova-qcache/guests/*.nbd rw,',
        '/srv/run/nova-qcache/guests/*.nbd rw,',
        '/run/nova.qcache/guests/*.nbd rw,',
        '/run/nova-qcache?guests/*.nbd rw,',
        '@{PROC}/nova-qcache/guests/*.nbd rw,',
        '@{somewhere}/** rw,',
        '/run/nova-qcache/guests/[*.nbd rw,',
        '/run/nova-qcache/guests/{*.nbd rw,',
        'owner /run/nova-qcache/guests/*.nbd rw,',
        'unix (connect) type=stream,',
    ],
)
def test_a_rule_that_will_not_do(apparmor, rule):
    apparmor.write(LOCAL, rule)
    assert apparmor.problem().startswith('no rule of AppArmor lets guests')


@pytest.mark.parametrize('rights', ['w', 'rw', 'mrwkl'])
@pytest.mark.parametrize('how', ['deny', 'audit deny'])
def test_a_rule_that_denies(apparmor, rights, how):
    apparmor.write(LOCAL, f'{RULE}\n{how} /run/** {rights},')
    assert apparmor.problem() == (
        'a rule of AppArmor denies guests the sockets in /run/nova-qcache/guests; '
        f'take it out of what {apparmor.folder}/{ABSTRACTION} includes'
    )


def test_symbolic_links_are_resolved(apparmor, tmp_path):
    real = tmp_path / 'real'
    (real / 'guests').mkdir(parents=True)
    (tmp_path / 'link').symlink_to(real)
    apparmor.write(LOCAL, f'{tmp_path}/link/guests/*.nbd rw,')
    assert f'`{real}/guests/*.nbd rw,`' in apparmor.problem(tmp_path / 'link' / 'guests')
    apparmor.write(LOCAL, f'{real}/guests/*.nbd rw,')
    assert apparmor.problem(tmp_path / 'link' / 'guests') is None


def test_a_host_whose_var_run_is_no_link(apparmor):
    apparmor.write(LOCAL, '@{run}/nova-qcache/guests/*.nbd rw,')
    with mock.patch.object(os.path, 'realpath', autospec=True, side_effect=str):
        assert apparmor.problem(pathlib.Path('/var/run/nova-qcache/guests')) is None


@pytest.mark.parametrize(
    ('include', 'path'),
    [
        ('include <local/nova-qcache>', 'etc/apparmor.d/local/nova-qcache'),
        ('#include "/srv/nova-qcache"', 'srv/nova-qcache'),
        ('include if exists "/srv/nova-qcache"', 'srv/nova-qcache'),
        ('include <abstractions/libvirt-qemu.d>', f'{ABSTRACTION}.d/nova-qcache'),
    ],
)
def test_includes_are_followed(apparmor, include, path):
    apparmor.write(LOCAL, f'{include}\n{INCLUDES[0]}\ninclude if exists <local/nowhere>')
    apparmor.write(path, RULE)
    assert apparmor.problem() is None
    apparmor.write(path, '')
    assert apparmor.problem() is not None


@pytest.mark.parametrize(
    'path',
    [
        f'{ABSTRACTION}.d/ours.dpkg-old',
        f'{ABSTRACTION}.d/ours~',
        f'{ABSTRACTION}.d/folder/ours',
        'etc/apparmor.d/abstractions/base',
    ],
)
def test_what_is_not_followed(apparmor, path):
    apparmor.write(LOCAL, 'include <abstractions/libvirt-qemu.d>')
    apparmor.write(path, RULE)
    assert apparmor.problem().startswith('no rule of AppArmor lets guests')


@pytest.mark.parametrize('path', [ABSTRACTION, LOCAL])
@pytest.mark.parametrize('error', [PermissionError(13, 'Permission denied'), ValueError('no')])
def test_rules_that_cannot_be_read(apparmor, path, error):
    """The tests may run as root, who can read everything."""
    apparmor.write(ABSTRACTION, f'{RULE}\n{INCLUDES[0]}')
    read_text = pathlib.Path.read_text

    def read(file, *args, **kwargs):
        if file == apparmor.folder / path:
            raise error
        return read_text(file, *args, **kwargs)

    with mock.patch.object(pathlib.Path, 'read_text', autospec=True, side_effect=read):
        problem = apparmor.problem()
    cause, _, remedy = problem.partition('; ')
    assert cause == f'AppArmor confines qemu, and its rules cannot be read ({error})'
    assert remedy == 'let the user of nova-compute read them'


# -- SELinux


def test_a_folder_of_another_type(selinux, getxattr):
    assert selinux.problem() == (
        'SELinux lets no guest connect to the sockets in /run/nova-qcache/guests, which has the '
        'type var_run_t; install the policy module in share/nova-qcache/selinux, which makes it '
        'nova_qcache_guests_t, and restart nova-compute'
    )
    getxattr.assert_called_once_with(GUESTS, 'security.selinux')


@pytest.mark.parametrize('end', [b':s0\0', b':s0', b':s0:c1,c2\0', b'\0', b''])
def test_a_folder_of_our_type(selinux, getxattr, end):
    getxattr.return_value = b'system_u:object_r:nova_qcache_guests_t' + end
    assert selinux.problem() is None


@pytest.mark.parametrize('context', [b'', b'\xff', b'nova_qcache_guests_t'])
def test_a_folder_with_an_odd_context(selinux, getxattr, context):
    getxattr.return_value = context
    assert selinux.problem() is not None


def test_a_folder_without_a_type(selinux, getxattr):
    getxattr.side_effect = OSError(61, 'No data available')
    assert 'type that cannot be read ([Errno 61]' in selinux.problem()


def test_selinux_that_only_complains(selinux):
    selinux.write(ENFORCE, '0')
    assert selinux.problem() is None


# -- both


@pytest.mark.parametrize(
    ('text', 'apparmor_is_used', 'selinux_is_used'),
    [
        ('', True, True),
        ('#security_driver = "none"', True, True),
        ('security_driver = "none"', False, False),
        ('  security_driver="none"  # none', False, False),
        ('security_driver = "selinux"', False, True),
        ('security_driver = "apparmor"', True, False),
        ('security_driver = [ "selinux", "apparmor" ]', True, True),
        ('security_driver = [\n  "selinux",\n  "dac"\n]', False, True),
        ('security_driver = "apparmor"\nsecurity_driver = "none"', False, False),
        ('security_default_confined = 0', False, False),
        ('security_default_confined = 1', True, True),
        ('#security_default_confined = 0', True, True),
        ('security_require_confined = 0', True, True),
    ],
)
def test_what_libvirt_uses(apparmor, getxattr, text, apparmor_is_used, selinux_is_used):
    apparmor.write(LIBVIRT, f'user = "nova"\n{text}\ngroup = "kvm"')
    assert (apparmor.problem() is not None) == apparmor_is_used
    getxattr.return_value = b'system_u:object_r:var_run_t:s0\0'
    apparmor.write(ENABLED, 'N')
    apparmor.write(ENFORCE, '1')
    assert (apparmor.problem() is not None) == selinux_is_used


# -- what is shipped


def default_guests():
    (run_path,) = (each.default for each in qcache_conf.OPTS if each.name == 'run_path')
    return pathlib.Path(run_path) / 'guests'


def test_our_rule_is_for_the_default_folder(apparmor):
    apparmor.write(LOCAL, (ROOT / LOCAL).read_text())
    with mock.patch.object(os.path, 'realpath', autospec=True, side_effect=str):
        assert apparmor.problem(default_guests()) is None


def test_our_module_is_for_the_default_folder():
    text = (ROOT / 'etc/selinux/nova-qcache.cil').read_text()
    assert f'(type {confinement.SELINUX_TYPE})' in text
    assert f'(filecon "{default_guests()}(/.*)?" any' in text


def test_what_is_shipped_is_there():
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    shipped = setup['files']['data_files'].replace('=', ' ').split()
    files = {each for each in shipped if each.startswith('etc/')}
    assert files >= {LOCAL, 'etc/selinux/README.rst', 'etc/selinux/nova-qcache.cil'}
    assert all((ROOT / each).is_file() for each in files)
