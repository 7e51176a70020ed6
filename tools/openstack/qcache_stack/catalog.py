# SPDX-License-Identifier: Apache-2.0
"""What an empty cloud needs before its first server: service users, endpoints, flavors."""

from qcache_stack.control_conf import Passwords
from qcache_stack.process import PATIENCE_SECONDS
from qcache_stack.process import StackError
from qcache_stack.process import wait_for
from qcache_stack.rest import Client
from qcache_stack.settings import Ports

__all__ = [
    'FLAVORS',
    'SERVICES',
    'admin_auth',
    'make_catalog',
    'make_flavors',
    'wait_for_hypervisor',
]

SERVICES = {
    'glance': 'image',
    'placement': 'placement',
    'neutron': 'network',
    'nova-api': 'compute',
}
FLAVORS = {'tiny': 1, 'small': 2}
"""Names, and GiB of disk."""
_MEMORY_MIB = 192


def admin_auth(ports: Ports, passwords: Passwords) -> dict[str, str]:
    """Return the administrator's credentials, as in the environment but in lower case."""
    return {
        'os_auth_url': ports.url('keystone'),
        'os_username': 'admin',
        'os_password': passwords.admin,
        'os_project_name': 'admin',
        'os_user_domain_name': 'Default',
        'os_project_domain_name': 'Default',
        'os_region_name': 'RegionOne',
        'os_identity_api_version': '3',
    }


def make_catalog(client: Client, ports: Ports, passwords: Passwords) -> None:
    keystone = ports.url('keystone')
    project = {'project': {'name': 'service', 'domain_id': 'default'}}
    project_id = client.post(f'{keystone}/projects', project)['project']['id']
    user = {'name': 'service', 'password': passwords.service, 'domain_id': 'default'}
    user_id = client.post(f'{keystone}/users', {'user': user})['user']['id']
    roles = {role['name']: role['id'] for role in client.get(f'{keystone}/roles')['roles']}
    for name in ('admin', 'service'):
        client.put(f'{keystone}/projects/{project_id}/users/{user_id}/roles/{roles[name]}')
    for name, kind in SERVICES.items():
        service = {'service': {'name': name.removesuffix('-api'), 'type': kind}}
        service_id = client.post(f'{keystone}/services', service)['service']['id']
        for interface in ('public', 'internal'):
            endpoint = {
                'service_id': service_id,
                'interface': interface,
                'url': ports.url(name),
                'region_id': 'RegionOne',
            }
            client.post(f'{keystone}/endpoints', {'endpoint': endpoint})


def make_flavors(client: Client, ports: Ports) -> None:
    for name, disk in FLAVORS.items():
        flavor = {'name': name, 'id': name, 'vcpus': 1, 'ram': _MEMORY_MIB, 'disk': disk}
        client.post(f'{ports.url("nova-api")}/flavors', {'flavor': flavor})


def wait_for_hypervisor(client: Client, ports: Ports) -> None:
    """Wait until the scheduler may choose the compute host.

    :raises StackError: if that takes too long
    """

    def known() -> bool:
        providers = client.get(f'{ports.url("placement")}/resource_providers')
        # Nova lists a hypervisor only once its host was discovered.
        hypervisors = client.get(f'{ports.url("nova-api")}/os-hypervisors')
        return bool(providers['resource_providers']) and bool(hypervisors['hypervisors'])

    if not wait_for(known, PATIENCE_SECONDS):
        raise StackError(
            f'the scheduler does not know the compute host after {PATIENCE_SECONDS} s'
        )
