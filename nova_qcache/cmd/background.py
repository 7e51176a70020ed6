# SPDX-License-Identifier: Apache-2.0
"""Start of the background programs: their configuration and their log."""

from collections.abc import Sequence
import os

from oslo_config import cfg
from oslo_log import log

from nova_qcache import conf as qcache_conf
from nova_qcache import config_files
from nova_qcache import exception

__all__ = ['configured', 'set_up']


def configured(
    program: str, argv: Sequence[str] | None, cli_opts: Sequence[cfg.Opt] = ()
) -> cfg.ConfigOpts:
    """Read and validate the configuration of a program, and set up its log.

    :param argv: its arguments; by default those of the process
    :raises QcacheError, oslo_config.cfg.Error: if one of them cannot be used
    """
    os.umask(0o077)  # a recording is nobody else's business until it is sealed
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    qcache_conf.register_opts(conf)
    qcache_conf.register_nova_opts(conf)
    conf.register_cli_opts(cli_opts)
    config_files.read(conf, argv, program)
    set_up(conf, program)
    qcache_conf.validate(conf)
    return conf


def set_up(conf: cfg.ConfigOpts, program: str) -> None:
    """Set up oslo.log, for a program that was started by the name of its module.

    :raises FileUnfit: if the log cannot be written

    oslo.log names a file in ``[DEFAULT] log_dir`` after the file that Python began with, which is
    none of ours then.
    """
    if conf.log_dir and not conf.log_file:
        conf.set_default('log_file', f'{program}.log')
    try:
        log.setup(conf, program)
    except OSError as e:
        raise exception.FileUnfit(
            what='The log file',
            path=str(e.filename),
            reason=e.strerror or str(e),
            remedy='Give it to the user that nova-compute runs as, or name another one with '
            '[DEFAULT] log_file',
        ) from e
