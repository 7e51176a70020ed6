# SPDX-License-Identifier: Apache-2.0
"""Where the programs for people begin: Ctrl-C ends them in one line, also while they still import
what they need."""

import importlib
import sys

__all__ = ['nova_qcache', 'nova_qcache_status']


def nova_qcache() -> int:
    return _run('nova_qcache.cmd.shell', 130)


def nova_qcache_status() -> int:
    return _run('nova_qcache.cmd.status', 255)


def _run(module: str, interrupted: int) -> int:
    try:
        code: int = importlib.import_module(module).main()
        return code
    except KeyboardInterrupt:
        print('Interrupted.', file=sys.stderr)
        return interrupted
