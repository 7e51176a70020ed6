# SPDX-License-Identifier: Apache-2.0
"""The installed product in a place that an ordinary user can read.

The tests run as root, the product as a user without any rights of root's: a virtual environment or
a checkout below /root is out of its reach. Then the product and all that it imports are copied.
"""

import dataclasses
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

from packaging import requirements
import packaging.utils

import nova_qcache
from tests.functional import quick
from tests.functional import users
from tests.functional import waiting

__all__ = ['Installation', 'copy', 'find']

_PROJECT = 'nova-qcache'
_LIBVIRT = 'libvirt-python'
"""What the Python of a compute host has beside it."""
_SCRIPTS = 'console_scripts'
_PROBE = 'import nova_qcache.cmd.shell, nova_qcache.cmd.recorder; print(nova_qcache.__file__)'


@dataclasses.dataclass(frozen=True)
class Installation:
    python: str
    scripts: pathlib.Path
    """Folder of ``nova-qcache`` and ``nova-qcache-recorder``."""
    environment: dict[str, str]
    commands: quick.Commands | None = dataclasses.field(default=None, compare=False)
    """What runs its commands, if they are to be quick."""


def find(folder: pathlib.Path) -> Installation:
    """Return the installation of these tests, or else a copy of it in ``folder``.

    :raises RuntimeError: if not even the copy can be run
    """
    scripts = pathlib.Path(sys.executable).parent
    ours = Installation(sys.executable, scripts, {})
    if (scripts / _PROJECT).exists() and not _problem(ours):
        return ours
    copied = copy(folder)
    problem = _problem(copied)
    if problem:
        raise RuntimeError(f'an ordinary user cannot run the product: {problem}')
    return copied


def copy(folder: pathlib.Path) -> Installation:
    """Return a copy of the installation of these tests."""
    python = os.path.realpath(sys.executable)
    _copy(folder, python)
    return Installation(python, folder / 'bin', {'PYTHONPATH': str(folder)})


def _problem(installation: Installation) -> str:
    try:
        done = subprocess.run(
            [installation.python, '-c', _PROBE],
            **users.PRODUCT.arguments(),
            cwd='/',
            env={'PATH': os.environ['PATH'], **installation.environment},
            capture_output=True,
            text=True,
            timeout=waiting.PATIENCE,
        )
    except OSError as e:
        return str(e)
    problem: str = done.stderr.strip()
    return problem


def _copy(folder: pathlib.Path, python: str) -> None:
    package = pathlib.Path(nova_qcache.__file__).parent
    shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns('__pycache__'))
    for distribution in _closure():
        for file in distribution.files or []:
            source = pathlib.Path(str(distribution.locate_file(file)))
            inside = not file.is_absolute() and '..' not in file.parts
            if inside and source.is_file() and file.suffix not in ('.pyc', '.pth'):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / file)
    scripts = folder / 'bin'
    scripts.mkdir(exist_ok=True)
    for script in importlib.metadata.distribution(_PROJECT).entry_points.select(group=_SCRIPTS):
        lines = [f'#!{python}', 'import sys', f'from {script.module} import {script.attr}']
        lines.append(f'sys.exit({script.attr}())')
        (scripts / script.name).write_text('\n'.join(lines) + '\n')
    for path in (folder, *folder.rglob('*')):
        path.chmod(0o755 if path.is_dir() or path.parent == scripts else 0o644)


def _closure() -> list[importlib.metadata.Distribution]:
    """Return the project's distribution and all that it needs at run time."""
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    wanted = [requirements.Requirement(name) for name in (_PROJECT, _LIBVIRT)]
    while wanted:
        wish = wanted.pop()
        name = packaging.utils.canonicalize_name(wish.name)
        if (name, frozenset(wish.extras)) in seen:
            continue
        seen.add((name, frozenset(wish.extras)))
        # Only where pip installs to: a checkout may have the metadata of a former version.
        there = importlib.metadata.distributions(name=name, path=[sysconfig.get_path('purelib')])
        distribution = next(iter(there), None)
        if distribution is None:
            continue  # for another platform
        found[name] = distribution
        for text in distribution.requires or []:
            requirement = requirements.Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({'extra': e}) for e in {'', *wish.extras}):
                wanted.append(requirement)
    return list(found.values())
