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

from tests.openstack import options  # noqa: E402
from tests.openstack.cloud import Cloud  # noqa: E402
from tests.openstack.compute import ComputeHost  # noqa: E402
from tests.openstack.metrics import Metrics  # noqa: E402
from tests.openstack.options import NovaOptions  # noqa: E402

_SETTINGS = {
    'qcache.quota': 200,
    # A recording ends when its test says so, and not when a guest on a busy machine pauses.
    'qcache.recording_idle_seconds': 3600,
    'qcache.recording_settle_seconds': 3600,
    'qcache.recording_max_seconds': 86400,
    'qcache.guest_grace_seconds': 4,
    # For so long a recorder waits for a guest that it was told of and that boots plain.
    'qcache.plan_lease_seconds': 60,
    'qcache.audit_every': 0,  # tests boot an image often, and know what its next boot does
    'libvirt.wait_soft_reboot_seconds': 300,
}
_UP_SECONDS = 1800
_TEST_SECONDS = 3600


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line('markers', f'{options.MARK}(SECTION=..., ...): of nova-compute')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    options.order(items)
    for item in items:
        if item.get_closest_marker('timeout') is None:
            item.add_marker(pytest.mark.timeout(_TEST_SECONDS))


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
            subprocess.run([*command, 'down'], check=True, timeout=_UP_SECONDS)


@pytest.fixture(scope='session')
def session_options(stack: Stack) -> NovaOptions:
    return NovaOptions(stack, None)


@pytest.fixture(autouse=True)
def nova_options(request: pytest.FixtureRequest, session_options: NovaOptions) -> NovaOptions:
    """What nova-compute runs with: the options of the test's marker, and no others."""
    session_options.ensure(**options.marked(request.node))
    return session_options


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
    subprocess.run([str(build), str(folder)], check=True, timeout=_UP_SECONDS)
    return folder


@pytest.fixture(scope='session')
def bootable_image(session_cloud: Cloud, disks: pathlib.Path) -> str:
    """The image of a guest that BIOS and GRUB boot, and that then reads nothing new."""
    return session_cloud.upload(disks / 'calm.raw')


@pytest.fixture(scope='session')
def kernel(session_cloud: Cloud, disks: pathlib.Path) -> dict[str, str]:
    """Properties of images whose kernel Nova loads.

    Emulated, BIOS and GRUB take about half of the processor time of a boot. Images that a test
    makes for itself are booted by both.
    """
    return {
        'kernel_id': session_cloud.upload(disks / 'vmlinuz', 'aki'),
        'ramdisk_id': session_cloud.upload(disks / 'initrd', 'ari'),
        'os_command_line': (disks / 'command_line').read_text().strip(),
    }


@pytest.fixture(scope='session')
def calm_image(session_cloud: Cloud, disks: pathlib.Path, kernel: dict[str, str]) -> str:
    """The image of a guest that boots, and then reads nothing new."""
    return session_cloud.upload(disks / 'calm.raw', **kernel)


@pytest.fixture(scope='session')
def busy_image(session_cloud: Cloud, disks: pathlib.Path, kernel: dict[str, str]) -> str:
    """The image of a guest that goes on reading: its recording does not end by itself."""
    mode = f'{kernel["os_command_line"]} qcache.mode=busy'
    return session_cloud.upload(disks / 'busy.raw', **{**kernel, 'os_command_line': mode})


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
def cold_bootable(bootable_image: str, host: ComputeHost) -> str:
    host.forget(bootable_image)
    return bootable_image


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
        server.wait_until_booted()
        host.seal(calm_image)
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
def configure(nova_options: NovaOptions) -> Callable[..., None]:
    """A function that gives nova-compute other options in the middle of a test, as sections."""
    return nova_options.ensure


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
        stack.restart('nova-compute', driver='qcache', kill=True)
