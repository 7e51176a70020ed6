# SPDX-License-Identifier: Apache-2.0
"""What is read from the XML of running domains, as libvirt printed it.

The files in ``data`` are what ``virsh dumpxml`` of Debian 12 and 13 said of domains of a compute
host: the first disk stands on a recorder or a cache, the second one and a config drive on nothing.
"""

import pathlib
import re
from unittest import mock
from xml.dom import minidom

import pytest

from nova_qcache.cache.usage import paths_in
from nova_qcache.keeper.guests import Guests
from nova_qcache.qemu import overlay
from nova_qcache.system import processes
from nova_qcache.system import stripping
from nova_qcache.system.libvirt_domains import LibvirtDomains
from nova_qcache.system.libvirt_domains import Paused
from nova_qcache.system.paths import Paths
from tests.unit.builders import KEY

DATA = pathlib.Path(__file__).parents[1] / 'data'
PATHS = Paths(pathlib.Path('/var/lib/nova/qcache'), pathlib.Path('/run/nova-qcache'))
INSTANCE = '/var/lib/nova/instances/5f0c1f0e-9b3d-4c57-8f6a-2d8c1b7e4a90'
BASE = '/var/lib/nova/instances/_base/da39a3ee5e6b4b0d3255bfef95601890afd80709'
DISKS = {f'{INSTANCE}/{name}' for name in ('disk', 'disk.eph0', 'disk.config')}
BELOW = {'record': {str(PATHS.nbd_socket(KEY))}, 'play': {str(PATHS.sealed(KEY)), BASE}}
NAMES = [f'libvirt-{version}/{kind}.xml' for version in ('9.0', '11.3') for kind in BELOW]
_CHAIN = re.compile('<backingStore type=.*</backingStore>(?=\n *<target)', re.DOTALL)


@pytest.fixture(params=NAMES)
def path(request):
    return DATA / request.param


def test_the_files_that_disks_name(path):
    assert paths_in(path.read_text()) == DISKS | BELOW[path.stem]


def test_a_chain_of_ours_goes_and_the_rest_stays(path):
    chained = path.read_text()
    assert stripping.is_in(chained)
    stripped = stripping.strip(chained)
    assert not stripping.is_in(stripped)
    assert paths_in(stripped) == DISKS
    plain, count = _CHAIN.subn('', chained.replace(" rerror_policy='stop'", ''))
    assert count == 1
    # As one and the same writer writes both.
    root = minidom.parseString(plain).documentElement
    assert root is not None
    assert stripped == root.toxml()


@pytest.fixture
def domains():
    made = mock.create_autospec(LibvirtDomains, instance=True)
    made.paused.return_value = made.living.return_value = []
    return made


def test_whom_the_keeper_sees(path, paths, domains):
    text = path.read_text().replace(str(PATHS.run_path), str(paths.run_path))
    domains.paused.return_value = [Paused('uuid', 'one', text, frozenset({'vda'}), full=False)]
    domains.living.return_value = [('domain one', text)]
    with (
        mock.patch.object(processes, 'listener_pid', autospec=True, return_value=4711) as listens,
        mock.patch.object(overlay, 'backing', autospec=True, return_value=None) as backing,
    ):
        Guests(paths, domains, []).run_once()
    is_recording = path.stem == 'record'
    assert listens.mock_calls == [mock.call(paths.nbd_socket(KEY))] * is_recording
    assert domains.resume.mock_calls == [mock.call('uuid')] * is_recording
    assert backing.mock_calls == [mock.call(pathlib.Path(f'{INSTANCE}/disk'))] * is_recording
