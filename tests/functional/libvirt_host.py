# SPDX-License-Identifier: Apache-2.0
"""A libvirt of the tests' own, with root's rights as on a compute host, and its domains.

Its folders, and a /dev without KVM, are in a mount namespace of its own, so the machine's libvirt
neither sees its domains nor shares a file with it. Its guests run as the user of all guests here.
What a site mounts has to be there before its libvirtd starts.
"""

from collections.abc import Iterator
import contextlib
import json
import pathlib
import re
import socket
import subprocess
from typing import Any
import uuid
from xml.etree import ElementTree

from tests import chains
from tests.functional import account
from tests.functional import guests
from tests.functional import real_guests
from tests.functional import users
from tests.functional import waiting
from tests.functional.real_guests import Kernel
from tests.functional.site import Site

__all__ = ['CountingDomain', 'Domain', 'Libvirt', 'disk', 'running']

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
# libvirt refuses a client whose user has no name.
for name in passwd group; do
    mount --no-mtab --bind "$folder/$name" "/etc/$name"
done
for name in lib cache log; do
    mount --no-mtab --bind "$folder/$name" "/var/$name/libvirt"
done
exec libvirtd
"""
_LIBVIRTD = """
auth_unix_rw = "none"
unix_sock_rw_perms = "0777"
host_uuid = "{}"
"""
_QEMU = f"""
user = "+{users.GUEST.uid}"
group = "{users.QEMU_GROUP}"
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""


class Libvirt:
    """A libvirtd with the UUID of a host of its own, until its account is closed."""

    def __init__(self, book: account.Account, hook: str = '') -> None:
        """:param hook: a program that it asks about its guests, if any"""
        self.folder = book.folder / 'libvirt'
        self.folder.mkdir()
        for name in ('run', 'etc', 'lib', 'cache', 'log', 'dev'):
            (self.folder / name).mkdir()
        (self.folder / 'etc' / 'libvirtd.conf').write_text(_LIBVIRTD.format(uuid.uuid4()))
        (self.folder / 'etc' / 'qemu.conf').write_text(_QEMU)
        if hook:
            self._write_hook(hook)
        self._write_names()
        self._socket = self.folder / 'run' / 'libvirt' / 'libvirt-sock'
        with open(self.folder / 'log' / 'libvirtd.log', 'wb') as log:
            self._process = subprocess.Popen(
                [
                    *('unshare', '--mount', '--propagation=private', 'sh', '-c', _NAMESPACE),
                    *('libvirtd', str(self.folder)),
                ],
                env={
                    'PATH': '/usr/sbin:/usr/bin:/sbin:/bin',
                    'LC_ALL': 'C.UTF-8',
                    account.VARIABLE: str(book.folder),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        book.is_server(self._process.pid)
        book.surroundings.callback(self._stop)
        # Its guests have files of the site open; they end with the product's processes.
        book.farewells.append(self.end_guests)
        waiting.until(self._listens, 'libvirtd')

    def _write_hook(self, hook: str) -> None:
        path = self.folder / 'etc' / 'hooks' / 'qemu.d' / 'nova-qcache'
        path.parent.mkdir(parents=True)
        path.write_text(hook)
        path.chmod(0o755)

    def _write_names(self) -> None:
        number = users.PRODUCT.uid
        for name, line in (
            ('passwd', f'qct-product:x:{number}:{number}::/:/bin/false\n'),
            ('group', f'qct-product:x:{number}:\n'),
        ):
            (self.folder / name).write_text(pathlib.Path('/etc', name).read_text() + line)

    def _listens(self) -> bool:
        assert self._process.poll() is None, (self.folder / 'log/libvirtd.log').read_text()
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self._socket))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        return True

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait(waiting.PATIENCE)

    def end_guests(self) -> None:
        for name in self.try_virsh('list', '--name').stdout.split():
            self.try_virsh('destroy', name)

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
    if 'socket=' in chain:
        driver += " rerror_policy='stop'"
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
    path.write_text(_domain_xml(name, str(uuid.uuid4()), disks + more, os_more))
    libvirt.virsh('create', str(path), *([] if os_more else ['--paused']))
    domain = Domain(site, libvirt, name)
    try:
        yield domain
    finally:
        domain.libvirt.try_virsh('destroy', name)


def _domain_xml(name: str, identity: str, devices: str, os_more: str) -> str:
    return f"""
        <domain type='qemu'>
          <name>{name}</name>
          <uuid>{identity}</uuid>
          <memory unit='MiB'>192</memory>
          <vcpu>2</vcpu>
          <iothreads>1</iothreads>
          <os><type arch='x86_64' machine='pc'>hvm</type>{os_more}</os>
          <features><acpi/></features>
          <devices>
            <emulator>/usr/bin/qemu-system-x86_64</emulator>
            <controller type='usb' model='none'/>
            <memballoon model='none'/>
            {devices}
          </devices>
        </domain>"""


class CountingDomain(Domain):
    """A domain whose guest reads the same blocks again and again, and counts its passes in its
    memory.

    Its definition has the plain chain, as Nova's driver leaves it.
    """

    _BLOCKS = ((0, 64), (1024, 64))
    """Offset and length in KiB."""

    def __init__(
        self, site: Site, libvirt: Libvirt, kernel: Kernel, base: pathlib.Path, name: str = 'one'
    ) -> None:
        super().__init__(site, libvirt, name)
        self._uuid = str(uuid.uuid4())
        self._kernel = kernel
        self._base = base
        self._overlay = real_guests.make_overlay(site, name, str(base))
        # In a folder of the guests' user, who writes it.
        self._console = site.make_folder(f'{name}.console', users.GUEST) / 'text'
        self._file = site.folder / f'{name}.xml'
        self._define('')

    def _define(self, chain: str) -> None:
        blocks = ','.join(f'{offset}+{length}' for offset, length in self._BLOCKS)
        words = f'qcache.blocks={blocks} qcache.repeat=0 qcache.pause=0.2'
        os_more = f"""<kernel>{self._kernel.kernel}</kernel><initrd>{self._kernel.initrd}</initrd>
            <cmdline>{real_guests.QUIET_KERNEL} {words}</cmdline>"""
        # Not cache='none': a tmpfs takes direct reads only since Linux 6.6.
        devices = f"""{disk(self._overlay, chain, driver="cache='writeback'")}
            <serial type='file'><source path='{self._console}' append='on'/></serial>"""
        self._file.write_text(_domain_xml(self.name, self._uuid, devices, os_more))
        self.libvirt.virsh('define', str(self._file))

    def start(self, plan: dict[str, Any]) -> None:
        """Start it with what a plan says, as Nova's driver does: its definition stays plain."""
        assert plan['kind'] in ('RECORD', 'PLAY'), plan
        if plan['kind'] == 'RECORD':
            self._define(chains.record(plan['socket']))
        else:
            self._define(chains.play(plan['cache'], self._base))
        self.virsh('start')
        self._define('')

    def passes(self) -> int:
        """Return how often it has read all its blocks since it booted; it must have booted once
        only, and seen no error."""
        text = self._console.read_text(errors='replace') if self._console.exists() else ''
        assert text.count('QCACHE booted') <= 1, 'its memory is lost'
        assert 'error' not in text, text
        wanted = real_guests.checksums(self._base, list(self._BLOCKS))
        assert set(real_guests.blocks(text)) <= set(wanted)
        counted = re.findall(r'^QCACHE pass (\d+)\s*$', text, re.MULTILINE)
        return int(counted[-1]) if counted else 0

    def wait_until_it_reads(self) -> int:
        """Wait until it has read all its blocks once more."""
        before = self.passes()
        return waiting.until(
            lambda: max(0, self.passes() - before), f'another pass of domain {self.name}'
        )
