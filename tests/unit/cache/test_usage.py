# SPDX-License-Identifier: Apache-2.0
"""Who uses a cache: each of the ways to use one, alone, and none that is another's."""

import os
import pathlib
import sys
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache.usage import paths_in
from nova_qcache.cache.usage import Usage
from nova_qcache.model.key import CacheKey
from nova_qcache.system.libvirt_domains import LibvirtDomains
from tests.unit import fake_libvirt
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE
from tests.unit.fake_libvirt import Connection
from tests.unit.fake_libvirt import Domain

OTHER = CacheKey(OTHER_IMAGE, GENERATION)
NEWER = CacheKey(IMAGE, GENERATION.next())
INSTANCE = '11111111-1111-1111-1111-111111111111'


def play(paths, key=KEY):
    """The XML of a domain that plays a cache."""
    return f"""<domain type='kvm'><name>x</name><devices>
      <disk type='file' device='disk'>
        <driver name='qemu' type='qcow2' cache='none'/>
        <source file='/instances/x/disk' index='1'/>
        <backingStore type='file' index='2'>
          <format type='qcow2'/>
          <source file='{paths.sealed(key)}'><seclabel model='dac' relabel='no'/></source>
          <backingStore type='file' index='3'>
            <format type='raw'/><source file='/base/image'/><backingStore/>
          </backingStore>
        </backingStore>
        <target dev='vda' bus='virtio'/>
      </disk>
    </devices></domain>"""


def record(paths, key=KEY):
    """The XML of a domain that records one."""
    return f"""<domain type='kvm'><devices>
      <disk type='file' device='disk'>
        <source file='/instances/x/disk'/>
        <backingStore type='network'>
          <format type='raw'/>
          <source protocol='nbd' name='top'>
            <host transport='unix' socket='{paths.nbd_socket(key)}'/>
            <reconnect delay='60'/>
          </source>
          <backingStore/>
        </backingStore>
      </disk>
    </devices></domain>"""


def mirror(paths, key=KEY):
    """The XML of a domain of which a live snapshot is being made."""
    return f"""<domain><devices><disk type='file'>
      <source file='/instances/x/disk'/>
      <mirror type='file' job='copy'><source file='/instances/snap/x.delta'>
        </source><backingStore type='file'><source file='{paths.sealed(key)}'/></backingStore>
      </mirror>
    </disk></devices></domain>"""


def plain(paths, key=KEY):
    """The XML of a domain without a cache, which speaks of one elsewhere."""
    return f"""<domain><description>{paths.sealed(key)}</description><devices>
      <disk type='file'><source file='/instances/x/disk'/>
        <target dev='{paths.sealed(key)}'/></disk>
      <disk type='file' device='cdrom'><target dev='sda'/></disk>
      <console><source path='{paths.sealed(key)}'/></console>
      <filesystem><source file='{paths.sealed(key)}' socket='{paths.nbd_socket(key)}'/>
        </filesystem>
      <disk type='network'><source protocol='rbd' name='x'>
        <host name='mon' port='6789'/></source></disk>
    </devices></domain>"""


@pytest.fixture
def instances(tmp_path):
    path = tmp_path / 'instances'
    path.mkdir()
    return path


@pytest.fixture
def host():
    """The libvirt of this host."""
    connection = Connection([])
    with mock.patch.dict(sys.modules, {'libvirt': fake_libvirt.module(connection)}):
        yield connection


@pytest.fixture
def usage(paths, leases, instances, host):
    return Usage(paths, leases, instances, LibvirtDomains('qemu:///system'))


def rescued(instances, text, name=INSTANCE):
    folder = instances / name
    folder.mkdir()
    path = folder / 'unrescue.xml'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def in_use(usage, key=KEY):
    with pytest.raises(exception.CacheInUse) as caught:
        usage.require_none(key)
    return str(caught.value)


def unused(usage, *keys):
    for key in keys:
        assert list(usage.users(key)) == []
        usage.require_none(key)


def test_nobody(usage):
    unused(usage, KEY, OTHER)


# -- each alone


def test_a_lease(usage, leases, paths):
    leases.take(INSTANCE, KEY)
    said = in_use(usage)
    assert f'The cache {str(paths.sealed(KEY))!r} is in use: ' in said
    assert f'the boot of {INSTANCE} that is on its way names it' in said
    assert 'add --force' in said
    unused(usage, OTHER, NEWER)
    leases.release(INSTANCE)
    unused(usage, KEY)


WAYS = pytest.mark.parametrize('way', [play, record, mirror], ids=lambda way: way.__name__)


@WAYS
def test_a_running_domain(usage, host, paths, way):
    host.domains = [Domain('one', plain(paths)), Domain('two', way(paths))]
    assert 'domain two names it' in in_use(usage)
    unused(usage, OTHER, NEWER)


@WAYS
def test_a_definition(usage, host, paths, way):
    """The domain runs with another chain than it starts with next time."""
    host.domains = [Domain('one', plain(paths), way(paths))]
    assert 'definition of domain one names it' in in_use(usage)
    unused(usage, OTHER, NEWER)


@WAYS
def test_a_managed_save(usage, host, paths, way):
    host.domains = [Domain('one', plain(paths), plain(paths), way(paths))]
    assert 'saved domain one names it' in in_use(usage)
    unused(usage, OTHER, NEWER)


@WAYS
def test_a_rescued_instance(usage, instances, paths, way):
    rescued(instances, plain(paths), 'another')
    rescued(instances, way(paths))
    assert f'rescued instance {INSTANCE} names it' in in_use(usage)
    unused(usage, OTHER, NEWER)


def test_all_of_them(usage, leases, instances, host, paths):
    leases.take(INSTANCE, KEY)
    rescued(instances, play(paths))
    host.domains = [Domain('one', play(paths), record(paths), play(paths)), Domain('two')]
    assert list(usage.users(KEY)) == [
        f'the boot of {INSTANCE} that is on its way',
        f'rescued instance {INSTANCE}',
        'domain one',
        'definition of domain one',
        'saved domain one',
    ]
    assert f'the boot of {INSTANCE}' in in_use(usage)
    assert host.closed == 1, 'the lease was answer enough the second time'


def test_what_speaks_of_a_cache_elsewhere_does_not_use_it(usage, instances, host, paths):
    host.domains = [Domain('one', plain(paths), plain(paths), plain(paths))]
    rescued(instances, plain(paths))
    unused(usage, KEY)


def test_the_cheap_questions_come_first(usage, leases, host):
    host.domains = fake_libvirt.LibvirtError('gone')
    leases.take(INSTANCE, KEY)
    assert INSTANCE in in_use(usage)
    assert host.closed == 0


# -- where nobody can tell


def test_libvirt_is_away(usage, host, paths):
    host.domains = fake_libvirt.LibvirtError('client socket is closed')
    said = in_use(usage)
    assert f'The cache {str(paths.sealed(KEY))!r} is in use: ' in said
    assert 'files the domains at qemu:///system use: client socket is closed' in said
    assert said.endswith('Check libvirt, set [qcache] libvirt_uri, or add --force.')
    with pytest.raises(exception.DomainsUnknown):
        list(usage.users(KEY))


def test_a_host_without_libvirt(paths, leases, instances):
    usage = Usage(paths, leases, instances, None)
    with mock.patch.dict(sys.modules, {'libvirt': None}):
        unused(usage, KEY)
        rescued(instances, play(paths))
        assert INSTANCE in in_use(usage)


def test_no_folder_of_instances(paths, leases, host, tmp_path):
    unused(Usage(paths, leases, tmp_path / 'gone', LibvirtDomains('qemu:///system')), KEY)


def test_a_folder_of_instances_that_cannot_be_listed(usage, instances, monkeypatch):
    denied = PermissionError(13, 'Permission denied', str(instances))
    monkeypatch.setattr(os, 'listdir', mock.create_autospec(os.listdir, side_effect=denied))
    said = in_use(usage)
    assert str(instances) in said
    assert 'Permission denied' in said
    assert 'add --force' in said


def test_a_folder_of_instances_that_is_a_file(paths, leases, host, tmp_path):
    path = tmp_path / 'file'
    path.touch()
    usage = Usage(paths, leases, path, LibvirtDomains('qemu:///system'))
    assert 'Not a directory' in in_use(usage)


def test_names_among_the_instances_that_are_none(usage, instances):
    (instances / 'compute_nodes').write_text('{}')
    (instances / 'locks').mkdir()
    (instances / os.fsdecode(b'\xff')).mkdir()
    (instances / 'nowhere').symlink_to('/nonexistent')
    unused(usage, KEY)


@pytest.mark.parametrize(
    'text', ['', 'nonsense', '<domain>', '<a/><b/>', '<a>\0</a>', '<a>&x;</a>']
)
def test_broken_xml(usage, host, instances, text):
    with pytest.raises(exception.DomainsUnknown):
        paths_in(text)
    host.domains = [Domain('one', text)]
    assert 'Cannot determine' in in_use(usage)
    host.domains = []
    rescued(instances, text)
    assert 'Cannot determine' in in_use(usage)


def test_an_unrescue_xml_that_is_no_text(usage, instances):
    path = rescued(instances, b'<domain>\xff</domain>')
    said = in_use(usage)
    assert str(path) in said
    assert 'add --force' in said


def test_an_unrescue_xml_that_cannot_be_read(usage, instances, paths):
    path = rescued(instances, play(paths))
    denied = PermissionError(13, 'Permission denied', str(path))
    with mock.patch.object(pathlib.Path, 'read_text', autospec=True, side_effect=denied):
        said = in_use(usage)
    assert str(path) in said
    assert 'Permission denied' in said


def test_an_unrescue_xml_that_is_a_folder(usage, instances):
    (instances / INSTANCE / 'unrescue.xml').mkdir(parents=True)
    assert 'Is a directory' in in_use(usage)


def test_an_instance_that_is_unrescued_in_this_moment(usage, instances, paths):
    rescued(instances, play(paths))
    gone = FileNotFoundError(2, 'No such file or directory')
    with mock.patch.object(pathlib.Path, 'read_text', autospec=True, side_effect=gone):
        unused(usage, KEY)


# -- what an XML names


def test_paths_of_disks(paths):
    assert paths_in(play(paths)) == {'/instances/x/disk', str(paths.sealed(KEY)), '/base/image'}
    assert paths_in(record(paths)) == {'/instances/x/disk', str(paths.nbd_socket(KEY))}
    assert paths_in(plain(paths)) == {'/instances/x/disk'}
    assert paths_in('<domain/>') == set()
    assert paths_in("<domain><disk><source file=''/></disk></domain>") == set()


def test_xml_with_a_declaration_and_entities():
    text = """<?xml version='1.0' encoding='UTF-8'?>
    <domain><disk><source file='/a &amp; b/\N{SNOWMAN}&#39;'/></disk></domain>"""
    assert paths_in(text) == {"/a & b/\N{SNOWMAN}'"}


def test_xml_that_is_wrapped():
    """A document of libvirt's own has the domain one level down."""
    text = "<domstatus><domain><disk><source file='/x'/></disk></domain></domstatus>"
    assert paths_in(text) == {'/x'}


# -- all at once


def test_all_that_are_in_use(usage, leases, instances, host, paths):
    keys = [KEY, *(CacheKey(IMAGE, GENERATION, revision) for revision in (2, 3, 4, 5))]
    leases.take(INSTANCE, keys[0])
    rescued(instances, play(paths, keys[1]))
    host.domains = [
        Domain('one', play(paths, keys[2]), record(paths, keys[3]), mirror(paths, keys[4])),
        Domain('two', plain(paths, OTHER), play(paths, KEY)),
    ]
    assert usage.in_use() == set(keys)
    assert host.closed == 1
    assert all(list(usage.users(key)) for key in keys)


def test_names_elsewhere_are_no_use(usage, host, paths):
    text = play(paths).replace(str(paths.cache_path), '/elsewhere')
    other = play(paths).replace('.qcow2', '.recording')
    host.domains = [Domain('one', text), Domain('two', other), Domain('three', plain(paths))]
    assert usage.in_use() == set()


def test_a_boot_that_ends_while_all_are_asked(usage, leases, host, paths, monkeypatch):
    """Its lease ends when its domain is there: one of the two is seen."""
    leases.take(INSTANCE, KEY)
    active = leases.active

    def ends_then():
        yield from list(active())
        host.domains = [Domain('one', play(paths))]
        leases.release(INSTANCE)

    monkeypatch.setattr(leases, 'active', ends_then)
    assert usage.in_use() == {KEY}


def test_nobody_can_tell_who_uses_what(usage, host):
    host.domains = fake_libvirt.LibvirtError('away')
    with pytest.raises(exception.DomainsUnknown):
        usage.in_use()
