# SPDX-License-Identifier: Apache-2.0
"""nova-qcache-status: check whether this host is ready for the installed nova-qcache.

The checks are those of ``nova-qcache check`` and what only an upgrade asks. oslo.upgradecheck
prints them and makes the exit code of them, as nova-status has it: 0 for success, 1 if something
is worth a look, 2 if something stops an upgrade, and 255 if there is no answer.
"""

from collections.abc import Callable, Sequence
import functools
from importlib import metadata
import pathlib
import sys
from typing import Any

from oslo_config import cfg
from oslo_log import log
from oslo_upgradecheck import upgradecheck

from nova_qcache import conf as qcache_conf
from nova_qcache import config_files
from nova_qcache import exception
from nova_qcache.checks import registry
from nova_qcache.checks import upgrade
from nova_qcache.checks.registry import Finding
from nova_qcache.cmd import shell

__all__ = ['Checks', 'main']

_NO_ANSWER = 255

_Check = tuple[str, Callable[[upgradecheck.UpgradeCommands], upgradecheck.Result]]


class Checks(upgradecheck.UpgradeCommands):
    """The command ``upgrade check``: one check for each finding, which are as many as the host
    gives reason for."""

    display_title = 'nova-qcache Upgrade Check Results'

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf

    @property
    def _upgrade_checks(self) -> tuple[_Check, ...]:  # type: ignore[override]
        return tuple(
            (subject, functools.partial(_result, finding))
            for subject, finding in registry.run(upgrade.CHECKS, self._conf)
        )


def _result(finding: Finding, _: upgradecheck.UpgradeCommands) -> upgradecheck.Result:
    found = finding.found if finding.found.endswith('.') else f'{finding.found}.'
    details = f'{found} {finding.remedy}' if finding.remedy else finding.found
    return upgradecheck.Result(upgradecheck.Code(finding.grade.value), details)


class _Configuration(cfg.ConfigOpts):
    """Configuration as ``nova-qcache`` finds it; root acts as nova-compute's user."""

    def __call__(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> None:
        config_files.read(
            super().__call__,
            args,
            'nova-qcache-status',
            version=metadata.version('nova-qcache'),
            default_config_files=cfg.find_config_files('nova', 'nova-qcache'),
            default_config_dirs=cfg.find_config_dirs('nova', 'nova-qcache'),
        )
        # oslo.upgradecheck takes any word for "check".
        if self.command.check != 'check':
            raise cfg.Error(
                f'"upgrade {self.command.check}" is not a command; give "upgrade check"'
            )
        shell.become_owner(pathlib.Path(self.qcache.cache_path))


def main(argv: Sequence[str] | None = None) -> int:
    """:return: the worst result, or 255 after a message on standard error"""
    conf = _Configuration()
    log.register_options(conf)
    qcache_conf.register_opts(conf)
    qcache_conf.register_nova_opts(conf)
    conf.register_opt(cfg.StrOpt('compute_driver'))
    try:
        return upgradecheck.main(
            conf, 'nova', Checks(conf), argv=list(sys.argv[1:] if argv is None else argv)
        )
    except (exception.QcacheError, cfg.Error, OSError) as e:
        print(exception.sentence(e), file=sys.stderr)
    except SystemExit as e:  # argparse's 2 would be a failure of a check
        if not e.code:
            return 0
    return _NO_ANSWER


if __name__ == '__main__':
    sys.exit(main())
