# SPDX-License-Identifier: Apache-2.0
"""What the DevStack plugin writes starts a real nova-compute with the plugin in it.

The functions of DevStack are those of the unit tests; users, folders, programs, Nova and libvirt
are the compute host's.
"""

from collections.abc import Callable
import configparser
import pathlib
import shutil
import tempfile

import pytest
from qcache_stack.stack import Stack

from tests.openstack import waiting
from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost
from tests.unit.devstack.machine import DevStack
from tests.unit.devstack.machine import PROJECT

CACHE_PATH = '/var/lib/nova/qcache-devstack'
RUN_PATH = '/run/qcache-devstack'


@pytest.fixture
def devstack(cloud: Cloud, stack: Stack) -> DevStack:
    """DevStack on the compute host. Once the servers of the test are gone, it is unstacked."""
    root = pathlib.Path(tempfile.mkdtemp(prefix='qd-', dir='/tmp'))
    root.chmod(0o755)  # nova reads the configuration
    made = DevStack(root, enter=stack.command)
    made.surround(
        STACK_USER='nova',
        NOVA_BIN_DIR=stack.layout.venv / 'bin',
        NOVA_INSTANCES_PATH=stack.host.instances_path,
    )
    made.configure(QCACHE_CACHE_PATH=CACHE_PATH, QCACHE_RUN_PATH=RUN_PATH, QCACHE_QUOTA=200)
    cloud.at_end(made.forget)
    cloud.at_end(made.must, 'clean')
    cloud.at_end(made.must, 'unstack')
    return made


def written(path: pathlib.Path) -> tuple[str, dict[str, str]]:
    """Return the driver and the ``[qcache]`` options of a nova.conf."""
    parser = configparser.ConfigParser(interpolation=None, default_section='')
    parser.read_string(path.read_text())
    return parser['DEFAULT']['compute_driver'], dict(parser['qcache'])


def test_nova_compute_records_with_what_the_plugin_wrote(
    cloud: Cloud,
    host: ComputeHost,
    devstack: DevStack,
    configure: Callable[..., None],
    calm_image: str,
):
    devstack.stack()  # "extra" is a real "nova-qcache check"
    driver, options = written(devstack.nova_cpu_conf)
    configure(DEFAULT={'compute_driver': driver}, qcache=options)
    said = f'nova-qcache is on: caches are in {CACHE_PATH}'
    waiting.until(lambda: said in host.nova_log(), f'"{said}" in the log of nova-compute')

    server = cloud.boot(calm_image)
    assert host.kind(server) == 'RECORD'
    assert host.chain(server)[1].startswith(f'{RUN_PATH}/guests/')
    server.wait_until_booted(boots=1)
    host.seal(calm_image)
    caches = host.host.outside(CACHE_PATH)
    assert list(caches.glob(f'{calm_image}.*.qcow2'))
    server.delete()

    devstack.must('unstack')
    assert not host.recorders()
    configure()
    devstack.must('clean')
    assert not caches.exists()
    assert not host.host.outside(RUN_PATH).exists()


def test_an_editable_nova_finds_the_driver(devstack: DevStack, stack: Stack):
    """Nova's tree is on the path before all else, as a checkout that was installed with
    ``--editable`` is; it has no driver of ours, and hides the one beside it."""
    (package,) = (stack.layout.venv / 'lib').glob('python3*/site-packages/nova')
    target = devstack.nova_dir / 'nova'
    shutil.rmtree(target)
    shutil.copytree(
        package, target, ignore=shutil.ignore_patterns('tests', 'locale', '__pycache__', 'qcache')
    )
    program = (
        'from nova.virt import qcache; from nova_qcache.virt import driver; '
        'assert qcache.QcacheDriver is driver.QcacheDriver; print(qcache.__file__)'
    )
    surroundings = {'PYTHONPATH': str(devstack.nova_dir), 'PYTHONDONTWRITEBYTECODE': '1'}
    command = [stack.layout.bin('python'), '-c', program]

    before = stack.exec(command, check=False, environment=surroundings)
    assert before.returncode != 0
    assert "cannot import name 'qcache'" in before.stderr
    devstack.must('stack', 'install')
    after = stack.exec(command, environment=surroundings)
    assert after.stdout.strip() == f'{target}/virt/qcache/__init__.py'
    link = target / 'virt/qcache'
    assert link.resolve() == PROJECT / 'nova/virt/qcache'
