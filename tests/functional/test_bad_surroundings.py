# SPDX-License-Identifier: Apache-2.0
"""Folders, file systems, records and cache files that are not as they should be."""

from collections.abc import Callable
import json
import os
import pathlib
import shutil
import subprocess
from typing import Any

import pytest

from tests.functional import guests
from tests.functional import sealed
from tests.functional import users
from tests.functional import waiting
from tests.functional.guests import NbdGuest
from tests.functional.refusals import require_nothing_left
from tests.functional.refusals import require_refused
from tests.functional.site import MIB
from tests.functional.site import Site


def _record(site: Site, base: object) -> 'subprocess.CompletedProcess[str]':
    return site.qcache('record', site.image_id, f'--base={base}')


def _require_plain_boot(site: Site, base: pathlib.Path, *said: str) -> None:
    plan = site.boot_plan(base)
    assert plan['kind'] == 'PLAIN', plan
    for words in said:
        assert words in plan['reason'], plan


def _require_unfit(site: Site, subject: str, said: str) -> None:
    done = site.qcache('check', '-f', 'json')
    assert (done.returncode, done.stderr) == (1, ''), done
    (finding,) = (row for row in json.loads(done.stdout) if row['Subject'] == subject)
    assert finding['Grade'] == 'error'
    assert said in finding['Found'] + finding['Remedy'], finding
    assert finding['Remedy'], finding


# -- folders


def _read_only_bind(site: Site, path: pathlib.Path) -> None:
    site.mount(path, '-o', 'bind,ro', str(path))


def _read_only_tmpfs(site: Site, path: pathlib.Path) -> None:
    site.mount(path, '-t', 'tmpfs', '-o', f'ro,uid={users.PRODUCT.uid}', 'tmpfs')


def _a_file(site: Site, path: pathlib.Path) -> None:
    path.rmdir()
    path.touch()
    os.chown(path, users.PRODUCT.uid, users.PRODUCT.gid)


def _of_another_user(site: Site, path: pathlib.Path) -> None:
    os.chown(path, users.GUEST.uid, users.GUEST.gid)


def _without_parent(site: Site, path: pathlib.Path) -> None:
    site.configure(**{f'{path.name}_path': path / 'gone' / 'deeper'})


@pytest.mark.parametrize('which', ['cache', 'run'])
@pytest.mark.parametrize(
    'spoil',
    [_read_only_bind, _read_only_tmpfs, _a_file, _of_another_user, _without_parent],
    ids=lambda spoil: spoil.__name__[1:],
)
def test_folder(
    site: Site, base: pathlib.Path, which: str, spoil: Callable[[Site, pathlib.Path], None]
) -> None:
    path = site.folder / which
    spoil(site, path)
    require_refused(site, _record(site, base), f"'{path}", '. Make it' if path.is_dir() else '. ')
    for verb in ('list', 'show', 'plan', 'remove'):
        arguments = [] if verb == 'list' else [site.image_id]
        arguments += [f'--base={base}'] if verb == 'plan' else []
        require_refused(site, site.qcache(verb, *arguments), f"'{path}")
    _require_unfit(site, 'folders', str(path))


def test_a_full_cache_folder(site: Site, base: pathlib.Path) -> None:
    site.mount(site.cache_path, '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', user=users.PRODUCT)
    filler = site.cache_path / 'filler'
    subprocess.run(['dd', 'if=/dev/zero', f'of={filler}', 'bs=64k'], capture_output=True)
    before = filler.stat().st_size
    require_refused(site, _record(site, base), str(site.cache_path), '. ')
    _require_plain_boot(site, base, str(site.cache_path))
    require_nothing_left(site)
    assert filler.stat().st_size == before
    done = site.qcache('check', '-f', 'json')
    assert done.returncode == 1, done


def test_a_long_socket_path(site: Site, base: pathlib.Path) -> None:
    path = site.make_folder('r' * 60)
    site.configure(run_path=path)
    require_refused(site, _record(site, base), str(path), '107', '[qcache] run_path')
    _require_plain_boot(site, base, '107')
    _require_unfit(site, 'folders', '107')
    assert not [each for each in path.rglob('*') if each.is_socket()]


def test_a_group_that_is_not_there(site: Site, base: pathlib.Path) -> None:
    site.configure(qemu_group='no-such-group')
    require_refused(site, _record(site, base), 'no-such-group', '[qcache] qemu_group')
    _require_unfit(site, 'folders', 'no-such-group')


def test_a_group_of_others(site: Site, base: pathlib.Path) -> None:
    """A group that exists and that the product's user is no member of."""
    site.configure(qemu_group='root')
    require_refused(site, _record(site, base), "'root'", '[qcache] qemu_group')
    _require_unfit(site, 'folders', "'root'")


# -- file systems that reserve no space


def _bindfs(site: Site) -> None:
    below = site.make_folder('below')
    site.bindfs(below, site.cache_path)


def _ramfs(site: Site) -> None:
    site.mount(site.cache_path, '-t', 'ramfs', 'ramfs', user=users.PRODUCT)


def _promises_only(site: Site) -> None:
    """No file system of this kind can be had here; to the product a tool that lies is the same."""
    programs = site.folder / 'bin'
    programs.mkdir()
    site.program('bin/fallocate', '#!/bin/sh\nexit 0\n')
    site.environment['PATH'] = f'{programs}:{site.environment["PATH"]}'


@pytest.mark.parametrize(
    ('make', 'said'),
    [
        (_bindfs, 'cannot be reserved'),
        (_ramfs, 'cannot be reserved'),
        (_promises_only, 'reported success'),
    ],
    ids=['bindfs', 'ramfs', 'promises only'],
)
def test_no_reservation(
    site: Site, base: pathlib.Path, make: Callable[[Site], None], said: str
) -> None:
    make(site)
    require_refused(site, _record(site, base), str(site.cache_path), said, 'cache_path')
    _require_plain_boot(site, base, said)
    require_nothing_left(site)
    _require_unfit(site, 'reservation', said)
    assert not [each.name for each in site.cache_path.iterdir() if each.is_file()]


# -- records


@pytest.fixture
def cache(site: Site, base: pathlib.Path) -> dict[str, Any]:
    """A READY cache, whose recorder has left."""
    with NbdGuest(site, site.record(base)) as guest:
        guest.require(base, 0, 4 * MIB)
        shown: dict[str, Any] = site.ask('seal', site.image_id, '--wait')
    waiting.until(lambda: not site.recorders(), 'the end of the recorder')
    return shown


def _change(path: pathlib.Path, **fields: object) -> bytes:
    return json.dumps({**json.loads(path.read_bytes()), **fields}).encode()


_OTHER = '99999999-9999-4999-9999-999999999999'
_RECORDS: dict[str, Callable[[pathlib.Path], bytes]] = {
    'empty': lambda path: b'',
    'cut off': lambda path: path.read_bytes()[:200],
    'a list': lambda path: b'[1]',
    'deep': lambda path: b'[' * 100000,
    'not text': lambda path: b'\xff\xfe\x00',
    'newer': lambda path: _change(path, version=99),
    'of another image': lambda path: _change(path, image_id=_OTHER),
    'of a strange type': lambda path: _change(path, quota='much'),
    'of an unknown state': lambda path: _change(path, state='TEPID'),
    'READY without a seal': lambda path: _change(path, sealed=None),
}


@pytest.mark.parametrize('kind', _RECORDS)
def test_record(site: Site, base: pathlib.Path, cache: dict[str, Any], kind: str) -> None:
    path = pathlib.Path(cache['path']).with_suffix('.json')
    text = _RECORDS[kind](path)
    path.write_bytes(text)
    files = site.files()
    for verb in ('plan', 'record'):
        done = site.qcache(verb, site.image_id, f'--base={base}')
        assert (done.returncode, done.stdout) == (1, ''), done
        (line,) = done.stderr.splitlines()
        assert str(path) in line
        assert f'nova-qcache remove {site.image_id}' in line
        assert ('version 99' in line) == (kind == 'newer')
    _require_plain_boot(site, base, str(path))
    waiting.until(lambda: not site.recorders(), 'the end of the recorder')
    assert path.read_bytes() == text
    assert site.files() == files, 'something is lost'
    (row,) = site.ask('list')
    assert row['State'] == 'BROKEN'

    site.ask('remove', site.image_id)
    assert not site.files()
    assert site.plan(base)['kind'] == 'RECORD'


def test_an_unreadable_record(site: Site, base: pathlib.Path, cache: dict[str, Any]) -> None:
    path = pathlib.Path(cache['path']).with_suffix('.json')
    os.chown(path, 0, 0)
    path.chmod(0o600)
    done = site.qcache('plan', site.image_id, f'--base={base}')
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done
    assert str(path) in done.stderr
    _require_plain_boot(site, base, str(path))


# -- cache files


def _truncated(path: pathlib.Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _longer(path: pathlib.Path) -> None:
    with open(path, 'ab') as file:
        file.write(b'x' * 4096)


def _replaced(path: pathlib.Path) -> None:
    copy = path.with_name('copy')
    shutil.copy2(path, copy)
    os.chown(copy, users.PRODUCT.uid, users.PRODUCT.gid)
    copy.rename(path)


def _written_to(path: pathlib.Path) -> None:
    with open(path, 'r+b') as file:
        file.seek(-2 * 4096, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def _a_link(path: pathlib.Path) -> None:
    other = path.with_name('other')
    path.rename(other)
    path.symlink_to(other)


def _gone(path: pathlib.Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ('spoil', 'equal'),
    [
        *((_truncated, False), (_longer, False), (_written_to, False), (_gone, False)),
        *((_replaced, True), (_a_link, True)),
    ],
)
def test_cache_file(
    site: Site,
    base: pathlib.Path,
    cache: dict[str, Any],
    spoil: Callable[[pathlib.Path], None],
    equal: bool,
) -> None:
    """It is not used as long as it is not known to be what was sealed; verify finds out."""
    path = pathlib.Path(cache['path'])
    spoil(path)
    done = site.qcache('plan', site.image_id, f'--base={base}')
    assert (done.returncode, done.stdout) == (1, ''), done
    (line,) = done.stderr.splitlines()
    assert str(path) in line
    assert f'nova-qcache remove {site.image_id}' in line
    _require_plain_boot(site, base, str(path))
    if not equal:
        _require_found_by_verify(site, base)


def _require_found_by_verify(site: Site, base: pathlib.Path) -> None:
    done = site.qcache('verify', site.image_id, '-f', 'json')
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert site.image_id in line
    (row,) = json.loads(done.stdout)
    assert 'not what was sealed' in row['Result'], row
    assert site.show()['state'] == 'STALE'
    _require_plain_boot(site, base, 'stale')
    site.ask('remove', site.image_id)
    assert not site.files()


def test_content_that_changed_behind_the_facts(
    site: Site, base: pathlib.Path, cache: dict[str, Any]
) -> None:
    """Same inode, size and times: no look from outside sees it, reading does."""
    path = pathlib.Path(cache['path'])
    facts = path.stat()
    _written_to(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    _require_found_by_verify(site, base)


def test_a_replaced_file_of_the_same_content(
    site: Site, base: pathlib.Path, cache: dict[str, Any]
) -> None:
    """As after a restore from a backup: verify proves it, and it is used again."""
    _replaced(pathlib.Path(cache['path']))
    _require_plain_boot(site, base)
    assert site.ask('verify', site.image_id)[0]['Result'] == 'equal'
    assert site.plan(base)['kind'] == 'PLAY'
    sealed.require_sound(site, site.show(), base, {'driver': 'file', 'filename': str(base)})


def test_foreign_files(site: Site, base: pathlib.Path) -> None:
    """What is not the product's stays, and is nobody's cache."""
    names = [
        'notes.txt',
        'x.json',
        f'{site.image_id}.qcow2',
        f'{site.image_id}.1.1.json',
        '.hidden',
    ]
    for name in names:
        (site.cache_path / name).write_text('mine')
    assert site.ask('list') == []
    with NbdGuest(site, site.record(base)) as guest:
        guest.require(base, 0, MIB)
        shown = site.ask('seal', site.image_id, '--wait')
    chain = guests.play_chain(shown['path'], {'driver': 'file', 'filename': str(base)})
    guests.require_equal(site, chain, base)
    waiting.until(lambda: not site.recorders(), 'the end of the recorder')
    site.ask('remove', site.image_id)
    assert sorted(path.name for path in site.files()) == sorted(names)
