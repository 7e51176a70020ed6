# SPDX-License-Identifier: Apache-2.0
"""Records and cache files that are not as they should be."""

from collections.abc import Callable
import json
import os
import pathlib
import shutil
from typing import Any

import pytest

from tests.functional import guests
from tests.functional import sealed
from tests.functional import users
from tests.functional.guests import NbdGuest
from tests.functional.refusals import require_plain_boot
from tests.functional.site import MIB
from tests.functional.site import Site

# -- records


def _change(path: pathlib.Path, **fields: object) -> bytes:
    return json.dumps({**json.loads(path.read_bytes()), **fields}).encode()


_OTHER = '99999999-9999-4999-9999-999999999999'
_RECORDS: dict[str, Callable[[pathlib.Path], bytes]] = {
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


def _require_passed_over(site: Site, base: pathlib.Path, kind: str) -> None:
    """Check that a boot would record another cache, that one line says why, and that nothing is
    lost."""
    files = {path: path.read_bytes() for path in site.files()}
    (path,) = (path for path in files if path.suffix == '.json')
    done = site.qcache('plan', site.image_id, f'--base={base}', '-f', 'json')
    assert done.returncode == 0, (kind, done)
    assert json.loads(done.stdout)['kind'] == 'RECORD', kind
    (line,) = done.stderr.splitlines()
    assert str(path) in line
    assert f'nova-qcache remove {site.image_id}' in line
    assert ('version 99' in line) == (kind == 'newer')
    assert {path: path.read_bytes() for path in site.files()} == files, 'something is lost'


def test_records(site: Site, base: pathlib.Path, cache: dict[str, Any]) -> None:
    path = pathlib.Path(cache['path']).with_suffix('.json')
    good = path.read_bytes()
    for kind, spoil in _RECORDS.items():
        path.write_bytes(spoil(path))
        _require_passed_over(site, base, kind)
        path.write_bytes(good)
    assert site.plan(base)['kind'] == 'PLAY'


@pytest.mark.parametrize('kind', ['newer', 'cut off'])
def test_what_to_do_about_a_record(
    site: Site, base: pathlib.Path, cache: dict[str, Any], kind: str
) -> None:
    path = pathlib.Path(cache['path']).with_suffix('.json')
    path.write_bytes(_RECORDS[kind](path))
    broken = path.read_bytes()
    site.ask('record', site.image_id, f'--base={base}', warnings=1)
    assert path.read_bytes() == broken, 'it is an operator\'s to look at'
    assert {row['state'] for row in site.ask('list')} == {'BROKEN', 'RECORDING'}
    site.ask('remove', site.image_id)
    assert not site.files()
    assert site.plan(base)['kind'] == 'RECORD'


def test_a_broken_record_beside_its_recorder(site: Site, base: pathlib.Path) -> None:
    """The only process of qemu that has the file open is ours, and ends."""
    site.record(base)
    (path,) = site.cache_path.glob('*.json')
    path.write_bytes(b'{')
    (row,) = site.ask('list')
    assert (row['state'], row['phase']) == ('BROKEN', 'recording')
    site.ask('remove', site.image_id)
    assert not site.files()
    site.wait_until_cold()


def test_an_unreadable_record(site: Site, base: pathlib.Path, cache: dict[str, Any]) -> None:
    path = pathlib.Path(cache['path']).with_suffix('.json')
    os.chown(path, 0, 0)
    path.chmod(0o600)
    done = site.qcache('plan', site.image_id, f'--base={base}')
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1), done
    assert str(path) in done.stderr


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


def _a_link(path: pathlib.Path) -> None:
    other = path.with_name('other')
    path.rename(other)
    path.symlink_to(other)


def _gone(path: pathlib.Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ('spoil', 'equal'),
    [
        *((_truncated, False), (_longer, False), (sealed.damage, False), (_gone, False)),
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
    require_plain_boot(site, base, str(path))
    if not equal:
        _require_found_by_verify(site, base)


def _require_found_by_verify(site: Site, base: pathlib.Path) -> None:
    done = site.qcache('verify', site.image_id, '-f', 'json')
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert site.image_id in line
    (row,) = json.loads(done.stdout)
    assert 'differs from what was sealed' in row['result'], row
    assert site.show()['state'] == 'STALE'
    assert site.plan(base)['kind'] == 'RECORD', 'it keeps its image from nothing'
    site.ask('remove', site.image_id)
    assert not site.files()


def test_content_that_changed_behind_the_facts(
    site: Site, base: pathlib.Path, cache: dict[str, Any]
) -> None:
    """Same inode, size and times: no look from outside sees it, reading does."""
    path = pathlib.Path(cache['path'])
    facts = path.stat()
    sealed.damage(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    _require_found_by_verify(site, base)


def test_a_replaced_file_of_the_same_content(
    site: Site, base: pathlib.Path, cache: dict[str, Any]
) -> None:
    """As after a restore from a backup: verify proves it, and it is used again."""
    _replaced(pathlib.Path(cache['path']))
    require_plain_boot(site, base)
    assert site.ask('verify', site.image_id)[0]['result'] == 'equal'
    assert site.plan(base)['kind'] == 'PLAY'
    sealed.require_sound(site, site.show(), base, guests.file_node(base))


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
    chain = guests.play_chain(shown['path'], guests.file_node(base))
    guests.require_equal(site, chain, base)
    site.see_off()
    site.ask('remove', site.image_id)
    assert sorted(path.name for path in site.files()) == sorted(names)
