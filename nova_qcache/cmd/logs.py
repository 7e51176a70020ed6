# SPDX-License-Identifier: Apache-2.0
"""Where the programs that nobody looks at write their log."""

from oslo_config import cfg
from oslo_log import log

__all__ = ['set_up']


def set_up(conf: cfg.ConfigOpts, program: str) -> None:
    """Set up oslo.log, for a program that was started by the name of its module.

    oslo.log names a file in ``[DEFAULT] log_dir`` after the file that Python began with, which is
    none of ours then.
    """
    if conf.log_dir and not conf.log_file:
        conf.set_default('log_file', f'{program}.log')
    log.setup(conf, program)
