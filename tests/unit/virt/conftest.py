# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that need Nova: its configuration, an instance with real disks."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import subprocess
from typing import Any
from unittest import mock

from nova import objects
import nova.conf
import nova.privsep
from nova.virt import fake
from nova.virt.libvirt.cpu import api as cpu_api
import pytest

from nova_qcache import conf as qcache_conf
from nova_qcache.model.plan import Plan
from nova_qcache.model.plan import PlanKind
from nova_qcache.virt import driver as driver_module
from nova_qcache.virt.driver import QcacheDriver
from nova_qcache.virt.planner import Planner
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.virt import documents
from tests.unit.virt import libvirt_double
from tests.unit.virt.libvirt_double import FakeDomain

if 'PYTEST_XDIST_WORKER' in os.environ:
    # It would stand still as soon as Nova replaces the threads of Python.
    raise pytest.UsageError('Nova does not run in a worker of pytest-xdist; leave -n out')

objects.register_all()
qcache_conf.register_opts(nova.conf.CONF)


@pytest.fixture(autouse=True)
def nova_conf(tmp_path: pathlib.Path) -> Iterator[Any]:
    """Nova's configuration: all defaults, and folders that are the test's own."""
    conf = nova.conf.CONF
    conf([], project='nova', default_config_files=[], default_config_dirs=[])
    conf.set_override('instances_path', str(tmp_path / 'instances'))
    conf.set_override('virt_type', 'qemu', 'libvirt')
    conf.set_override('images_type', 'qcow2', 'libvirt')
    nova.privsep.sys_admin_pctxt.set_client_mode(False)  # as this user, without sudo
    yield conf
    conf.reset()


@pytest.fixture
def fake_libvirt(nova_conf):
    """The libvirt of Nova's own tests."""
    from nova.tests.fixtures import libvirt as fakelibvirt

    fixture = fakelibvirt.LibvirtFixture()
    fixture.setUp()
    yield
    fixture.cleanUp()


@pytest.fixture
def base_path(tmp_path):
    """A base in Nova's image cache."""
    folder = tmp_path / 'instances' / '_base'
    folder.mkdir(parents=True)
    path = folder / documents.BASE_NAME
    qemu_img('create', '-f', 'raw', str(path), '1M')
    return path


@pytest.fixture
def overlay_path(tmp_path):
    return tmp_path / 'instances' / documents.INSTANCE / 'disk'


@pytest.fixture
def overlay(base_path, overlay_path):
    """The root disk of an instance, on its base."""
    overlay_path.parent.mkdir(exist_ok=True)
    backing = ('-b', str(base_path), '-F', 'raw')
    qemu_img('create', '-f', 'qcow2', *backing, str(overlay_path), '2M')
    return overlay_path


@pytest.fixture
def instance():
    """An instance that boots from an image, as Nova has it in its database."""
    flavor = objects.Flavor(
        flavorid='1', name='small', memory_mb=128, vcpus=1, root_gb=1, extra_specs={}
    )
    return objects.Instance(
        uuid=documents.INSTANCE,
        id=1,
        image_ref=IMAGE,
        system_metadata={'image_base_image_ref': IMAGE},
        task_state=None,
        vm_state='active',
        trusted_certs=None,
        ephemeral_key_uuid=None,
        flavor=flavor,
        resources=None,
        migration_context=None,
        numa_topology=None,
    )


@pytest.fixture
def play(base_path):
    return Plan(
        PlanKind.PLAY,
        'the cache is ready',
        IMAGE,
        str(base_path),
        'raw',
        GENERATION,
        cache=documents.CACHE,
    )


@pytest.fixture
def record(base_path):
    return Plan(
        PlanKind.RECORD,
        'no cache yet',
        IMAGE,
        str(base_path),
        'raw',
        GENERATION,
        socket=documents.SOCKET,
    )


@pytest.fixture(params=['play', 'record'])
def plan(request):
    """Each plan that is a chain."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def planner():
    """A planner that plans nothing, unless a test says otherwise."""
    made = mock.create_autospec(Planner, instance=True)
    made.plan.return_value = None
    made.reconnect_seconds = 0
    return made


@pytest.fixture(params=list(documents.OURS))
def chained(request):
    """XML of a domain that runs on each chain of ours."""
    return documents.OURS[request.param]


def qemu_img(*arguments: str) -> None:
    subprocess.run(['qemu-img', *arguments], check=True, capture_output=True)


@pytest.fixture
def events(planner):
    """What is said to the planner about a base, in order; tests add what Nova does to it."""
    said: list[object] = []

    @contextlib.contextmanager
    def writing(base):
        said.append(('writing', base))
        try:
            yield
        finally:
            said.append('written')

    planner.writing.side_effect = writing
    return said


# -- a driver, and the one domain of its libvirt


@pytest.fixture
def domain():
    """Not defined yet."""
    return FakeDomain()


@pytest.fixture
def running(domain, chained):
    """It runs on a chain of ours, and is defined without, as the driver leaves it."""
    domain.inactive, domain.active = documents.PLAIN, chained
    return domain


@pytest.fixture
def driver(domain, planner):
    with mock.patch.object(driver_module, 'Planner', autospec=True, return_value=planner):
        made = QcacheDriver(fake.FakeVirtAPI())
    made._host = libvirt_double.host(domain)
    made.cpu_api = mock.create_autospec(cpu_api.API, instance=True)
    return made


@pytest.fixture
def release(planner, domain):
    """What the domain is defined with when its lease ends."""
    defined = []
    planner.release.side_effect = lambda instance: defined.append(domain.inactive)
    return defined
