# SPDX-License-Identifier: Apache-2.0
"""The entry point in ``tempest.test_plugins``."""

import pathlib
from typing import Any

from oslo_config import cfg
from tempest.test_discover import plugins

from nova_qcache_tempest_plugin import config

__all__ = ['QcacheTempestPlugin']


class QcacheTempestPlugin(plugins.TempestPlugin):
    def load_tests(self) -> tuple[str, str]:
        package = pathlib.Path(__file__).absolute().parent
        return str(package / 'tests'), str(package.parent)

    def register_opts(self, conf: cfg.ConfigOpts) -> None:
        # Tempest itself makes the first group, and may have made it already.
        conf.register_opt(config.SERVICE_OPTION, group=config.SERVICE_GROUP)
        conf.register_group(config.GROUP)
        conf.register_opts(config.OPTS, group=config.GROUP)

    def get_opt_lists(self) -> list[tuple[str, list[Any]]]:
        return [
            (config.SERVICE_GROUP, [config.SERVICE_OPTION]),
            (config.GROUP.name, list(config.OPTS)),
        ]
