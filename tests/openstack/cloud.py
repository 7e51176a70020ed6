# SPDX-License-Identifier: Apache-2.0
"""The cloud as its users see it: servers and images, through the APIs."""

from collections.abc import Callable
import contextlib
import pathlib
import re
from typing import Any
import uuid

import openstack
from qcache_stack.stack import Stack
import small_disk

from tests.openstack import waiting

__all__ = ['Cloud', 'Server']


class Cloud:
    def __init__(self, stack: Stack) -> None:
        auth = {name.removeprefix('os_'): value for name, value in stack.auth.items()}
        auth.pop('identity_api_version')
        region = auth.pop('region_name')
        self.stack = stack
        self.api = openstack.connection.Connection(
            auth=auth, region_name=region, compute_api_version='2.95', identity_api_version='3'
        )
        self._servers: list[Server] = []
        self._images: list[str] = []
        self._undo = contextlib.ExitStack()

    def upload(self, path: pathlib.Path, disk_format: str = 'raw', **properties: str) -> str:
        """Make an image and return its ID; it lives until the end of the session."""
        image = self.api.image.create_image(
            name=f'{path.name}-{uuid.uuid4().hex[:8]}',
            filename=str(path),
            disk_format=disk_format,
            container_format=disk_format if disk_format in ('aki', 'ari') else 'bare',
            wait=True,
            timeout=waiting.PATIENCE_SECONDS,
            validate_checksum=False,
            **properties,
        )
        identity: str = image.id
        self._images.append(identity)
        return identity

    def purge_images(self) -> None:
        """Let Glance forget deleted images for good: until then it lets nobody have their IDs."""
        conf = self.stack.layout.etc / 'glance' / 'glance-api.conf'
        for what in ('purge', 'purge_images_table'):
            command = ['glance-manage', f'--config-file={conf}', 'db', what, '0', '1000']
            self.stack.exec(command)

    def boot(
        self, image_id: str, flavor: str = 'small', *, wait: str = 'ACTIVE', **more: Any
    ) -> 'Server':
        """Create a server; it is deleted at the end of the test."""
        made = self.api.compute.create_server(
            name=f'test-{uuid.uuid4().hex[:8]}',
            image_id=image_id,
            flavor_id=self.flavor(flavor),
            networks='none',
            **more,
        )
        server = Server(self, made.id)
        self._servers.append(server)
        if wait:
            server.wait_for(wait)
        return server

    def flavor(self, name: str) -> str:
        found = self.api.compute.find_flavor(name, ignore_missing=False)
        identity: str = found.id
        return identity

    def reserved_disk_gib(self) -> int:
        """Return what Placement knows to be reserved of the disk of the one compute host."""
        (provider,) = self.api.placement.resource_providers()
        inventory = self.api.placement.get_resource_provider_inventory('DISK_GB', provider)
        reserved: int = inventory.reserved
        return reserved

    def last_report(self, service: str) -> str:
        """Return when a service of Nova has last said that it lives, in ISO 8601."""
        (found,) = self.api.compute.services(binary=service)
        time: str = found.updated_at
        return time

    def at_end(self, undo: Callable[..., Any], *arguments: Any) -> None:
        """Call something at the end of the test, after its servers are gone."""
        self._undo.callback(undo, *arguments)

    def end_test(self) -> None:
        """Delete what the test made."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.delete(wait=False)
        for server in servers:
            server.wait_until_gone()
        self._undo.close()

    def end_session(self) -> None:
        for image in self._images:
            self.api.image.delete_image(image, ignore_missing=True)
        self.api.close()


class Server:
    """One server."""

    def __init__(self, cloud: Cloud, identity: str) -> None:
        self.cloud = cloud
        self.id = identity
        self._compute = cloud.api.compute

    @property
    def facts(self) -> Any:
        return self._compute.get_server(self.id)

    def wait_for(self, status: str) -> 'Server':
        """Wait until the API says that it has that status and nothing goes on.

        :raises AssertionError: if it becomes ERROR instead, with the fault
        """

        def look() -> bool:
            facts = self.facts
            if facts.status == 'ERROR' and status != 'ERROR':
                raise AssertionError(f'server {self.id} is in ERROR: {facts.fault}')
            return bool(facts.status == status and facts.task_state is None)

        waiting.until(look, f'status {status} of server {self.id}')
        return self

    def do(self, action: str, *arguments: Any, status: str = 'ACTIVE') -> 'Server':
        """Ask for an action by the SDK's name without ``_server``, and wait for what it leads
        to."""
        getattr(self._compute, f'{action}_server')(self.id, *arguments)
        return self.wait_for(status)

    def reboot(self, kind: str) -> 'Server':
        return self.do('reboot', kind)

    # What its guest says

    @property
    def console_file(self) -> pathlib.Path:
        """The log of its console, which is there without nova-compute, too."""
        host = self.cloud.stack.host
        return host.outside(host.instances_path) / self.id / 'console.log'

    @property
    def console(self) -> str:
        """What is in that file; the API would keep four services busy with each look."""
        try:
            return self.console_file.read_text(errors='replace')
        except FileNotFoundError:
            return ''

    def wait_until_booted(self, boots: int | None = None) -> None:
        """Wait until the guest has said that it is up and that all it read was right.

        :param boots: which boot of its disk the last one is to be
        """

        def look() -> bool:
            console = self.console
            assert not small_disk.bad_lines(console), small_disk.bad_lines(console)
            last = console.rpartition('QCACHE boots=')[2]
            if boots is not None and small_disk.boots(console)[-1:] != [boots]:
                return False
            return small_disk.booted('\n' + last) >= 1

        waiting.until(look, f'the boot of server {self.id}')

    def wait_until_alive(self) -> None:
        """Wait until the guest has said once more that it is well."""
        before = len(small_disk.alive(self.console))
        waiting.until(
            lambda: len(small_disk.alive(self.console)) > before,
            f'life of server {self.id}',
        )
        self.require_right_data()

    def require_right_data(self) -> None:
        assert not small_disk.bad_lines(self.console)

    # Its end

    def delete(self, *, wait: bool = True) -> None:
        self._compute.delete_server(self.id, ignore_missing=True)
        if wait:
            self.wait_until_gone()

    def wait_until_gone(self) -> None:
        def look() -> bool:
            found = self._compute.find_server(self.id, ignore_missing=True)
            return found is None

        waiting.until(look, f'the end of server {self.id}')

    @property
    def domain(self) -> str:
        name: str = self.facts.instance_name
        assert re.fullmatch(r'instance-[0-9a-f]{8}', name), name
        return name
