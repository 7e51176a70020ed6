# SPDX-License-Identifier: Apache-2.0
"""Nova's own tests pass with our classes in the place of Nova's."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[3]

pytestmark = pytest.mark.timeout(1200)


def run(*tests):
    """Return the number of tests that ran, and all that was printed."""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'tests.unit.virt.nova_own_tests', *tests],
        cwd=ROOT,
        env={'PATH': os.environ['PATH'], 'HOME': '/', 'LC_ALL': 'C.UTF-8'},
        capture_output=True,
        text=True,
    )
    ran = re.search(r'^Ran (\d+) tests? in', done.stdout, re.MULTILINE)
    return done.returncode, int(ran[1]) if ran else 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ('tests', 'least'),
    [
        ('nova.tests.unit.virt.libvirt.test_imagebackend.Qcow2TestCase', 19),
        ('nova.tests.unit.virt.libvirt.test_imagecache', 30),
        (
            'nova.tests.unit.virt.libvirt.test_driver.LibvirtConnTestCase'
            '.test_public_api_signatures',
            1,
        ),
    ],
)
def test_they_pass(tests, least):
    code, ran, printed = run(tests)
    assert code == 0, printed
    assert ran >= least, printed


def test_they_can_fail():
    code, _, printed = run('nova.tests.unit.virt.libvirt.test_imagebackend.NoSuchTestCase')
    assert code != 0, printed
