# SPDX-License-Identifier: Apache-2.0
"""What nova-qcache-status says of the Nova that these tests run with."""

from importlib import metadata

from nova_qcache.checks.preflight import Finding
from nova_qcache.checks.preflight import Grade
from nova_qcache.cmd import status


def test_this_nova_is_tested_and_finds_the_driver():
    version = metadata.version('nova')
    assert status._nova('qcache.QcacheDriver') == Finding(
        'nova',
        Grade.OK,
        f'Nova {version} fits; these configuration files have compute_driver = '
        'qcache.QcacheDriver',
    )
