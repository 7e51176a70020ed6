# SPDX-License-Identifier: Apache-2.0
"""Folders and file systems that are not as they should be."""

from collections.abc import Callable
import os
import pathlib
import shutil
import subprocess

import pytest

from tests.functional import users
from tests.functional.refusals import require_nothing_left
from tests.functional.refusals import require_plain_boot
from tests.functional.refusals import require_refused
from tests.functional.refusals import require_unfit
from tests.functional.site import Site


def _record(site: Site, base: object) -> 'subprocess.CompletedProcess[str]':
    return site.qcache('record', site.image_id, f'--base={base}')


# -- folders


def _read_only_bind(site: Site, path: pathlib.Path) -> None:
    site.mount(path, '-o', 'bind,ro', str(path))


def _read_only_tmpfs(site: Site, path: pathlib.Path) -> None:
    site.mount(path, '-t', 'tmpfs', '-o', f'ro,uid={users.PRODUCT.uid}', 'tmpfs')


def _a_file(site: Site, path: pathlib.Path) -> None:
    shutil.rmtree(path)
    path.touch()
    os.chown(path, users.PRODUCT.uid, users.PRODUCT.gid)


def _of_another_user(site: Site, path: pathlib.Path) -> None:
    os.chown(path, users.GUEST.uid, users.GUEST.gid)


def _without_parent(site: Site, path: pathlib.Path) -> None:
    site.configure(**{f'{path.name}_path': path / 'gone' / 'deeper'})


@pytest.mark.parametrize('which', ['cache', 'run'])
@pytest.mark.parametrize(
    ('spoil', 'remedy'),
    [
        (_read_only_bind, '. Mount it for writing, or '),
        (_read_only_tmpfs, '. Mount it for writing, or '),
        (_a_file, '. Move it away or '),
        (
            _of_another_user,
            f' belongs to user {users.GUEST.uid}, and user {users.PRODUCT.uid} may',
        ),
        (_without_parent, '. Make it, and '),
    ],
    ids=['read_only_bind', 'read_only_tmpfs', 'a_file', 'of_another_user', 'without_parent'],
)
def test_folder(
    site: Site,
    base: pathlib.Path,
    which: str,
    spoil: Callable[[Site, pathlib.Path], None],
    remedy: str,
) -> None:
    path = site.folder / which
    site.ask('list')  # which makes what is missing: the folder was in use before
    spoil(site, path)
    require_refused(site, _record(site, base), f"'{path}", remedy)
    if spoil is not _without_parent:  # where nothing is, nothing is listed
        require_refused(site, site.qcache('list'), f"'{path}")
    require_unfit(site, 'folders', str(path))


def test_a_full_cache_folder(site: Site, base: pathlib.Path) -> None:
    site.mount(site.cache_path, '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', user=users.PRODUCT)
    filler = site.cache_path / 'filler'
    subprocess.run(['dd', 'if=/dev/zero', f'of={filler}', 'bs=64k'], capture_output=True)
    before = filler.stat().st_size
    require_refused(site, _record(site, base), str(site.cache_path), '. ')
    require_plain_boot(site, base, str(site.cache_path))
    require_nothing_left(site)
    assert filler.stat().st_size == before
    done = site.qcache('check', '-f', 'json')
    assert done.returncode == 1, done


def test_a_long_socket_path(site: Site, base: pathlib.Path) -> None:
    path = site.make_folder('r' * 60)
    site.configure(run_path=path)
    require_refused(site, _record(site, base), str(path), '107', '[qcache] run_path')
    require_plain_boot(site, base, '107')
    require_unfit(site, 'folders', '107')
    assert not [each for each in path.rglob('*') if each.is_socket()]


@pytest.mark.parametrize('group', ['no-such-group', 'root'])
def test_a_group_that_is_not_the_users(site: Site, base: pathlib.Path, group: str) -> None:
    """One that does not exist, and one of which the product's user is no member."""
    site.configure(qemu_group=group)
    require_refused(site, _record(site, base), repr(group), '[qcache] qemu_group')
    require_unfit(site, 'folders', repr(group))


# -- file systems that reserve no space


def _bindfs(site: Site) -> None:
    below = site.make_folder('below')
    site.bindfs(below, site.cache_path)


def _ramfs(site: Site) -> None:
    site.mount(site.cache_path, '-t', 'ramfs', 'ramfs', user=users.PRODUCT)


@pytest.mark.parametrize(
    ('make', 'said', 'checked'),
    [
        (_bindfs, 'cannot be reserved', 'cannot be reserved'),
        (_ramfs, '0 are free', 'cannot be reserved'),  # it says that it has no bytes at all
    ],
    ids=['bindfs', 'ramfs'],
)
def test_no_reservation(
    site: Site, base: pathlib.Path, make: Callable[[Site], None], said: str, checked: str
) -> None:
    make(site)
    require_refused(site, _record(site, base), str(site.cache_path), said, 'cache_path')
    require_plain_boot(site, base, said)
    require_nothing_left(site)
    require_unfit(site, 'reservation', checked)
    assert not [each.name for each in site.cache_path.iterdir() if each.is_file()]
