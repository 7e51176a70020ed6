# SPDX-License-Identifier: Apache-2.0
"""Makes a process of the product say when it waits for a lock out of order.

The test of concurrency puts this file into PYTHONPATH under the name sitecustomize.py: recorders
are started by the product itself, and nothing in it knows of being watched.
"""

import os
import pathlib
import sys

_PROGRAMS = {'nova_qcache.cmd.recorder': 'recorder', 'turmoil.py': 'actor'}


def _watch(role: str) -> None:
    # Imported here: other programs of this environment have no nova_qcache.
    from nova_qcache.system import locks

    folder = pathlib.Path(os.environ['QCACHE_TEST_SPY'])

    def say(name: str, line: str) -> None:
        with open(folder / name, 'a') as file:
            file.write(f'{line}\n')

    locks.complain = lambda sentence: say('complaints', f'{role} {os.getpid()}: {sentence}')
    say('watched', role)


for word in sys.orig_argv:
    for end, role in _PROGRAMS.items():
        if word.endswith(end):
            _watch(role)
