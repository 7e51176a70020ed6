# SPDX-License-Identifier: Apache-2.0
"""A real libvirt of one site, and small guests in it.

It is a libvirtd of its own, run by the guests' user, in a mount namespace where that user and the
product's have names: libvirt asks for those of its clients.
"""

import pathlib
import re
import subprocess
from typing import Any
import uuid

from tests import chains
from tests.functional import real_guests
from tests.functional import users
from tests.functional import waiting
from tests.functional.real_guests import Kernel
from tests.functional.site import Site

__all__ = ['Domain', 'Libvirt']

_ENTER = """
for file in passwd group libvirt; do mount --bind "$1/$file" "/etc/$file" || exit; done
shift
exec "$@"
"""


class Libvirt:
    """A libvirtd until the product's last process has left."""

    def __init__(self, site: Site, hook: str = '') -> None:
        """:param hook: a program that it asks, if any"""
        self._site = site
        self.folder = site.make_folder('libvirt', users.GUEST)
        self._process: subprocess.Popen[bytes] | None = None
        self._etc = site.folder / 'libvirt-etc'
        hooks = self._etc / 'libvirt' / 'hooks' / 'qemu.d'
        hooks.mkdir(parents=True)
        if hook:
            (hooks / 'nova-qcache').write_text(hook)
            (hooks / 'nova-qcache').chmod(0o755)
        self._write_names()
        socket = self.folder / 'libvirt' / 'libvirt-sock'
        self.uri = f'qemu+unix:///session?socket={socket}'
        site.account.surroundings.callback(self.stop)
        # Its guests have files of the site open; they end with the product's processes.
        site.account.farewells.append(self.end_guests)
        self._start(socket)

    def _write_names(self) -> None:
        for name, line in (('passwd', '{0}:x:{1}:{1}::/:/bin/false'), ('group', '{0}:x:{1}:')):
            lines = pathlib.Path('/etc', name).read_text().splitlines()
            for title, user in (('qct-product', users.PRODUCT), ('qct-guest', users.GUEST)):
                lines.append(line.format(title, user.uid))
            (self._etc / name).write_text('\n'.join([*lines, '']))

    def _start(self, socket: pathlib.Path) -> None:
        user, folder = users.GUEST, self.folder
        rights = [f'--reuid={user.uid}', f'--regid={user.gid}']
        places = {f'XDG_{name}': str(folder) for name in ('RUNTIME_DIR', 'CONFIG_HOME')}
        with open(folder / 'log', 'wb') as log:
            self._process = subprocess.Popen(
                [
                    *('unshare', '--mount', '--propagation', 'slave'),
                    *('sh', '-c', _ENTER, 'sh', str(self._etc)),
                    *('setpriv', *rights, f'--groups={",".join(map(str, user.groups))}', '--'),
                    *('libvirtd', '--config', '/dev/null', '--pid-file', str(folder / 'pid')),
                ],
                env={**self._site.environment, **places, 'XDG_CACHE_HOME': str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._site.account.is_server(self._process.pid)
        waiting.until(lambda: self._answers(socket), 'libvirtd')

    def _answers(self, socket: pathlib.Path) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / 'log').read_text()
        if not socket.exists():
            return False
        socket.parent.chmod(0o755)
        socket.chmod(0o666)
        return self._run('version').returncode == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(waiting.PATIENCE)
            self._process = None

    def end_guests(self) -> None:
        if self._process is not None:
            for name in self.virsh('list', '--name').split():
                self._run('destroy', name)

    def virsh(self, *arguments: str) -> str:
        """Run virsh as root, which must succeed, and return what it prints."""
        done = self._run(*arguments)
        assert done.returncode == 0, done
        return done.stdout

    def refusal(self, *arguments: str) -> str:
        """Run virsh, which must fail, and return what it says."""
        done = self._run(*arguments)
        assert done.returncode != 0, done
        return done.stderr

    def _run(self, *arguments: str) -> 'subprocess.CompletedProcess[str]':
        return subprocess.run(
            ['virsh', '--quiet', f'--connect={self.uri}', *arguments],
            capture_output=True,
            text=True,
            timeout=waiting.PATIENCE,
        )


class Domain:
    """A guest that reads the same blocks again and again, and counts its passes in its memory.

    Its definition has the plain chain, as Nova's driver leaves it.
    """

    def __init__(
        self, libvirt: Libvirt, site: Site, kernel: Kernel, base: pathlib.Path, name: str = 'one'
    ) -> None:
        self.name = name
        self._uuid = uuid.uuid4()
        self._libvirt = libvirt
        self._kernel = kernel
        self._base = base
        self._disk = real_guests.make_overlay(site, name, str(base))
        # In a folder of the guests' user, who writes it.
        self._console = site.make_folder(f'console-{name}', users.GUEST) / 'text'
        libvirt.virsh('define', str(self._file('plain', self.xml())))

    def _file(self, what: str, text: str) -> pathlib.Path:
        path = self._console.with_name(f'{what}.xml')
        path.write_text(text)
        return path

    def xml(self, chain: str = '') -> str:
        """Return its XML with a chain below its overlay."""
        on_error = " rerror_policy='stop'" if 'socket=' in chain else ''
        return f"""
        <domain type='qemu'>
          <name>{self.name}</name>
          <uuid>{self._uuid}</uuid>
          <memory unit='MiB'>96</memory>
          <os>
            <type arch='x86_64' machine='pc'>hvm</type>
            <kernel>{self._kernel.kernel}</kernel>
            <initrd>{self._kernel.initrd}</initrd>
            <cmdline>{real_guests.QUIET_KERNEL} qcache.blocks=0+64,1024+64 qcache.repeat=0
              qcache.pause=0.2</cmdline>
          </os>
          <features><acpi/></features>
          <devices>
            <disk type='file' device='disk'>
              <driver name='qemu' type='qcow2'{on_error}/>
              <source file='{self._disk}'/>
              {chain}
              <target dev='vda' bus='virtio'/>
            </disk>
            <serial type='file'><source path='{self._console}' append='on'/></serial>
            <memballoon model='none'/>
          </devices>
        </domain>"""

    def start(self, plan: dict[str, Any]) -> None:
        """Start it with what a plan says, as Nova's driver does: its definition stays plain."""
        self._libvirt.virsh('define', str(self._file('chain', self.xml(self._chain(plan)))))
        self._libvirt.virsh('start', self.name)
        self._libvirt.virsh('define', str(self._file('plain', self.xml())))

    def _chain(self, plan: dict[str, Any]) -> str:
        if plan['kind'] == 'RECORD':
            return chains.record(plan['socket'])
        assert plan['kind'] == 'PLAY', plan
        return chains.play(plan['cache'], self._base)

    def passes(self) -> int:
        """Return how often it has read all its blocks since it booted; it must have booted once
        only, and seen no error."""
        text = self._console.read_text(errors='replace') if self._console.exists() else ''
        assert text.count('QCACHE booted') <= 1, 'its memory is lost'
        assert 'error' not in text, text
        wanted = real_guests.checksums(self._base, [(0, 64), (1024, 64)])
        blocks = re.findall(r'^QCACHE block (\d+) (\d+) ([0-9a-f]{64})\s*$', text, re.MULTILINE)
        found = {(int(offset), int(length), digest) for offset, length, digest in blocks}
        assert found <= set(wanted)
        counted = re.findall(r'^QCACHE pass (\d+)\s*$', text, re.MULTILINE)
        return int(counted[-1]) if counted else 0

    def wait_until_it_reads(self) -> int:
        """Wait until it has read all its blocks once more."""
        before = self.passes()
        return waiting.until(
            lambda: max(0, self.passes() - before), f'another pass of domain {self.name}'
        )
