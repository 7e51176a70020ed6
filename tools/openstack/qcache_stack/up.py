# SPDX-License-Identifier: Apache-2.0
"""``up``: start everything, as much at a time as there is no need to wait for."""

from collections.abc import Callable
import contextlib
import dataclasses
import functools
import signal
import socket
import time
from typing import Any

from qcache_stack import catalog
from qcache_stack import compute_conf
from qcache_stack import down
from qcache_stack import plugin
from qcache_stack import service
from qcache_stack import state as state_module
from qcache_stack.control_conf import ControlConf
from qcache_stack.databases import Cache
from qcache_stack.databases import Databases
from qcache_stack.databases import GROUPS
from qcache_stack.host import Host
from qcache_stack.process import StackError
from qcache_stack.rest import Client
from qcache_stack.service import Service
from qcache_stack.services import Services
from qcache_stack.settings import ADDRESS
from qcache_stack.settings import Layout
from qcache_stack.settings import Options
from qcache_stack.settings import Ports
from qcache_stack.stack import Stack
from qcache_stack.state import State
from qcache_stack.tasks import Tasks

__all__ = ['adjust', 'up']


class Starter:
    """One ``up``, from an empty state folder."""

    def __init__(self, layout: Layout, options: Options, say: Callable[[str], None]) -> None:
        self.layout = layout
        self.options = options
        self.say = say
        self.state = State(layout)
        self.ports = Ports(options.port_base)
        self.services = Services(layout, self.ports)
        cache = Cache(self.services)
        passwords = cache.passwords()
        self.passwords = passwords
        self.control = ControlConf(layout, self.ports, passwords)
        self.databases = Databases(self.services, passwords, cache)
        self.host = Host(layout, 1)
        self.auth = catalog.admin_auth(self.ports, passwords)
        self.client = Client(self.auth)

    def first_state(self) -> dict[str, Any]:
        host = self.host
        return {
            'status': 'starting',
            'root': str(self.layout.root),
            'venv': str(self.layout.venv),
            'logs': str(self.layout.logs),
            'options': dataclasses.asdict(self.options),
            'ports': self.ports.all(),
            'urls': {name: self.ports.url(name) for name in ('keystone', *catalog.SERVICES)},
            'auth': self.auth,
            'flavors': list(catalog.FLAVORS),
            'hosts': {
                host.name: {
                    'number': host.number,
                    'address': host.address,
                    'root': str(host.root),
                    'anchor': None,
                    'libvirt_uri': host.libvirt_uri,
                    'paths': {
                        name: {'inside': inside, 'outside': str(host.outside(inside))}
                        for name, inside in (
                            ('state', host.state_path),
                            ('instances', host.instances_path),
                            ('cache', host.cache_path),
                            ('run', host.run_path),
                            ('conf', host.conf),
                            ('conf_folder', host.conf_folder),
                        )
                    },
                    'base': {'inside': host.base_path, 'store': str(host.base_store)},
                }
            },
            'services': {},
        }

    def check_ports(self) -> None:
        """:raises StackError: if somebody else listens on one"""
        for name, port in self.ports.all().items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((ADDRESS, port))
                except OSError as e:
                    raise StackError(
                        f'port {port} for {name}: {e.strerror}; choose others with --port-base'
                    ) from e

    def run(self) -> None:
        self.check_ports()
        self.layout.logs.mkdir(exist_ok=True)
        for log in state_module.logs_of(self.layout):
            log.unlink()
        data = self.first_state()
        self.state.write(data)
        self.services.prepare_api_home()
        self.control.write()
        tasks = Tasks(self.say)
        self._data_tasks(tasks)
        self._control_tasks(tasks)
        self._host_tasks(tasks)
        tasks.run()
        with self.state.change() as data:
            data['status'] = 'up'

    def _start(self, wanted: Service) -> None:
        service.start(self.state, wanted)()

    def _data_tasks(self, tasks: Tasks) -> None:
        services = self.services

        def mariadb() -> None:
            services.prepare_database()
            self._start(services.mariadb())
            self.databases.create()

        def rabbitmq() -> None:
            services.prepare_rabbitmq(self.passwords.rabbit)
            self._start(services.epmd())
            self._start(services.rabbitmq())

        tasks.add('mariadb', mariadb)
        tasks.add('rabbitmq', rabbitmq)
        for group in GROUPS:
            tasks.add(
                f'tables of {group}', functools.partial(self.databases.fill, group), 'mariadb'
            )

    def _control_tasks(self, tasks: Tasks) -> None:
        services = self.services
        for name in ('keystone', 'glance', 'placement'):
            tasks.add(
                name, functools.partial(self._start, services.api(name)), f'tables of {name}'
            )
        tasks.add(
            'neutron',
            lambda: self._start(services.api('neutron')),
            'tables of neutron',
            'rabbitmq',
        )
        tasks.add(
            'catalog',
            lambda: catalog.make_catalog(self.client, self.ports, self.passwords),
            'keystone',
        )
        tasks.add(
            'nova-api', lambda: self._start(services.api('nova-api')), 'tables of nova', 'rabbitmq'
        )
        tasks.add(
            'nova-conductor',
            lambda: self._start(services.nova('nova-conductor')),
            'tables of nova',
            'rabbitmq',
            'catalog',  # it asks for a token, and a keystone that does not know it ends it
        )
        tasks.add(
            'nova-scheduler',
            lambda: self._start(services.nova('nova-scheduler')),
            'tables of nova',
            'rabbitmq',
            'catalog',
            'placement',
        )
        tasks.add(
            'flavors',
            lambda: catalog.make_flavors(self.client, self.ports),
            'nova-api',
            'catalog',
        )

    def _host_tasks(self, tasks: Tasks) -> None:
        services, host = self.services, self.host

        def namespace() -> None:
            host.prepare()
            compute_conf.write_conf(host, self.control)
            compute_conf.write_driver(host, self.options.driver)
            compute_conf.write_snippet(host, compute_conf.SET_SNIPPET, self.options.settings)
            anchor = host.start_anchor()
            with self.state.change() as data:
                data['hosts'][host.name]['anchor'] = dataclasses.asdict(anchor)

        def libvirt() -> None:
            self._start(services.virtlogd(host))
            self._start(services.libvirtd(host))

        needs = ['namespace', 'libvirt', 'nova-qcache', 'nova-conductor', 'catalog', 'placement']
        tasks.add('namespace', namespace)
        tasks.add('nova-qcache', lambda: plugin.install(self.layout, self.say))
        tasks.add('libvirt', libvirt, 'namespace')
        if self.options.base_rate != 'none':
            rate = self.options.base_rate
            tasks.add('base', lambda: self._start(services.base(host, rate)), 'namespace')
            needs.append('base')
        tasks.add('nova-compute', lambda: self._start(services.nova_compute(host)), *needs)
        tasks.add(
            'compute host known',
            lambda: catalog.wait_for_hypervisor(self.client, self.ports),
            'nova-compute',
            'nova-scheduler',
            'nova-api',
            'placement',
        )


def up(layout: Layout, options: Options, say: Callable[[str], None]) -> None:
    """Start a stack; whatever was started is ended again if that fails.

    :raises StackError: with the reason
    """
    began = time.monotonic()
    try:
        Starter(layout, options, say).run()
    except BaseException:
        say('this has failed: ending what was started; the logs stay')
        # Another interrupt must not leave it half done.
        with contextlib.suppress(ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
        down.down(layout, say)
        raise
    with State(layout).change() as data:
        data['up_seconds'] = round(time.monotonic() - began, 1)


def adjust(layout: Layout, wanted: dict[str, Any], say: Callable[[str], None]) -> None:
    """Make a stack that is up already what ``up`` was asked for, as far as that can be done.

    :param wanted: the options that were given; None for those that were not
    :raises StackError: if it would have to be made anew
    """
    stack = Stack(layout)
    present = stack.options
    for name in ('base_rate', 'port_base'):
        if wanted[name] not in (None, getattr(present, name)):
            raise StackError(
                f'it is up with --{name.replace("_", "-")} {getattr(present, name)}, '
                f'and {wanted[name]} needs a "down" first'
            )
    changed = plugin.install(layout, say)
    driver, settings = wanted['driver'], wanted['settings']
    if driver is not None and driver != present.driver:
        stack.set_driver(driver)
        changed = True
    if settings and settings != present.settings:
        compute_conf.write_snippet(stack.host, compute_conf.SET_SNIPPET, settings)
        with stack.state.change() as data:
            data['options']['settings'] = settings
        changed = True
    if changed:
        say('restarting nova-compute for what has changed')
        stack.restart('nova-compute')
    else:
        say('it is up already')
