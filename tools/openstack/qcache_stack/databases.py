# SPDX-License-Identifier: Apache-2.0
"""The databases and the tables in them.

Making the tables takes a minute of processor time and its result is always the same, so it is kept
in the cache folder for the next start. The passwords are part of it (they are in the tables) and
are kept there, too.
"""

from collections.abc import Callable
import dataclasses
import hashlib
import json
import pathlib
import shutil

from qcache_stack import ini
from qcache_stack.control_conf import Passwords
from qcache_stack.process import run
from qcache_stack.services import as_user
from qcache_stack.services import Services
from qcache_stack.settings import API_USER
from qcache_stack.settings import environment
from qcache_stack.settings import new_password

__all__ = ['GROUPS', 'Cache', 'Databases']

GROUPS = {
    'keystone': ['keystone'],
    'glance': ['glance'],
    'placement': ['placement'],
    'neutron': ['neutron'],
    'nova': ['nova_api', 'nova_cell0', 'nova'],
}
"""Databases by the service that fills them."""
_FORMAT = 1


class Cache:
    """One folder, for one set of packages and ports; it takes the place of others."""

    def __init__(self, services: Services) -> None:
        requirements = pathlib.Path(__file__).parents[1] / 'requirements.txt'
        key = [str(_FORMAT), requirements.read_text(), str(services.ports.base)]
        name = hashlib.sha256('\n'.join(key).encode()).hexdigest()[:16]
        self.folder = services.layout.cache / name

    def passwords(self) -> Passwords:
        path = self.folder / 'passwords.json'
        if not path.exists():
            shutil.rmtree(self.folder.parent, ignore_errors=True)
            fields = [field.name for field in dataclasses.fields(Passwords)]
            text = json.dumps({name: new_password() for name in fields})
            self.folder.mkdir(parents=True)
            self.folder.parent.chmod(0o700)
            ini.write(path, text, mode=0o600)
        return Passwords(**json.loads(path.read_text()))

    def dump(self, group: str) -> pathlib.Path:
        return self.folder / f'{group}.sql'


class Databases:
    def __init__(self, services: Services, passwords: Passwords, cache: Cache) -> None:
        self.services = services
        self.passwords = passwords
        self.cache = cache
        self.layout = services.layout

    def sql(self, text: str) -> str:
        """Run statements as the database's root."""
        return run(self._client('mariadb', '--batch'), self._environment(), text=text)

    def _client(self, name: str, *arguments: str) -> list[str]:
        socket = f'--socket={self.services.database_socket}'
        return [name, '--no-defaults', socket, '--user=root', *arguments]

    def _environment(self) -> dict[str, str]:
        return environment(self.layout, '/nonexistent')

    def create(self) -> None:
        lines = []
        for names in GROUPS.values():
            for name in names:
                lines.append(f'CREATE DATABASE {name} CHARACTER SET utf8mb3;')
        for host in ('localhost', '127.0.0.1'):
            who = f"'openstack'@'{host}'"
            lines.append(f"CREATE USER {who} IDENTIFIED BY '{self.passwords.database}';")
            lines.append(f'GRANT ALL ON *.* TO {who};')
        self.sql('\n'.join(lines))

    def fill(self, group: str) -> None:
        """Make the tables of a service, as its own tools do or as they did it last time."""
        dump = self.cache.dump(group)
        if dump.exists():
            self.sql(dump.read_text())
            return
        _FILL[group](self)
        text = run(
            self._client('mariadb-dump', '--skip-comments', '--databases', *GROUPS[group]),
            self._environment(),
        )
        head = 'SET SESSION foreign_key_checks=0, unique_checks=0;\n'
        ini.write(dump, head + text, mode=0o600)

    def _manage(self, service: str, *arguments: str, **more: str) -> None:
        tool = 'neutron-db-manage' if service == 'neutron' else f'{service}-manage'
        argv = [self.layout.bin(tool), '--config-file', self.services.conf(service), *arguments]
        name = 'nova-api' if service == 'nova' else service
        surroundings = {**self.services.api_environment(name), **more}
        run(as_user(API_USER.uid, argv), surroundings)

    def fill_keystone(self) -> None:
        self._manage('keystone', 'db_sync')
        url = self.services.ports.url('keystone')
        urls = [f'--bootstrap-{kind}-url={url}' for kind in ('admin', 'internal', 'public')]
        self._manage(
            'keystone',
            'bootstrap',
            *urls,
            '--bootstrap-region-id=RegionOne',
            OS_BOOTSTRAP_PASSWORD=self.passwords.admin,
        )

    def fill_nova(self) -> None:
        self._manage('nova', 'api_db', 'sync')
        self._manage('nova', 'cell_v2', 'map_cell0')
        self._manage('nova', 'db', 'sync')
        self._manage('nova', 'cell_v2', 'create_cell', '--name', 'cell1')


_FILL: dict[str, Callable[[Databases], None]] = {
    'keystone': Databases.fill_keystone,
    'glance': lambda self: self._manage('glance', 'db_sync'),
    'placement': lambda self: self._manage('placement', 'db', 'sync'),
    'neutron': lambda self: self._manage('neutron', 'upgrade', 'heads'),
    'nova': Databases.fill_nova,
}
