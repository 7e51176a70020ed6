# SPDX-License-Identifier: Apache-2.0
"""The services of a stack, and how each is called."""

import os
import pathlib
import pwd
import shutil

from qcache_stack import ini
from qcache_stack.host import Host
from qcache_stack.process import run
from qcache_stack.service import Ready
from qcache_stack.service import Service
from qcache_stack.settings import ADDRESS
from qcache_stack.settings import API_USER
from qcache_stack.settings import environment
from qcache_stack.settings import Layout
from qcache_stack.settings import Ports

__all__ = ['Services', 'as_user']

_RABBITMQ = '/usr/lib/rabbitmq/bin/rabbitmq-server'
_NODE = 'qcache@localhost'
_LOOPBACK_ONLY = '-kernel inet_dist_use_interface {127,0,0,1}'
_JOINED = 'Join ServiceGroup membership for this service'


def as_user(user: str | int, argv: list[str]) -> list[str]:
    """Return the command as an ordinary user runs it; there need not be a name for a number."""
    if isinstance(user, str):
        entry = pwd.getpwnam(user)
        uid, gid = entry.pw_uid, entry.pw_gid
    else:
        uid = gid = user
    drop = ['setpriv', f'--reuid={uid}', f'--regid={gid}', '--clear-groups', '--inh-caps=-all']
    return [*drop, '--', *argv]


class Services:
    """Descriptions of all services; nothing is started here."""

    def __init__(self, layout: Layout, ports: Ports) -> None:
        self.layout = layout
        self.ports = ports

    def _log(self, name: str) -> str:
        return str(self.layout.log(name))

    # The database and the message queue

    @property
    def database_socket(self) -> pathlib.Path:
        return self.layout.mariadb / 'socket'

    def prepare_database(self) -> None:
        """Make a data folder."""
        conf = self.layout.mariadb / 'my.cnf'
        options = {
            'datadir': self.layout.mariadb / 'data',
            'socket': self.database_socket,
            'pid_file': self.layout.mariadb / 'pid',
            'tmpdir': self.layout.mariadb,
            'port': self.ports['mariadb'],
            'bind_address': ADDRESS,
            'character_set_server': 'utf8mb3',
            'max_connections': 400,
            'performance_schema': 'OFF',
            'skip_name_resolve': 'ON',
            # What is in it is thrown away by "down".
            'innodb_flush_log_at_trx_commit': 0,
            'innodb_doublewrite': 0,
            'innodb_log_file_size': '32M',
            'sync_binlog': 0,
        }
        self.layout.mariadb.mkdir()
        shutil.chown(self.layout.mariadb, 'mysql', 'mysql')
        ini.write(conf, ini.render({'mysqld': options}), mode=0o644)
        install = ['mariadb-install-db', f'--defaults-file={conf}', '--skip-test-db']
        install += ['--auth-root-authentication-method=normal', '--skip-name-resolve']
        run(as_user('mysql', install), environment(self.layout, '/nonexistent'))

    def mariadb(self) -> Service:
        conf = self.layout.mariadb / 'my.cnf'
        return Service(
            'mariadb',
            as_user('mysql', ['mariadbd', f'--defaults-file={conf}']),
            environment(self.layout, '/nonexistent'),
            self._log('mariadb'),
            Ready('socket', str(self.database_socket)),
            conf=str(conf),
            url=f'mysql://{ADDRESS}:{self.ports["mariadb"]}',
            user='mysql',
        )

    def _rabbitmq_environment(self) -> dict[str, str]:
        folder = self.layout.rabbitmq
        return environment(
            self.layout,
            str(folder),
            {
                'ERL_EPMD_ADDRESS': ADDRESS,  # else it listens on all
                'ERL_EPMD_PORT': str(self.ports['epmd']),
                'RABBITMQ_NODENAME': _NODE,
                'RABBITMQ_NODE_IP_ADDRESS': ADDRESS,
                'RABBITMQ_NODE_PORT': str(self.ports['rabbitmq']),
                'RABBITMQ_DIST_PORT': str(self.ports['rabbitmq-dist']),
                'RABBITMQ_CONF_ENV_FILE': str(folder / 'env.conf'),
                'RABBITMQ_CONFIG_FILE': str(folder / 'rabbitmq'),
                'RABBITMQ_ENABLED_PLUGINS_FILE': str(folder / 'plugins'),
                'RABBITMQ_MNESIA_BASE': str(folder / 'mnesia'),
                'RABBITMQ_LOG_BASE': str(folder / 'log'),
                'RABBITMQ_PID_FILE': str(folder / 'pid'),
                'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS': _LOOPBACK_ONLY,
                'RUNNING_UNDER_SYSTEMD': '1',  # makes the script become the server
            },
        )

    def prepare_rabbitmq(self, password: str) -> None:
        folder = self.layout.rabbitmq
        folder.mkdir()
        ini.write(folder / 'env.conf', '', mode=0o644)
        ini.write(folder / 'plugins', '[].\n', mode=0o644)
        text = (
            'default_user = openstack\n'
            f'default_pass = {password}\n'
            'log.console = true\n'
            'log.console.level = warning\n'
            'log.file = false\n'
            'vm_memory_high_watermark.relative = 0.4\n'
            'disk_free_limit.absolute = 50MB\n'
        )
        ini.write(folder / 'rabbitmq.conf', text, mode=0o600)
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, 'rabbitmq', 'rabbitmq')
        folder.chmod(0o750)

    def epmd(self) -> Service:
        """Erlang's port mapper, which a node would start and leave behind otherwise."""
        return Service(
            'epmd',
            as_user('rabbitmq', ['epmd', '-address', ADDRESS, '-port', str(self.ports['epmd'])]),
            self._rabbitmq_environment(),
            self._log('epmd'),
            Ready('tcp', f'{ADDRESS}:{self.ports["epmd"]}'),
            user='rabbitmq',
        )

    def rabbitmq(self) -> Service:
        return Service(
            'rabbitmq',
            as_user('rabbitmq', [_RABBITMQ, '-noinput']),
            self._rabbitmq_environment(),
            self._log('rabbitmq'),
            Ready('tcp', f'{ADDRESS}:{self.ports["rabbitmq"]}'),
            conf=str(self.layout.rabbitmq / 'rabbitmq.conf'),
            url=f'amqp://{ADDRESS}:{self.ports["rabbitmq"]}',
            user='rabbitmq',
        )

    # The control plane

    def prepare_api_home(self) -> None:
        for folder in ('', 'images', 'staging', 'lock', 'nova', 'neutron', 'keys'):
            path = self.layout.api_home / folder
            path.mkdir(exist_ok=True)
            os.chown(path, API_USER.uid, API_USER.uid)

    def api_environment(self, name: str) -> dict[str, str]:
        """Return the surroundings of a service and of its manage command."""
        short = name.removesuffix('-api')
        more = {f'OS_{short.upper()}_CONFIG_DIR': str(self.layout.etc / short)}
        if name == 'neutron':
            more['OS_NEUTRON_CONFIG_FILES'] = 'neutron.conf'
        return environment(self.layout, str(self.layout.api_home), more)

    def conf(self, name: str) -> str:
        short = name.removesuffix('-api')
        file = {'glance': 'glance-api.conf'}.get(short, f'{short}.conf')
        return str(self.layout.etc / short / file)

    def api(self, name: str) -> Service:
        """One of :data:`qcache_stack.control_conf.APIS`."""
        gunicorn = self.layout.etc / 'gunicorn' / f'{name}.py'
        return Service(
            name,
            as_user(API_USER.uid, [self.layout.bin('gunicorn')]),
            {**self.api_environment(name), 'GUNICORN_CMD_ARGS': f'-c {gunicorn}'},
            self._log(name),
            Ready('http', f'http://{ADDRESS}:{self.ports[name]}/'),
            conf=self.conf(name),
            url=self.ports.url(name),
            user=API_USER.name,
        )

    def nova(self, name: str) -> Service:
        """nova-conductor or nova-scheduler."""
        conf = self.conf('nova')
        return Service(
            name,
            as_user(API_USER.uid, [self.layout.bin(name), '--config-file', conf]),
            self.api_environment('nova'),
            self._log(name),
            Ready('log', _JOINED),
            conf=conf,
            user=API_USER.name,
        )

    # A compute host

    def _on(self, host: Host, name: str, argv: list[str], ready: Ready, conf: str = '') -> Service:
        return Service(
            name,
            host.enter(argv),
            environment(self.layout, str(host.root_home)),
            self._log(name),
            ready,
            conf=str(host.outside(conf)) if conf else None,
            host=host.name,
        )

    def virtlogd(self, host: Host) -> Service:
        ready = Ready('socket', str(host.run_folder / 'libvirt' / 'virtlogd-sock'))
        return self._on(host, 'virtlogd', ['virtlogd'], ready, '/etc/libvirt/virtlogd.conf')

    def libvirtd(self, host: Host) -> Service:
        ready = Ready('socket', str(host.libvirt_socket))
        return self._on(host, 'libvirtd', ['libvirtd'], ready, '/etc/libvirt/libvirtd.conf')

    def base(self, host: Host, rate: str) -> Service:
        """A mount that makes the base images remote; its rchar counts what was read of them."""
        argv = ['bindfs', '-f', '-o', 'allow_other']
        if rate != 'unlimited':
            argv.append(f'--read-rate={rate}')
        argv += [str(host.base_store), host.base_path]
        return self._on(host, 'base', argv, Ready('mount', host.base_path))

    def nova_compute(self, host: Host) -> Service:
        argv = [self.layout.bin('nova-compute'), '--config-file', host.conf]
        argv += ['--config-dir', host.conf_folder]
        return Service(
            'nova-compute',
            host.enter(argv, user='nova'),
            environment(self.layout, host.state_path),
            self._log('nova-compute'),
            Ready('log', _JOINED),
            conf=str(host.outside(host.conf)),
            host=host.name,
            user='nova',
            stop_seconds=20,
        )
