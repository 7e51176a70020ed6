# SPDX-License-Identifier: Apache-2.0
"""What can be chosen, where things lie, and which numbers and names are used throughout."""

from collections.abc import Mapping
import dataclasses
import os
import pathlib
import secrets

__all__ = [
    'ADDRESS',
    'API_USER',
    'DEFAULT_STATE',
    'DRIVERS',
    'MARK',
    'NOVA_USER',
    'Layout',
    'Options',
    'Ports',
    'User',
    'environment',
    'new_password',
]

ADDRESS = '127.0.0.1'
DEFAULT_STATE = '/var/lib/qcache-openstack'
MARK = 'QCACHE_OPENSTACK_ROOT'
"""A variable in the environment of all that a stack starts: its state folder. By it "down" finds
what a killed "up" had started and not written down yet."""
DRIVERS = {'qcache': 'qcache.QcacheDriver', 'stock': 'libvirt.LibvirtDriver'}
"""What ``compute_driver`` is, by the word of ``--driver``."""


@dataclasses.dataclass(frozen=True)
class User:
    """Somebody of our own, by number: the machine's user database stays as it is."""

    name: str
    uid: int


NOVA_USER = User('nova', 60610)
"""Runs nova-compute; only the user database of a host of ours knows the name."""
API_USER = User('qcache-api', 60611)
"""Runs the services of the control plane; no user database knows the name."""


@dataclasses.dataclass(frozen=True)
class Ports:
    """Consecutive ports from a base, away from what these services use elsewhere."""

    base: int = 21000

    NAMES = (
        'mariadb',
        'rabbitmq',
        'rabbitmq-dist',
        'epmd',
        'keystone',
        'glance',
        'placement',
        'neutron',
        'nova-api',
    )

    def __getitem__(self, name: str) -> int:
        return self.base + self.NAMES.index(name)

    def url(self, name: str) -> str:
        suffix = {'keystone': '/v3', 'nova-api': '/v2.1'}.get(name, '')
        return f'http://{ADDRESS}:{self[name]}{suffix}'

    def all(self) -> dict[str, int]:
        return {name: self[name] for name in self.NAMES}


@dataclasses.dataclass
class Options:
    """What ``up`` was asked for; kept in the state, so that the next ``up`` can compare."""

    driver: str = 'qcache'
    base_rate: str = 'unlimited'
    """Bytes per second, ``unlimited``, or ``none`` for a base that is no mount."""
    port_base: int = Ports.base
    settings: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    """More options of nova-compute: section, option, value."""


class Layout:
    """The folders of a state folder."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.venv = root / 'venv'
        """Kept between ups, with its stamp; made by tools/openstack.sh."""
        self.logs = root / 'log'
        """Kept until the next up."""
        self.cache = root / 'cache'
        """Kept between ups: databases with their tables, for the next start."""
        self.state = root / 'state.json'
        self.lock = root / 'lock'
        self.etc = root / 'etc'
        self.mariadb = root / 'mariadb'
        self.rabbitmq = root / 'rabbitmq'
        self.api_home = root / 'api'
        self.images = root / 'api' / 'images'

    @property
    def transient(self) -> list[pathlib.Path]:
        """What ``down`` removes."""
        return [self.etc, self.mariadb, self.rabbitmq, self.api_home, self.host(1)]

    def host(self, number: int) -> pathlib.Path:
        return self.root / f'host{number}'

    def log(self, name: str) -> pathlib.Path:
        return self.logs / f'{name}.log'

    def bin(self, name: str) -> str:
        return str(self.venv / 'bin' / name)


def environment(
    layout: Layout, home: str, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return surroundings that owe nothing to those of whoever calls: no proxies, no Pythons."""
    return {
        'PATH': f'{layout.venv}/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        'HOME': home,
        'LC_ALL': 'C.UTF-8',
        MARK: str(layout.root),
        'PYTHONUNBUFFERED': '1',
        'TZ': os.environ.get('TZ', 'UTC'),
        **(more or {}),
    }


def new_password() -> str:
    return secrets.token_hex(12)
