# SPDX-License-Identifier: Apache-2.0
"""What nova-qcache-status says of the Nova that these tests run with."""

from importlib import metadata

from oslo_config import cfg

from nova_qcache.checks import registry
from nova_qcache.checks import upgrade
from nova_qcache.checks.registry import Finding
from nova_qcache.checks.registry import Grade


def test_this_nova_is_tested_and_finds_the_driver():
    driver = 'qcache.QcacheDriver'
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.StrOpt('compute_driver', default=driver))
    ((_, found),) = registry.run(upgrade.CHECKS[-1:], conf)
    fits = f'Nova {metadata.version("nova")} fits'
    said = f'{fits}; these configuration files have compute_driver = {driver}'
    assert found == Finding(Grade.OK, said)
