# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests on a real OpenStack.

The stack is the one of tools/openstack.sh; one that is up already is used as it is and stays up.
"""

from collections.abc import Callable, Iterator
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / 'tools' / 'openstack'), str(ROOT / 'tools' / 'guest')]

from qcache_stack.process import StackError  # noqa: E402
from qcache_stack.stack import Stack  # noqa: E402

from tests.openstack.cloud import Cloud  # noqa: E402
from tests.openstack.compute import ComputeHost  # noqa: E402
from tests.openstack.metrics import Metrics  # noqa: E402

_SETTINGS = {
    'qcache.quota': 200,
    'qcache.recording_idle_seconds': 15,  # no boot pauses so long, also where it takes a minute
    'qcache.recording_settle_seconds': 3,
    'qcache.guest_grace_seconds': 4,
    'qcache.plan_lease_seconds': 20,
    'qcache.audit_every': 0,  # tests boot an image often, and know what its next boot does
    'libvirt.wait_soft_reboot_seconds': 30,
}
_UP_SECONDS = 900


@pytest.fixture(scope='session')
def stack() -> Iterator[Stack]:
    command = [str(ROOT / 'tools' / 'openstack.sh')]
    try:
        was_up = bool(Stack.load().data)
    except StackError:
        was_up = False
    settings = [f'--set={name}={value}' for name, value in _SETTINGS.items()]
    subprocess.run([*command, 'up', '--driver=qcache', *settings], check=True, timeout=_UP_SECONDS)
    try:
        yield Stack.load()
    finally:
        if not was_up:
            subprocess.run([*command, 'down'], check=True, timeout=300)


@pytest.fixture(scope='session')
def session_cloud(stack: Stack) -> Iterator[Cloud]:
    cloud = Cloud(stack)
    yield cloud
    cloud.end_session()


@pytest.fixture(scope='session')
def disks(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the guests' images."""
    work = os.environ.get('QCACHE_WORK')
    folder = pathlib.Path(work) / 'small-disk' if work else tmp_path_factory.mktemp('disks')
    build = ROOT / 'tools' / 'guest' / 'build_small_disk.sh'
    subprocess.run([str(build), str(folder)], check=True, timeout=600)
    return folder


@pytest.fixture(scope='session')
def calm_image(session_cloud: Cloud, disks: pathlib.Path) -> str:
    """The image of a guest that boots, and then reads nothing new."""
    return session_cloud.upload(disks / 'calm.raw')


@pytest.fixture(scope='session')
def busy_image(session_cloud: Cloud, disks: pathlib.Path) -> str:
    """The image of a guest that goes on reading: its recording does not end by itself."""
    return session_cloud.upload(disks / 'busy.raw')


@pytest.fixture
def host(stack: Stack) -> ComputeHost:
    return ComputeHost(stack)


@pytest.fixture
def cloud(session_cloud: Cloud, host: ComputeHost) -> Iterator[Cloud]:
    """The cloud; what a test makes there is gone after it, from the host as well."""
    yield session_cloud
    session_cloud.end_test()
    host.wait_until_clean()


@pytest.fixture
def cold_calm(calm_image: str, host: ComputeHost) -> str:
    host.forget(calm_image)
    return calm_image


@pytest.fixture
def cold_busy(busy_image: str, host: ComputeHost) -> str:
    host.forget(busy_image)
    return busy_image


@pytest.fixture
def ready_calm(calm_image: str, cloud: Cloud, host: ComputeHost) -> str:
    """The image of the calm guest with a READY cache."""
    if host.show(calm_image).get('state') != 'READY':
        host.forget(calm_image)
        server = cloud.boot(calm_image)
        host.wait_for_state(calm_image, 'READY')
        server.delete()
    return calm_image


@pytest.fixture
def lone_calm(ready_calm: str, host: ComputeHost) -> str:
    """The same, and no other cache is on the host."""
    for image_id, figures in host.image_figures().items():
        if image_id != ready_calm and figures['states']:
            host.forget(image_id)
    return ready_calm


@pytest.fixture
def configure(cloud: Cloud, stack: Stack) -> Iterator[Callable[..., None]]:
    """A function that restarts nova-compute with options, given as sections; they are away again
    before the servers of the test are. It kills, since a decent end takes ten seconds."""

    def restart(**sections: dict[str, object]) -> None:
        stack.restart('nova-compute', kill=True, config=sections)

    yield restart
    restart()


@pytest.fixture
def metrics(host: ComputeHost) -> Iterator[Metrics]:
    made = Metrics(host)
    made.prepare()
    yield made
    made.clear()


@pytest.fixture(params=['qcache', 'stock'])
def driver_of_the_end(request: pytest.FixtureRequest, stack: Stack) -> Iterator[str]:
    """The driver with which a scenario ends; ours is back after the test."""
    yield request.param
    if request.param != 'qcache':
        stack.restart('nova-compute', driver='qcache')
