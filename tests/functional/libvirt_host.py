# SPDX-License-Identifier: Apache-2.0
"""A libvirt of the tests' own, with root's rights as on a compute host, and its domains.

Its folders, and a /dev without KVM, are in a mount namespace of its own, so the machine's libvirt
neither sees its domains nor shares a file with it. Its guests run as the user of all guests here.
"""

from collections.abc import Iterator
import contextlib
import json
import pathlib
import shutil
import subprocess
import tempfile
from typing import Any
import uuid
from xml.etree import ElementTree

from tests.functional import account
from tests.functional import guests
from tests.functional import users
from tests.functional import waiting
from tests.functional.site import Site

__all__ = ['Domain', 'Libvirt', 'disk', 'running']

_NAMESPACE = """
set -eu
folder=$1
mount --no-mtab -t tmpfs -o mode=755 dev "$folder/dev"
cp -ax /dev/. "$folder/dev"
# Where qemu's user may not open it, libvirt asks qemu for its abilities again and again.
rm -f "$folder/dev/kvm"
for name in pts shm mqueue hugepages; do
    ! mountpoint -q "/dev/$name" || mount --no-mtab --rbind "/dev/$name" "$folder/dev/$name"
done
mount --no-mtab --bind "$folder/dev" /dev
mount --no-mtab --bind "$folder/run" /run
mount --no-mtab --bind "$folder/etc" /etc/libvirt
for name in lib cache log; do
    mount --no-mtab --bind "$folder/$name" "/var/$name/libvirt"
done
exec libvirtd
"""
_LIBVIRTD = 'auth_unix_rw = "none"\nhost_uuid = "{}"\n'
_QEMU = f"""
user = "+{users.GUEST.uid}"
group = "{users.QEMU_GROUP}"
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""


class Libvirt:
    """A libvirtd with the UUID of a host of its own, until :meth:`end`."""

    def __init__(self) -> None:
        # Sockets lie in it, and their paths may have 107 bytes.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='qct-libvirt-', dir='/tmp'))
        self.folder.chmod(0o711)
        for name in ('run', 'etc', 'lib', 'cache', 'log', 'dev'):
            (self.folder / name).mkdir(mode=0o755)
        (self.folder / 'etc' / 'libvirtd.conf').write_text(_LIBVIRTD.format(uuid.uuid4()))
        (self.folder / 'etc' / 'qemu.conf').write_text(_QEMU)
        self._socket = self.folder / 'run' / 'libvirt' / 'libvirt-sock'
        with open(self.folder / 'log' / 'libvirtd.log', 'wb') as log:
            self._process = subprocess.Popen(
                [
                    *('unshare', '--mount', '--propagation=private', 'sh', '-c', _NAMESPACE),
                    *('libvirtd', str(self.folder)),
                ],
                env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL': 'C.UTF-8'},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        waiting.until(self._listens, 'libvirtd')

    def _listens(self) -> bool:
        assert self._process.poll() is None, (self.folder / 'log/libvirtd.log').read_text()
        return self._socket.exists()

    def end(self) -> None:
        self._process.kill()
        self._process.wait(waiting.PATIENCE)
        left = account.processes_of(self.folder)
        for each in left:
            each.kill()
        shutil.rmtree(self.folder)
        assert not left, left

    @property
    def uri(self) -> str:
        return f'qemu+unix:///system?socket={self._socket}'

    def virsh(self, *arguments: str) -> str:
        """Run virsh, which must succeed."""
        done = self.try_virsh(*arguments)
        assert done.returncode == 0, done
        return done.stdout

    def try_virsh(self, *arguments: str) -> 'subprocess.CompletedProcess[str]':
        """Run virsh, whatever comes of it."""
        return subprocess.run(
            ['virsh', '--quiet', f'--connect={self.uri}', *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=waiting.PATIENCE,
        )


def disk(overlay: pathlib.Path, chain: str, target: str = 'vda', driver: str = '') -> str:
    """Return the XML of a disk as Nova writes it.

    :param chain: its ``<backingStore>``
    :param driver: more attributes of its ``<driver>``, in the place of Nova's default
    """
    driver = driver or "cache='none'"
    return f"""
        <disk type='file' device='disk'>
          <driver name='qemu' type='qcow2' {driver}/>
          <source file='{overlay}'/>
          {chain}
          <target dev='{target}' bus='virtio'/>
        </disk>"""


class Domain:
    """A domain that runs on one libvirt, or waits for its first instruction."""

    def __init__(self, site: Site, libvirt: Libvirt, name: str) -> None:
        self.name = name
        self.libvirt = libvirt
        self._site = site
        self._place = site.make_folder(f'{name}.look', users.GUEST) / 'socket'

    def virsh(self, command: str, *arguments: str) -> str:
        """Run a command of virsh about this domain."""
        return self.libvirt.virsh(command, self.name, *arguments)

    def qmp(self, execute: str, **arguments: Any) -> Any:
        command = {'execute': execute, 'arguments': arguments}
        answer = json.loads(self.virsh('qemu-monitor-command', json.dumps(command)))
        assert 'return' in answer, answer
        return answer['return']

    def xml(self) -> str:
        return self.virsh('dumpxml')

    def opened(self) -> set[str]:
        """Return the files, and the sockets, that its qemu has block nodes of."""
        found = set()
        for node in self.qmp('query-named-block-nodes', flat=True):
            name = node['image']['filename']
            if node['drv'] == 'file':
                found.add(name)
            elif node['drv'] == 'nbd':
                found.add(name.partition('socket=')[2])
        return found

    @contextlib.contextmanager
    def exported(self, target: str = 'vda') -> Iterator[dict[str, Any]]:
        """Let others read a disk of the domain as its guest does, by the very nodes that its
        guest's device has; yields the block node for that."""
        node = self._device(target)['inserted']['node-name']
        address = {'type': 'unix', 'data': {'path': str(self._place)}}
        self.qmp('nbd-server-start', addr=address)
        try:
            self.qmp('block-export-add', type='nbd', id='look', name='look', **{'node-name': node})
            server = {'type': 'unix', 'path': str(self._place)}
            yield {'driver': 'nbd', 'server': server, 'export': 'look'}
        finally:
            self.qmp('nbd-server-stop')
            self._place.unlink(missing_ok=True)

    def require_equal(self, reference: pathlib.Path, target: str = 'vda') -> None:
        """Read a whole disk and compare it with a raw file; what is behind its end is not."""
        with self.exported(target) as node:
            guests.require_equal(self._site, node, reference)

    def io(self, command: str, target: str = 'vda') -> None:
        """Do what a guest asks of a disk, by its device, in the words of qemu-io. It does not tell
        how that went: read what was written."""
        line = f'qemu-io -d {self._device(target)["qdev"]} "{command}"'
        self.qmp('human-monitor-command', **{'command-line': line})

    def _device(self, target: str) -> dict[str, Any]:
        (alias,) = (
            str(each.find('alias').get('name'))  # type: ignore[union-attr]
            for each in ElementTree.fromstring(self.xml()).iterfind('.//disk')
            if each.find(f'target[@dev="{target}"]') is not None
        )
        device: dict[str, Any]
        (device,) = (
            each for each in self.qmp('query-block') if f'/{alias}/' in each.get('qdev', '')
        )
        return device


@contextlib.contextmanager
def running(
    site: Site, libvirt: Libvirt, disks: str, *, more: str = '', os_more: str = ''
) -> Iterator[Domain]:
    """Run a domain; without a kernel it waits for its first instruction.

    :param more: devices beside its disks
    :param os_more: elements that name its kernel
    """
    name = f'guest-{uuid.uuid4().hex[:8]}'
    path = site.folder / f'{name}.xml'
    path.write_text(f"""
        <domain type='qemu'>
          <name>{name}</name>
          <memory unit='MiB'>192</memory>
          <vcpu>2</vcpu>
          <iothreads>1</iothreads>
          <os><type arch='x86_64' machine='pc'>hvm</type>{os_more}</os>
          <features><acpi/></features>
          <devices>
            <emulator>/usr/bin/qemu-system-x86_64</emulator>
            <controller type='usb' model='none'/>
            <memballoon model='none'/>
            {disks}{more}
          </devices>
        </domain>""")
    libvirt.virsh('create', str(path), *([] if os_more else ['--paused']))
    domain = Domain(site, libvirt, name)
    try:
        yield domain
    finally:
        domain.libvirt.try_virsh('destroy', name)
