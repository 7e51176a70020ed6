# SPDX-License-Identifier: Apache-2.0
"""Log set-up of the background programs."""

from oslo_config import cfg
from oslo_log import log

from nova_qcache import exception

__all__ = ['set_up']


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
