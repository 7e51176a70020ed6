# SPDX-License-Identifier: Apache-2.0
"""What the engine is made of: each part gets the folders and options that concern it."""

import contextlib
from unittest import mock

import pytest

from nova_qcache.cache import eviction
from nova_qcache.cache import pool
from nova_qcache.cache.usage import Domains
from nova_qcache.engine import boots as boots_module
from nova_qcache.engine import host as host_module
from nova_qcache.engine import manager as manager_module
from nova_qcache.engine.manager import Manager
from tests.unit import builders

PARTS = {
    host_module: ('Generations', 'Leases', 'LibvirtDomains', 'Pins', 'Pool', 'Catalog', 'Usage'),
    boots_module: ('Admission', 'Audits', 'Requests'),
    manager_module: ('QemuImg', 'QemuIo', 'Verifier'),
}


@pytest.fixture
def parts():
    """The classes of the parts; each makes one and the same thing."""
    with contextlib.ExitStack() as stack:
        made = {
            name: stack.enter_context(mock.patch.object(module, name, autospec=True))
            for module, names in PARTS.items()
            for name in names
        }
        made['Catalog'].return_value.counter_store = 'the counter store'
        yield made


@pytest.fixture
def conf(short_folder):
    return builders.config(
        short_folder,
        audit_every=5,
        libvirt_uri='test:///here',
        lock_timeout_seconds=7,
        plan_lease_seconds=301,
        qemu_img='/x/qemu-img',
        qemu_io='/x/qemu-io',
        record_from_boot=3,
        start_timeout_seconds=31,
    )


def test_each_part_gets_what_concerns_it(parts, conf, short_folder):
    paths = Manager(conf).paths
    one = {name: part.return_value for name, part in parts.items()}
    said = {name: part.call_args.args for name, part in parts.items() if name != 'Leases'}
    catalog, usage, leases = one['Catalog'], one['Usage'], one['Leases']
    *_, policy, limits, reservations, seconds = said.pop('Pool')
    assert isinstance(policy, eviction.LeastValuable)
    assert limits == pool.limits(conf, paths.cache_path)
    assert (reservations, seconds) == (leases, 7)
    assert parts['Pool'].call_args.args[:3] == (catalog, one['Pins'], usage)
    assert parts['Leases'].call_args_list == [
        mock.call(paths.leases, 301),
        mock.call(paths.reservations, 31 + 60),
    ]
    instances = str(short_folder / 'instances')
    file = f'--config-file={short_folder / "nova.conf"}'
    assert said == {
        'Admission': (catalog.counter_store, 3),
        'Audits': (catalog, one['Pool'], [file], 5),
        'Generations': (paths, 7),
        'LibvirtDomains': ('test:///here',),
        'Pins': (paths, 7),
        'QemuImg': ('/x/qemu-img',),
        'QemuIo': ('/x/qemu-io',),
        'Requests': (paths.revalidations,),
        'Catalog': (paths, 7),
        'Usage': (paths, leases, said['Usage'][2], one['LibvirtDomains']),
        'Verifier': (catalog, one['Generations'], one['QemuImg'], one['QemuIo']),
    }
    assert str(said['Usage'][2]) == instances


def test_whoever_knows_the_domains_is_asked_in_place_of_libvirt(parts, conf):
    domains = mock.create_autospec(Domains, instance=True)
    Manager(conf, domains)
    assert parts['Usage'].call_args.args[-1] is domains
    parts['LibvirtDomains'].assert_not_called()


def test_without_libvirt_nobody_tells_of_domains(parts, conf):
    conf.set_override('libvirt_uri', '', 'qcache')
    Manager(conf)
    assert parts['Usage'].call_args.args[-1] is None
    parts['LibvirtDomains'].assert_not_called()
