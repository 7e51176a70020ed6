# SPDX-License-Identifier: Apache-2.0
"""Configuration of the control plane: Keystone, Glance, Placement, Neutron, Nova's API."""

import base64
import dataclasses
import os
import pathlib
import shutil

from qcache_stack import ini
from qcache_stack.settings import ADDRESS
from qcache_stack.settings import API_USER
from qcache_stack.settings import Layout
from qcache_stack.settings import Ports

__all__ = ['APIS', 'LOG_LEVELS', 'ControlConf', 'Passwords']

APIS = {
    'keystone': 'keystone.wsgi.api:application',
    'glance': 'glance.wsgi.api:application',
    'placement': 'placement.wsgi.api:application',
    'neutron': 'neutron.wsgi.api:application',
    'nova-api': 'nova.wsgi.osapi_compute:application',
}

LOG_LEVELS = (
    'amqp=WARN,amqplib=WARN,sqlalchemy=WARN,oslo.messaging=INFO,oslo_messaging=INFO,iso8601=WARN,'
    'requests.packages.urllib3.connectionpool=WARN,urllib3.connectionpool=WARN,websocket=WARN,'
    'keystonemiddleware=WARN,routes.middleware=WARN,stevedore=WARN,taskflow=WARN,'
    'keystoneauth=WARN,oslo.cache=INFO,oslo_policy=INFO,dogpile.core.dogpile=INFO,'
    'nova.service=DEBUG,nova_qcache=DEBUG,nova.virt.qcache=DEBUG'
)
"""oslo.log's own, and those lines of nova.service that tell when a service is ready."""


@dataclasses.dataclass(frozen=True)
class Passwords:
    database: str
    rabbit: str
    admin: str
    service: str


class ControlConf:
    """The files, and the parts of them that a compute host's files share."""

    def __init__(self, layout: Layout, ports: Ports, passwords: Passwords) -> None:
        self.layout = layout
        self.ports = ports
        self.passwords = passwords

    @property
    def transport_url(self) -> str:
        user = f'openstack:{self.passwords.rabbit}'
        return f'rabbit://{user}@{ADDRESS}:{self.ports["rabbitmq"]}/'

    def database(self, name: str) -> dict[str, object]:
        return {'connection': self.database_url(name), 'max_pool_size': 10, 'max_overflow': 20}

    def database_url(self, name: str) -> str:
        user = f'openstack:{self.passwords.database}'
        where = f'{ADDRESS}:{self.ports["mariadb"]}'
        return f'mysql+pymysql://{user}@{where}/{name}?charset=utf8mb3'

    def service_user(self, **more: object) -> dict[str, object]:
        """Return what a service needs to call another one."""
        return {
            'auth_type': 'password',
            'auth_url': self.ports.url('keystone'),
            'username': 'service',
            'password': self.passwords.service,
            'project_name': 'service',
            'user_domain_name': 'Default',
            'project_domain_name': 'Default',
            'region_name': 'RegionOne',
            **more,
        }

    def token_check(self) -> dict[str, object]:
        return self.service_user(
            www_authenticate_uri=self.ports.url('keystone'), service_token_roles_required=True
        )

    def common(self) -> dict[str, dict[str, object]]:
        """Return what all services of Nova have in common."""
        return {
            'DEFAULT': {
                'transport_url': self.transport_url,
                'use_stderr': True,
                'default_log_levels': LOG_LEVELS,
                'graceful_shutdown_timeout': 6,
                'manager_shutdown_timeout': 3,
                'rpc_response_timeout': 300,
                # A busy host is not down, and nothing here waits for one that is.
                'service_down_time': 900,
                'allow_resize_to_same_host': True,  # the API decides it, not the host
                'periodic_fuzzy_delay': 0,
            },
            'oslo_concurrency': {'lock_path': self.layout.api_home / 'lock'},
            'keystone_authtoken': self.token_check(),
            'service_user': self.service_user(send_service_user_token=True),
            'placement': self.service_user(),
            'neutron': self.service_user(endpoint_override=self.ports.url('neutron')),
            'glance': self.service_user(
                api_servers=self.ports.url('glance'), enable_rbd_download=False
            ),
        }

    def write(self) -> None:
        self._keystone()
        self._glance()
        self._placement()
        self._neutron()
        self._nova()
        for name in APIS:
            self._gunicorn(name)

    def _write(self, name: str, sections: ini.Sections) -> None:
        self._text(name, ini.render(sections))

    def _text(self, name: str, text: str) -> pathlib.Path:
        return ini.write(self.layout.etc / name, text, gid=API_USER.uid)

    def _paste(self, service: str, name: str) -> None:
        shutil.copyfile(
            self.layout.venv / 'etc' / service / name, self.layout.etc / service / name
        )

    def _keystone(self) -> None:
        keys = self.layout.api_home / 'keys'
        self._write(
            'keystone/keystone.conf',
            {
                'DEFAULT': {'use_stderr': True},
                'database': self.database('keystone'),
                'token': {'provider': 'fernet', 'expiration': 86400},
                'fernet_tokens': {'key_repository': keys / 'fernet'},
                'fernet_receipts': {'key_repository': keys / 'fernet'},
                'credential': {'key_repository': keys / 'credential'},
                'cache': {'enabled': True, 'backend': 'oslo_cache.dict'},
            },
        )
        for kind in ('fernet', 'credential'):
            # What keystone-manage's fernet_setup and credential_setup do, in no time.
            for number in (0, 1):
                path = keys / kind / str(number)
                key = base64.urlsafe_b64encode(os.urandom(32)).decode()
                ini.write(path, key, uid=API_USER.uid, gid=API_USER.uid, mode=0o600)
            os.chown(keys / kind, API_USER.uid, API_USER.uid)
            (keys / kind).chmod(0o700)

    def _glance(self) -> None:
        self._write(
            'glance/glance-api.conf',
            {
                'DEFAULT': {
                    'use_stderr': True,
                    'enabled_backends': 'file:file',
                    'show_multiple_locations': False,
                    'enabled_import_methods': '[glance-direct,web-download]',
                    'node_staging_uri': f'file://{self.layout.api_home}/staging',
                    'worker_self_reference_url': self.ports.url('glance'),
                },
                'glance_store': {'default_backend': 'file'},
                'file': {'filesystem_store_datadir': self.layout.images},
                # Without folders of their own these two take away the right to delete images.
                'os_glance_staging_store': {
                    'filesystem_store_datadir': self.layout.api_home / 'staging'
                },
                'os_glance_tasks_store': {
                    'filesystem_store_datadir': self.layout.api_home / 'tasks'
                },
                'database': self.database('glance'),
                'keystone_authtoken': self.token_check(),
                'paste_deploy': {'flavor': 'keystone'},
                'oslo_concurrency': {'lock_path': self.layout.api_home / 'lock'},
            },
        )
        self._paste('glance', 'glance-api-paste.ini')

    def _placement(self) -> None:
        self._write(
            'placement/placement.conf',
            {
                'DEFAULT': {'use_stderr': True},
                'placement_database': self.database('placement'),
                'api': {'auth_strategy': 'keystone'},
                'keystone_authtoken': self.token_check(),
            },
        )

    def _neutron(self) -> None:
        """An API without agents: enough for servers with ``networks='none'``."""
        self._write(
            'neutron/neutron.conf',
            {
                'DEFAULT': {
                    'use_stderr': True,
                    'transport_url': self.transport_url,
                    'core_plugin': 'ml2',
                    'service_plugins': '',
                    'auth_strategy': 'keystone',
                    'state_path': self.layout.api_home / 'neutron',
                    'api_paste_config': self.layout.etc / 'neutron' / 'api-paste.ini',
                    'notify_nova_on_port_status_changes': False,
                    'notify_nova_on_port_data_changes': False,
                },
                'database': self.database('neutron'),
                'keystone_authtoken': self.token_check(),
                'oslo_concurrency': {'lock_path': self.layout.api_home / 'lock'},
                'ml2': {
                    'type_drivers': 'local',
                    'tenant_network_types': 'local',
                    'mechanism_drivers': '',
                },
            },
        )
        self._paste('neutron', 'api-paste.ini')

    def _nova(self) -> None:
        sections = ini.merge(
            self.common(),
            {
                'DEFAULT': {
                    'state_path': self.layout.api_home / 'nova',
                    'my_ip': ADDRESS,
                    # More than any test will start.
                    'initial_cpu_allocation_ratio': 512,
                    'initial_ram_allocation_ratio': 64,
                    'initial_disk_allocation_ratio': 64,
                },
                'database': self.database('nova'),
                'api_database': self.database('nova_api'),
                'api': {'auth_strategy': 'keystone'},
                'wsgi': {'api_paste_config': self.layout.etc / 'nova' / 'api-paste.ini'},
                'conductor': {'workers': 1},
                'scheduler': {'workers': 1, 'discover_hosts_in_cells_interval': 2},
                'filter_scheduler': {'track_instance_changes': False},
                'quota': {'instances': -1, 'cores': -1, 'ram': -1},
            },
        )
        self._write('nova/nova.conf', sections)
        self._paste('nova', 'api-paste.ini')

    def _gunicorn(self, name: str) -> None:
        """Options on a command line would reach the service's own parser, which refuses them."""
        options = {
            'wsgi_app': APIS[name],
            'bind': f'{ADDRESS}:{self.ports[name]}',
            'worker_class': 'gthread',
            'workers': 1,
            'threads': 8,
            'keepalive': 120,  # with the default of 2 s, polling clients lose a race now and then
            'timeout': 900,
            'graceful_timeout': 3,
            'control_socket_disable': True,
            'accesslog': None,
        }
        lines = [f'{option} = {value!r}' for option, value in options.items()]
        if name == 'neutron':
            lines.append(_CONFIGURE_MAPPERS)
        self._text(f'gunicorn/{name}.py', '\n'.join([*lines, '']))


# Neutron uses an attribute that SQLAlchemy makes with the first query of a process, and "list
# ports" does so before its query: without this hook, it fails until somebody has asked for
# something else.
_CONFIGURE_MAPPERS = '''

def post_worker_init(worker):
    from sqlalchemy import orm

    orm.configure_mappers()
'''
