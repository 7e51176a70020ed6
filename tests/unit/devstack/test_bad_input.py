# SPDX-License-Identifier: Apache-2.0
"""A local.conf that makes no sense: stack.sh stops with one line, before anything is installed."""

import pathlib

import pytest

from nova_qcache import exception
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.system.paths import Paths
from tests.unit.devstack.machine import DevStack

FOLDERS = ('QCACHE_CACHE_PATH', 'QCACHE_RUN_PATH')


def refusal(devstack: DevStack) -> str:
    """Return the one line with which the first phase ends; nothing has been done by then."""
    before = devstack.picture()
    done = devstack.run('stack', 'pre-install')
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith('[ERROR] ')
    assert devstack.picture() == before
    assert set(devstack.done()) == {'define_plugin nova-qcache'}
    return lines[0]


def require_refusal(
    devstack: DevStack, name: str, value: object, reason: str, remedy: str
) -> None:
    devstack.configure(**{name: value})
    line = refusal(devstack)
    assert f"{name}='{value}'" in line or f'{name}=$' in line
    assert reason in line
    assert remedy in line


@pytest.mark.parametrize('name', FOLDERS)
@pytest.mark.parametrize(
    ('value', 'reason', 'remedy'),
    [
        ('data/qcache', 'is no absolute path', 'give one from the root'),
        ('~/qcache', 'is no absolute path', 'give one from the root'),
        ('/srv/q cache', 'characters other than', 'give a path without them'),
        ('/srv/q\ncache', 'characters other than', 'give a path without them'),
        ('/srv/$state_path', 'characters other than', 'give a path without them'),
        ('/srv/../etc', 'leads to /etc', 'give that path itself'),
        ('/srv/x/_base', 'cleans', 'give a folder of its own'),
        ('/', 'holds', 'give a folder of its own'),
    ],
)
def test_a_path_that_is_none(devstack: DevStack, name: str, value: str, reason: str, remedy: str):
    require_refusal(devstack, name, value, reason, remedy)


@pytest.mark.parametrize('name', FOLDERS)
def test_a_file_and_what_is_below_one(devstack: DevStack, name: str):
    path = devstack.tree / 'file'
    path.touch()
    require_refusal(devstack, name, path, 'is no folder', 'move it away')
    below = path / 'a/b'
    require_refusal(devstack, name, below, f'below {path}, which is no folder', 'another path')


@pytest.mark.parametrize('name', FOLDERS)
def test_a_link_to_elsewhere(devstack: DevStack, name: str):
    (devstack.tree / 'real').mkdir()
    link = devstack.tree / 'link'
    link.symlink_to(devstack.tree / 'real')
    require_refusal(devstack, name, link, f'leads to {devstack.tree}/real', 'that path itself')


@pytest.mark.parametrize('name', FOLDERS)
def test_a_folder_that_devstack_or_nova_empties(devstack: DevStack, name: str):
    base = devstack.instances / '_base'
    require_refusal(devstack, name, base, 'image cache manager', 'a folder of its own')
    inside = devstack.instances / 'qcache'
    require_refusal(devstack, name, inside, 'which DevStack empties', 'give one elsewhere')
    for above in (devstack.instances, devstack.instances.parent, devstack.tree):
        require_refusal(devstack, name, above, 'holds', 'a folder of its own')


@pytest.mark.parametrize('name', FOLDERS)
def test_a_folder_that_is_read_only(devstack: DevStack, name: str):
    (devstack.root / 'closed').write_text(f'{devstack.tree}\n')
    path = devstack.tree / 'sealed/off'
    require_refusal(devstack, name, path, f'{devstack.tree} is read-only', 'another path')


@pytest.mark.parametrize('name', FOLDERS)
def test_a_folder_of_another_user(devstack: DevStack, name: str):
    path = devstack.tree / 'theirs'
    path.mkdir()
    owner = path.owner()
    devstack.surround(STACK_USER='stack')
    require_refusal(devstack, name, path, f'belongs to {owner}', 'give it to stack')


def test_one_folder_in_the_other(devstack: DevStack):
    for run in (devstack.cache_path, devstack.cache_path / 'run'):
        require_refusal(devstack, 'QCACHE_RUN_PATH', run, 'in each other', 'two separate folders')


def test_a_path_without_room_for_a_socket(devstack: DevStack):
    """The longest that is accepted is the longest that the engine can work with."""
    longest = CacheKey('0' * 8 + '-0000' * 3 + '-' + '0' * 12, Generation('0' * 12, 10**6))

    def fits(path: str) -> bool:
        try:
            Paths(pathlib.Path('/c'), pathlib.Path(path)).require_short_sockets(longest)
        except exception.SocketPathTooLong:
            return False
        return True

    path = f'{devstack.tree}/'.ljust(37, 'r')
    assert fits(path) and not fits(path + 'r')
    devstack.configure(QCACHE_RUN_PATH=path)
    devstack.must('stack', 'pre-install')
    devstack.log.write_text('')
    require_refusal(devstack, 'QCACHE_RUN_PATH', path + 'r', 'has 38 bytes', '37 or fewer')


@pytest.mark.parametrize('value', ['0', '-1', 'much', '1.5', '9999999999', '08'])
def test_a_quota_that_is_none(devstack: DevStack, value: str):
    require_refusal(devstack, 'QCACHE_QUOTA', value, 'no number of MiB', 'give one from 1')


def test_a_base_that_is_unknown(devstack: DevStack):
    require_refusal(devstack, 'QCACHE_BASE', 'ceph', 'is unknown', 'give local, limited or nfs')


@pytest.mark.parametrize('value', ['0', '12 M', 'fast', '-5', '1T'])
def test_a_rate_that_is_none(devstack: DevStack, value: str):
    devstack.configure(QCACHE_BASE='limited')
    require_refusal(devstack, 'QCACHE_BASE_RATE', value, 'is no rate', 'bytes a second')


@pytest.mark.parametrize('value', ['', 'filer', '/images', 'filer:images', 'fi ler:/images'])
def test_a_share_that_is_none(devstack: DevStack, value: str):
    devstack.configure(QCACHE_BASE='nfs')
    require_refusal(devstack, 'QCACHE_BASE_NFS', value, 'is no share', 'SERVER:/EXPORT')


def test_another_driver_than_libvirt(devstack: DevStack):
    devstack.surround(VIRT_DRIVER='ironic')
    line = refusal(devstack)
    assert "VIRT_DRIVER='ironic'" in line and 'set it to libvirt' in line


def test_a_group_that_is_not_there(devstack: DevStack):
    """Known only when libvirt is installed."""
    devstack.configure(QCACHE_QEMU_GROUP='nobody-knows')
    before = devstack.picture()
    done = devstack.run('stack', 'post-config')
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "QCACHE_QEMU_GROUP='nobody-knows'" in line and 'qemu runs in' in line
    assert devstack.picture() == before


@pytest.mark.parametrize('value', ['relative', '/', '/srv/q cache'])
def test_clean_removes_nothing_for_a_path_that_makes_no_sense(devstack: DevStack, value: str):
    before = devstack.picture()
    devstack.configure(QCACHE_CACHE_PATH=value, QCACHE_RUN_PATH=value)
    devstack.must('unstack')
    devstack.must('clean')
    assert devstack.picture() == before
