# SPDX-License-Identifier: Apache-2.0
"""A machine with a DevStack that has all but the plugin: a folder, and its functions in bash.

Everything that the plugin may touch is below :attr:`DevStack.tree`; what its commands would do to
a real machine is in :attr:`DevStack.log`. The unit tests and those on OpenStack share it.
"""

from collections.abc import Callable, Sequence
import os
import pathlib
import pwd
import shlex
import shutil
import subprocess
import sys

__all__ = ['PHASES', 'PROJECT', 'USER', 'DevStack']

PROJECT = pathlib.Path(__file__).parents[3]
USER = pwd.getpwuid(os.getuid()).pw_name
PHASES = ('pre-install', 'install', 'post-config', 'extra', 'test-config')

_HERE = pathlib.Path(__file__).parent / 'standin'

_NOVA_CONF = """\
[DEFAULT]
debug = True
compute_driver = libvirt.LibvirtDriver

[libvirt]
virt_type = kvm
"""
_TEMPEST_CONF = """\
[service_available]
nova = True

[compute]
min_compute_nodes = 1
"""


class DevStack:
    """One machine, below ``root``."""

    def __init__(
        self,
        root: pathlib.Path,
        services: str = 'n-api,n-cpu,tempest',
        enter: Callable[[Sequence[str]], Sequence[str]] = list,
    ) -> None:
        """:param enter: makes the command that runs another one where the machine really is"""
        self.root = root
        self._enter = enter
        self.tree = root / 'machine'
        """All that stack.sh may change and clean.sh is to leave as it was."""
        self.log = root / 'log'
        self.nova_dir = self.tree / 'opt/stack/nova'
        self.nova_conf = self.tree / 'etc/nova/nova.conf'
        self.nova_cpu_conf = self.tree / 'etc/nova/nova-cpu.conf'
        self.tempest_conf = self.tree / 'opt/stack/tempest/etc/tempest.conf'
        self.instances = self.tree / 'opt/stack/data/nova/instances'
        self.cache_path = self.tree / 'opt/stack/data/nova-qcache'
        self.run_path = self.tree / 'run'
        self.drop_in = self.tree / 'etc/systemd/devstack@n-cpu.service.d/nova-qcache.conf'
        self.tmpfiles = self.tree / 'etc/tmpfiles.d/nova-qcache.conf'
        self.apparmor = self.tree / 'etc/apparmor.d/local/abstractions/libvirt-qemu'
        self._environment: dict[str, object] = {
            'ENABLED_SERVICES': services,
            'PLUGIN_DIR': PROJECT,
            'STACK_USER': USER,
            'DEST': self.tree / 'opt/stack',
            'DATA_DIR': self.tree / 'opt/stack/data',
            'NOVA_DIR': self.nova_dir,
            'NOVA_BIN_DIR': root / 'bin',
            'NOVA_CONF': self.nova_conf,
            'NOVA_CPU_CONF': self.nova_cpu_conf,
            'NOVA_INSTANCES_PATH': self.instances,
            'INSTANCE_NAME_PREFIX': 'instance-',
            'TEMPEST_CONFIG': self.tempest_conf,
            'os_PACKAGE': 'deb',
            'os_VENDOR': 'Debian',
            'QCACHE_SYSTEMD_DIR': self.tree / 'etc/systemd',
            'QCACHE_TMPFILES_DIR': self.tree / 'etc/tmpfiles.d',
            'QCACHE_APPARMOR_DIR': self.tree / 'etc/apparmor.d',
        }
        self._localrc: dict[str, object] = {'QCACHE_RUN_PATH': self.run_path}
        self._make()

    def _make(self) -> None:
        for folder in ('etc/systemd', 'etc/tmpfiles.d', 'etc/apparmor.d/abstractions'):
            (self.tree / folder).mkdir(parents=True)
        (self.tree / 'etc/apparmor.d/abstractions/libvirt-qemu').write_text('/dev/kvm rw,\n')
        self.apparmor.parent.mkdir(parents=True)
        self.apparmor.write_text("# the site's own rules\n/srv/** r,\n")
        self.instances.mkdir(parents=True)
        for conf, text in ((self.nova_conf, _NOVA_CONF), (self.tempest_conf, _TEMPEST_CONF)):
            conf.parent.mkdir(parents=True)
            conf.write_text(text)
        (self.nova_dir / 'nova/virt').mkdir(parents=True)
        for name in ('nova', 'nova/virt'):
            (self.nova_dir / name / '__init__.py').touch()
        (self.root / 'groups').write_text('libvirt-qemu\nkvm\nqemu\n')
        self.log.touch()
        self.program('python3', f'exec {shlex.quote(sys.executable)} "$@"')
        self.program('nova-qcache', 'echo "nova-qcache $*" >>"$STANDIN/log"')

    # What the machine is like

    def program(self, name: str, text: str) -> None:
        """Make a program of NOVA_BIN_DIR, in bash. Nova is on its path as a checkout is that was
        installed with ``pip install --editable``."""
        path = self.root / 'bin' / name
        path.parent.mkdir(exist_ok=True)
        surroundings = f'export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={self.nova_dir}'
        path.write_text(f'#!/bin/bash\n{surroundings}\n{text}\n')
        path.chmod(0o755)

    def configure(self, **variables: object) -> None:
        """Set variables in local.conf."""
        self._localrc.update(variables)

    def surround(self, **variables: object) -> None:
        """Set variables of DevStack."""
        self._environment.update(variables)

    # What it does

    def run(self, mode: str, phase: str = '') -> 'subprocess.CompletedProcess[str]':
        """Call the plugin as the contract says."""
        for name, variables in (('environment', self._environment), ('localrc', self._localrc)):
            lines = [f'{key}={shlex.quote(str(value))}\n' for key, value in variables.items()]
            (self.root / name).write_text(''.join(lines))
        return subprocess.run(
            self._enter([str(_HERE / 'devstack.sh'), mode, *filter(None, [phase])]),
            env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'STANDIN': str(self.root)},
            cwd='/',
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def must(self, mode: str, phase: str = '') -> str:
        """Do the same, and return what it said; it has to succeed."""
        done = self.run(mode, phase)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def stack(self) -> None:
        for phase in PHASES:
            self.must('stack', phase)

    # What has come of it

    def done(self) -> list[str]:
        """Return what DevStack's functions and the machine's commands were told."""
        return self.log.read_text().splitlines()

    def mounts(self) -> list[str]:
        path = self.root / 'mounts'
        return path.read_text().splitlines() if path.exists() else []

    def picture(self) -> dict[str, tuple[int, str]]:
        """Return mode and content of everything in the tree, by path."""
        found = {}
        for path in sorted(self.tree.rglob('*')):
            facts = path.lstat()
            content = ''
            if path.is_symlink():
                content = f'-> {path.readlink()}'
            elif path.is_file():
                content = path.read_text()
            found[str(path.relative_to(self.tree))] = (facts.st_mode, content)
        return found

    def forget(self) -> None:
        shutil.rmtree(self.root)
