# SPDX-License-Identifier: Apache-2.0
"""A compute host: a mount namespace with folders, users and a libvirt of its own.

Inside, everything is where it is on any host: /run/libvirt, /etc/nova, /var/lib/nova. These are
bind mounts of folders below the host's own, so from outside everything can be seen there, and
nothing of the machine's own libvirt, Nova or users is touched or even visible inside.
"""

from collections.abc import Sequence
import grp
import os
import pathlib
import pwd
import shutil
import uuid

from qcache_stack import ini
from qcache_stack import process
from qcache_stack.process import Process
from qcache_stack.process import StackError
from qcache_stack.settings import ADDRESS
from qcache_stack.settings import Layout
from qcache_stack.settings import NOVA_USER

__all__ = ['QEMU_USER', 'Host']

QEMU_USER = 'libvirt-qemu'
"""Debian's user for guests, and its group of the same name."""
_LIBVIRT_GROUP = 'libvirt'
"""Who may use libvirt's socket."""

_BINDS = {
    'run': '/run',
    'etc': '/etc',
    'libvirt': '/var/lib/libvirt',
    'cache-libvirt': '/var/cache/libvirt',
    'log-libvirt': '/var/log/libvirt',
    'nova': '/var/lib/nova',
}
"""Folders of a host below its own, and where they are mounted."""

_NAMESPACE = pathlib.Path(__file__).parents[1] / 'namespace.sh'


class Host:
    """One compute host; its number is in its name, its folder and its addresses."""

    def __init__(self, layout: Layout, number: int = 1, anchor: Process | None = None) -> None:
        self.layout = layout
        self.number = number
        self.name = f'host{number}'
        self.root = layout.host(number)
        self.address = ADDRESS if number == 1 else f'127.0.0.{number}'
        self.anchor = anchor
        """The process that keeps the namespace; nobody has to be in it for it to exist."""

    # Where things are: inside, and as seen from outside.

    state_path = '/var/lib/nova'
    instances_path = '/var/lib/nova/instances'
    base_path = '/var/lib/nova/instances/_base'
    cache_path = '/var/lib/nova/qcache'
    run_path = '/run/nova-qcache'
    conf = '/etc/nova/nova.conf'
    conf_folder = '/etc/nova/nova.conf.d'

    @property
    def run_folder(self) -> pathlib.Path:
        return self.root / 'run'

    @property
    def root_home(self) -> pathlib.Path:
        """What is HOME for root there: tools leave caches behind."""
        return self.root / 'root'

    @property
    def base_store(self) -> pathlib.Path:
        """What the base images really are stored in; the base path is a mount of it."""
        return self.root / 'base-store'

    @property
    def libvirt_socket(self) -> pathlib.Path:
        return self.run_folder / 'libvirt' / 'libvirt-sock'

    @property
    def libvirt_uri(self) -> str:
        return f'qemu:///system?socket={self.libvirt_socket}'

    def outside(self, inside: str) -> pathlib.Path:
        """Return where a path of this host is found from outside."""
        for folder, target in _BINDS.items():
            if inside == target or inside.startswith(f'{target}/'):
                return self.root / folder / inside[len(target) :].lstrip('/')
        return pathlib.Path(inside)

    # Making it

    def prepare(self) -> None:
        """Make the folders and files of the host."""
        nova, qemu = NOVA_USER.uid, pwd.getpwnam(QEMU_USER).pw_uid
        qemu_gid = grp.getgrnam(QEMU_USER).gr_gid
        self.root.mkdir()
        # All of it: a few files more or less are no reason to mount each one, and some are written
        # (virt-aa-helper makes a profile for each guest).
        process.run(['cp', '-a', '/etc', f'{self.root}/'], {'PATH': '/usr/bin:/bin'})
        for name in ('libvirt', 'nova', 'sudoers.d'):
            shutil.rmtree(self.root / 'etc' / name, ignore_errors=True)
        for path, owner, group, mode in (
            ('', 0, 0, 0o755),
            ('run', 0, 0, 0o755),
            ('run/lock', 0, 0, 0o1777),
            # What a tmpfiles.d of the package would do at boot:
            ('run/nova-qcache', nova, nova, 0o711),
            ('etc/libvirt', 0, 0, 0o755),
            ('etc/nova', 0, nova, 0o750),
            ('etc/nova/nova.conf.d', 0, nova, 0o750),
            ('libvirt', 0, 0, 0o755),
            ('libvirt/qemu', qemu, qemu_gid, 0o750),
            ('cache-libvirt', 0, 0, 0o711),
            ('log-libvirt', 0, 0, 0o700),
            ('nova', nova, nova, 0o755),
            ('nova/instances', nova, nova, 0o755),
            ('nova/instances/_base', nova, nova, 0o755),
            ('nova/lock', nova, nova, 0o755),
            ('nova/qcache', nova, nova, 0o711),
            ('root', 0, 0, 0o700),
            ('base-store', nova, nova, 0o755),
        ):
            folder = self.root / path
            folder.mkdir(exist_ok=True)
            os.chown(folder, owner, group)
            folder.chmod(mode)
        self._write_users()
        self._write_libvirt()

    def _write_users(self) -> None:
        nova = NOVA_USER
        # Without an "x" PAM asks for no line in /etc/shadow, which stays the machine's.
        line = f'nova:*:{nova.uid}:{nova.uid}:nova of qcache_stack:{self.state_path}:/bin/sh'
        users = [
            known
            for known in pathlib.Path('/etc/passwd').read_text().splitlines()
            if known.split(':')[0] != nova.name
        ]
        groups = []
        for known in pathlib.Path('/etc/group').read_text().splitlines():
            fields = known.split(':')
            if fields[0] in (_LIBVIRT_GROUP, QEMU_USER):
                fields[3] = ','.join([*filter(None, fields[3].split(',')), nova.name])
            if fields[0] != nova.name:
                groups.append(':'.join(fields))
        groups.append(f'nova:x:{nova.uid}:')
        ini.write(self.root / 'etc/passwd', '\n'.join([*users, line, '']), mode=0o644)
        ini.write(self.root / 'etc/group', '\n'.join([*groups, '']), mode=0o644)
        helper = self.layout.bin('privsep-helper')
        ini.write(
            self.root / 'etc/sudoers',
            'Defaults !lecture\n'
            'Defaults secure_path="/usr/sbin:/usr/bin:/sbin:/bin"\n'
            f'nova ALL = (root) NOPASSWD: {helper}\n',
            mode=0o440,
        )

    def _write_libvirt(self) -> None:
        folder = self.root / 'etc/libvirt'
        ini.write(
            folder / 'libvirtd.conf',
            'listen_tls = 0\n'
            f'unix_sock_group = "{_LIBVIRT_GROUP}"\n'
            'unix_sock_ro_perms = "0770"\n'
            'unix_sock_rw_perms = "0770"\n'
            'auth_unix_ro = "none"\n'
            'auth_unix_rw = "none"\n'
            f'host_uuid = "{uuid.uuid4()}"\n',
            mode=0o644,
        )
        # The machine's cgroups are somebody else's.
        ini.write(folder / 'qemu.conf', 'cgroup_controllers = []\n', mode=0o600)
        ini.write(folder / 'virtlogd.conf', '', mode=0o644)

    def start_anchor(self) -> Process:
        """Make the namespace; return the process that keeps it.

        :raises StackError: if something cannot be mounted
        """
        log = self.layout.log(f'{self.name}-namespace')
        ready = self.root / 'namespace-is-ready'
        script = [str(_NAMESPACE), str(self.root), str(ready)]
        anchor = process.spawn(
            ['unshare', '--mount', '--propagation', 'private', 'sh', *script],
            log,
            {'PATH': '/usr/sbin:/usr/bin:/sbin:/bin'},
        )
        if not process.wait_for(
            lambda: ready.exists() or not anchor.alive, process.PATIENCE_SECONDS
        ) or (not anchor.alive):
            process.kill_all(anchor.session())
            raise StackError(f'the namespace of {self.name} cannot be made: {process.tail(log)}')
        self.anchor = anchor
        return anchor

    # Using it

    def enter(self, argv: Sequence[str], user: str = 'root') -> list[str]:
        """Return a command that runs another one in the namespace, without a process in between.

        :raises StackError: if the namespace is gone
        """
        if self.anchor is None or not self.anchor.alive:
            raise StackError(f'{self.name} does not exist')
        enter = ['nsenter', f'--mount=/proc/{self.anchor.pid}/ns/mnt', '--']
        if user != 'root':
            enter += ['setpriv', f'--reuid={user}', f'--regid={self._group(user)}']
            enter += ['--init-groups', '--inh-caps=-all', '--']
        return [*enter, *argv]

    def _group(self, user: str) -> int:
        # setpriv has no word for "the main group of this user".
        for line in (self.root / 'etc/passwd').read_text().splitlines():
            fields = line.split(':')
            if fields[0] == user or fields[2] == user:
                return int(fields[3])
        raise StackError(f'{self.name} has no user {user}')

    def processes(self) -> list[Process]:
        """Return all processes of this host, the anchor among them."""
        return process.everything_with_run(self.run_folder)
