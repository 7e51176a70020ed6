# SPDX-License-Identifier: Apache-2.0
"""nova-qcache in the stack's virtual environment: a wheel of the tree as it is now."""

from collections.abc import Callable
import hashlib
import os
import pathlib
import shutil
import tempfile

from qcache_stack import ini
from qcache_stack.process import run
from qcache_stack.process import StackError
from qcache_stack.settings import environment
from qcache_stack.settings import Layout

__all__ = ['install', 'source_digest']

SOURCE = pathlib.Path(__file__).resolve().parents[3]
_WITHOUT = {'bench', 'build', 'dist', 'doc', 'releasenotes', 'tests', 'tools'}
"""Folders at the top that are in no wheel."""
_VERSION = '0.0.1.dev0'


def _files() -> list[pathlib.Path]:
    """Return the files that a wheel may be made of."""
    found = []
    for folder, folders, names in os.walk(SOURCE):
        without = _WITHOUT if pathlib.Path(folder) == SOURCE else {'__pycache__'}
        folders[:] = sorted(
            name
            for name in folders
            if name not in without and not name.startswith('.') and '.egg-info' not in name
        )
        found += [pathlib.Path(folder, name) for name in sorted(names)]
    return [path for path in found if path.is_file() and not path.name.startswith('.')]


def source_digest() -> str:
    digest = hashlib.sha256()
    for path in _files():
        digest.update(f'{path.relative_to(SOURCE)}\0{path.stat().st_size}\0'.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def install(layout: Layout, say: Callable[[str], None]) -> bool:
    """Install the tree unless the same one is installed; return whether anything was done.

    :raises StackError: if no wheel can be made, or what it needs cannot be had
    """
    stamp = layout.venv / 'plugin-stamp'
    digest = source_digest()
    if stamp.exists() and stamp.read_text() == digest:
        return False
    stamp.unlink(missing_ok=True)
    pip = [layout.bin('python'), '-m', 'pip', '--quiet', '--disable-pip-version-check']
    # pip's own settings (where packages come from) are those of whoever calls.
    own = {name: value for name, value in os.environ.items() if name.startswith('PIP_')}
    home = os.environ.get('HOME', '/root')
    surroundings = environment(layout, home, {**own, 'PBR_VERSION': _VERSION})
    with tempfile.TemporaryDirectory(prefix='qcache-wheel-') as folder:
        # A copy: pbr and setuptools leave files in the folder that they work in.
        copy = pathlib.Path(folder, 'source')
        for path in _files():
            target = copy / path.relative_to(SOURCE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        build = ['wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', folder, str(copy)]
        run([*pip, *build], surroundings)
        wheels = list(pathlib.Path(folder).glob('*.whl'))
        if len(wheels) != 1:
            raise StackError(f'pip made {len(wheels)} wheels of {SOURCE}')
        wheel = str(wheels[0])
        run([*pip, 'install', '--force-reinstall', '--no-deps', wheel], surroundings)
        try:
            run([*pip, 'check'], surroundings)
        except StackError:
            say('nova-qcache needs packages that requirements.txt does not have yet')
            run([*pip, 'install', wheel], surroundings)
    ini.write(stamp, digest, mode=0o644)
    return True
