# SPDX-License-Identifier: Apache-2.0
"""File systems of a test's own, on loop devices whose sectors have 4096 bytes (4Kn)."""

import dataclasses
import pathlib
import subprocess

from tests.functional import users
from tests.functional.site import MIB
from tests.functional.site import Site

__all__ = ['FileSystem', 'mount']


@dataclasses.dataclass(frozen=True)
class FileSystem:
    name: str
    mib: int
    """As small as its mkfs makes it."""
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


def mount(site: Site, where: pathlib.Path, kind: FileSystem) -> None:
    """Mount a new file system that the product's user can write to, until the end of the test."""
    catalog = site.folder / f'{where.name}.{kind}'
    with open(catalog, 'wb') as file:
        file.truncate(kind.mib * MIB)
    device = _run('losetup', '--find', '--show', '--sector-size=4096', str(catalog)).strip()
    site.account.surroundings.callback(_run, 'losetup', '--detach', device)
    _run(f'mkfs.{kind}', *kind.options, device)
    site.mount(where, device, user=users.PRODUCT)


def _run(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout
