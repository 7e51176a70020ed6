# SPDX-License-Identifier: Apache-2.0
"""The driver in a nova-compute of greenthreads: its own tests, and those of what must not block.

They run in a process of their own, since eventlet replaces parts of Python.
"""

from importlib import metadata
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[3]

pytestmark = pytest.mark.timeout(1200)


def run(*tests):
    """Return the exit code, how many tests passed, and all that was printed."""
    done = subprocess.run(
        [sys.executable, '-P', '-m', 'tests.unit.virt.under_eventlet', *tests],
        cwd=ROOT,
        env={
            'PATH': os.environ['PATH'],
            'PYTHONPATH': str(ROOT),
            'HOME': '/',
            'LC_ALL': 'C.UTF-8',
        },
        capture_output=True,
        text=True,
        timeout=1100,
    )
    passed = re.search(r'(\d+) passed', done.stdout)
    return done.returncode, int(passed[1]) if passed else 0, done.stdout + done.stderr


TESTS = {'greenthreads': (['tests/unit/virt/greenthreads.py'], 10)}
if int(metadata.version('nova').split('.')[0]) < 33:  # later ones have threads by default
    TESTS['driver'] = (
        [
            'tests/unit/virt/test_driver.py',
            'tests/unit/virt/test_driver_kept_xml.py',
            'tests/unit/virt/test_driver_migration.py',
            'tests/unit/virt/test_driver_soft_reboot.py',
            'tests/unit/virt/test_driver_start.py',
            'tests/unit/virt/test_imagebackend.py',
            'tests/unit/virt/test_imagecache.py',
            'tests/unit/virt/test_planner.py',
        ],
        200,
    )


@pytest.mark.parametrize(('tests', 'least'), TESTS.values(), ids=TESTS)
def test_they_pass(tests, least):
    code, passed, printed = run(*tests)
    assert code == 0, printed
    assert passed >= least, printed
