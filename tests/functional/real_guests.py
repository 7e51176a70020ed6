# SPDX-License-Identifier: Apache-2.0
"""The small real guest of tools/guest, run by qemu as an ordinary user."""

import fcntl
import hashlib
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
from types import ModuleType
from typing import Any

from tests.functional import users
from tests.functional import waiting
from tests.functional.site import Site

__all__ = [
    'QUIET_KERNEL',
    'Kernel',
    'block_chains',
    'blocks',
    'build',
    'checksums',
    'guest',
    'make_overlay',
]

_TOOLS = pathlib.Path(__file__).parents[2] / 'tools' / 'guest'


def _load(name: str) -> ModuleType:
    # tools/ is no package: its scripts run where nothing is installed.
    spec = importlib.util.spec_from_file_location(name, _TOOLS / f'{name}.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_BLOCK = re.compile(r'^QCACHE block (\d+) (\d+) ([0-9a-f]{64})\s*$', re.MULTILINE)


block_chains = _load('block_chains')
_qemu_guest = _load('qemu_guest')
QUIET_KERNEL = _qemu_guest.QUIET_KERNEL


class Kernel:
    """Kernel and initrd of the small guest, where the guests of one site can read them."""

    def __init__(self, site: Site, built: pathlib.Path) -> None:
        for name in ('vmlinuz', 'initrd'):
            shutil.copyfile(built / name, site.folder / name)
            (site.folder / name).chmod(0o644)
        self.kernel = site.folder / 'vmlinuz'
        self.initrd = site.folder / 'initrd'


def build() -> pathlib.Path:
    """Build the small guest unless it is there; return its folder. It is kept for the next run."""
    work = os.environ.get('QCACHE_WORK') or pathlib.Path.home() / '.cache' / 'nova-qcache'
    folder = pathlib.Path(work) / 'small'
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers of these tests build it, too
        command = [_TOOLS / 'build_small.sh', folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=waiting.PATIENCE)
        assert done.returncode == 0, done
    return folder


class _OrdinaryGuest(_qemu_guest.Guest):  # type: ignore[name-defined]
    """A guest whose qemu has no rights of root's."""

    def command(self, qmp_fd: int) -> list[str]:
        user = users.GUEST
        groups = ','.join(map(str, user.groups))
        rights = [f'--reuid={user.uid}', f'--regid={user.gid}', f'--groups={groups}']
        command: list[str] = super().command(qmp_fd)
        return ['setpriv', *rights, '--', *command]


def guest(kernel: Kernel, name: str, chain: list[dict[str, Any]], append: str) -> Any:
    """Return a guest (a context manager) whose disk is the top of the chain."""
    return _OrdinaryGuest(
        name,
        blockdevs=chain,
        drive=chain[-1]['node-name'],
        kernel=kernel.kernel,
        initrd=kernel.initrd,
        append=append,
        memory_mib=192,
    )


def make_overlay(site: Site, name: str, base: str, base_format: str = 'raw') -> pathlib.Path:
    """Make a guest's overlay as Nova does: its own metadata names the base and never a cache."""
    path = site.folder / f'{name}.qcow2'
    size = ['32M'] if '://' in base else []  # a server may be away for now
    command = ['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', base, '-F', base_format]
    subprocess.run([*command, *(['-u'] if size else []), str(path), *size], check=True)
    os.chown(path, users.GUEST.uid, users.GUEST.gid)
    path.chmod(0o600)
    return path


def blocks(console: str) -> list[tuple[int, int, str]]:
    """Return what a guest has printed so far of what it read: (offset, length) in KiB, SHA-256."""
    found = _BLOCK.findall(console)
    return [(int(offset), int(length), digest) for offset, length, digest in found]


def checksums(base: pathlib.Path, blocks: list[tuple[int, int]]) -> list[tuple[int, int, str]]:
    """Return what a guest must print for these blocks of (offset, length) in KiB."""
    found = []
    with open(base, 'rb') as file:
        for offset, length in blocks:
            file.seek(offset * 1024)
            found.append((offset, length, hashlib.sha256(file.read(length * 1024)).hexdigest()))
    return found
