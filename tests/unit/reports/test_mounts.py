# SPDX-License-Identifier: Apache-2.0
"""What NFS servers have sent, from the kernel's own words."""

from unittest import mock

import pytest

from nova_qcache.reports import mounts

# As Linux 6.1 writes it; the line "bytes:" is shortened nowhere.
MOUNTSTATS = """\
device proc mounted on /proc with fstype proc
device /dev/vda1 mounted on / with fstype ext4
no device mounted on /nothing with fstype autofs
device store:/export/images mounted on /var/lib/nova/instances/_base with fstype nfs4 statvers=1.1
\topts:\trw,vers=4.2,rsize=1048576,wsize=1048576,namlen=255,hard,proto=tcp,timeo=600,sec=sys
\tage:\t86400
\timpl_id:\tname='',domain='',date='0,0'
\tcaps:\tcaps=0xfffbc0bf,wtmult=512,dtsize=1048576,bsize=0,namlen=255
\tnfsv4:\tbm0=0xfdffbfff,bm1=0x40f9be3e,bm2=0x60803,acl=0x3,sessions,pnfs=not configured
\tsec:\tflavor=1,pseudoflavor=1
\tevents:\t21 411 0 7 15 9 600 0 0 0 0 0 0 8 0 0 0 0 0 0 0 0 0 0 0 0 0
\tbytes:\t1048576 0 75497472 0 76546048 0 256 0
\tRPC iostats version: 1.1  p/v: 100003/4 (nfs)
\txprt:\ttcp 837 0 1 0 12 900 900 0 900 0 2 31 0
\tper-op statistics
\t        NULL: 1 1 0 44 24 7 0 7 0
\t        READ: 150 150 0 31200 76560000 3 900 930 0
device store:/export/my\\040images mounted on /srv/my\\040images with fstype nfs statvers=1.1
\tbytes:\t0 0 0 0 4096 0 1 0
device /dev/vdb mounted on /var/lib/nova/instances/_base/local with fstype xfs
"""


def test_parse():
    assert mounts.parse(MOUNTSTATS) == {
        '/proc': None,
        '/': None,
        '/nothing': None,
        '/var/lib/nova/instances/_base': 76546048,
        '/srv/my images': 4096,
        '/var/lib/nova/instances/_base/local': None,
    }


@pytest.mark.parametrize(
    ('base', 'found'),
    [
        ('/var/lib/nova/instances/_base/abc', {'/var/lib/nova/instances/_base': 76546048}),
        ('/srv/my images/deep/down', {'/srv/my images': 4096}),
        ('/var/lib/nova/instances/_base/local/abc', {}),
        ('/var/lib/nova/instances/_base2/abc', {}),
        ('/elsewhere', {}),
        ('//elsewhere', {}),
        ('nbd://store/export', {}),
    ],
    ids=['nfs4', 'blank', 'local below', 'begins alike', 'root', 'two slashes', 'no file'],
)
def test_bases(tmp_path, base, found):
    file = tmp_path / 'mountstats'
    file.write_text(MOUNTSTATS)
    with mock.patch.object(mounts, '_MOUNTSTATS', file):
        assert mounts.bytes_from_servers([base]) == found


def test_a_mount_is_named_once_for_all_its_bases(tmp_path):
    file = tmp_path / 'mountstats'
    file.write_text(MOUNTSTATS)
    bases = [f'/var/lib/nova/instances/_base/{number}' for number in range(3)]
    with mock.patch.object(mounts, '_MOUNTSTATS', file):
        assert len(mounts.bytes_from_servers(bases)) == 1


def test_a_mount_that_is_hidden_by_a_later_one_is_not_counted():
    hidden = MOUNTSTATS + 'device tmpfs mounted on /srv/my\\040images with fstype tmpfs\n'
    assert mounts.parse(hidden)['/srv/my images'] is None


@pytest.mark.parametrize('line', ['bytes:', 'bytes: 1 2 3 4', 'bytes: 1 2 3 4 x 6 7 8', ''])
def test_a_line_of_another_form_counts_nothing(line):
    text = f'device a:/b mounted on /b with fstype nfs statvers=9\n\t{line}\n'
    assert mounts.parse(text) == {'/b': None}


def test_a_file_system_that_is_not_nfs_does_not_count_by_the_same_word():
    text = 'device a mounted on /b with fstype other statvers=1\n\tbytes:\t1 2 3 4 5 6 7 8\n'
    assert mounts.parse(text) == {'/b': None}


def test_without_the_file_nothing_is_known(tmp_path):
    with mock.patch.object(mounts, '_MOUNTSTATS', tmp_path / 'none'):
        assert mounts.bytes_from_servers(['/base']) == {}


def test_this_host_has_a_root():
    assert '/' in mounts.parse(mounts._MOUNTSTATS.read_text())
