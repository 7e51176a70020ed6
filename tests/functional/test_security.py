# SPDX-License-Identifier: Apache-2.0
"""Who may reach what: every file that the product makes, the user of qemu, anybody else on the
host; and no image ever gets the cache of another.

Images that are made to harm are in test_hostile_images.py.
"""

from collections.abc import Iterator
import contextlib
import grp
import json
import os
import pathlib
import shutil
import stat
import subprocess
from typing import Any
import uuid

import pytest

from tests.functional import bases
from tests.functional import guests
from tests.functional import users
from tests.functional import waiting
from tests.functional.guests import NbdGuest
from tests.functional.refusals import require_nothing_left
from tests.functional.site import MIB
from tests.functional.site import Site

_OWN = users.PRODUCT.gid
_QEMU = grp.getgrnam(users.QEMU_GROUP).gr_gid
_ANY = None
"""In a folder that nobody else can enter."""

_RIGHTS: dict[str, tuple[str | None, int]] = {
    'cache': ('drwx--x--x', _OWN),
    'cache/*.json': ('-rw-r-----', _OWN),
    'cache/*.recording': ('-rw-------', _OWN),
    'cache/*.qcow2': ('-r--r-----', _QEMU),
    'cache/generations': ('drwx------', _OWN),
    'cache/locks': ('drwx------', _OWN),
    'cache/locks/*': (_ANY, _OWN),
    'cache/pins': ('drwx------', _OWN),
    'cache/statistics': ('drwx------', _OWN),
    'cache/statistics/*.json': (_ANY, _OWN),
    'run': ('drwx--x--x', _OWN),
    'run/guests': ('drwxr-x---', _QEMU),
    'run/guests/*.nbd': ('srw-rw----', _QEMU),
    'run/control': ('drwx------', _OWN),
    'run/control/*.qmp': ('srw-rw----', _OWN),
    'run/control/*.ctl': ('srw-------', _OWN),
    'run/control/*.log': (_ANY, _OWN),
    'run/control/*.duty': (_ANY, _OWN),
    'run/leases': ('drwx------', _OWN),
    'run/leases/*.json': (_ANY, _OWN),
    'run/reservations': ('drwx------', _OWN),
    'run/reservations/*.json': (_ANY, _OWN),
    'run/examinations': ('drwx------', _OWN),
    'run/examinations/*': (_ANY, _OWN),
    'bases/.nova-qcache': ('drwxr-xr-x', _OWN),
    # Other hosts read it, as whatever user.
    'bases/.nova-qcache/*.json': ('-rw-r--r--', _OWN),
    # Whoever could open it could hold it for ever.
    'bases/.nova-qcache/generation-*': ('-rw-------', _OWN),
}
"""All that the product may leave, its rights, and its group; its owner is the product."""

_ALWAYS = {
    *('cache', 'cache/*.json', 'cache/locks', 'cache/locks/*', 'cache/generations'),
    *('cache/pins', 'cache/statistics'),
    *('run', 'run/guests', 'run/control', 'run/leases', 'run/reservations'),
    *('bases/.nova-qcache', 'bases/.nova-qcache/*.json', 'bases/.nova-qcache/generation-*'),
}
_SOCKETS = {'run/guests/*.nbd', 'run/control/*.qmp', 'run/control/*.ctl'}

# What a user can do with each of some paths, tried out without changing anything.
_REACH = """
import json, os, socket, sys
found = {}
for path in json.loads(sys.stdin.read()):
    tries = {
        'read': lambda: os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK)),
        'write': lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)),
        'connect': lambda: socket.socket(socket.AF_UNIX).connect(path),
        'list': lambda: os.listdir(path),
        'make': lambda: os.rmdir(os.mkdir(path + '/intruder') or path + '/intruder'),
    }
    for name, way in tries.items():
        try:
            way()
        except OSError:
            continue
        found.setdefault(path, []).append(name)
print(json.dumps(found))
"""

# What changes a cache file; each of it must fail.
_HARM = """
import json, os, sys
path, own = sys.argv[1:]
open(own, 'w').close()
folder = os.path.dirname(path)
tries = {
    'chmod': lambda: os.chmod(path, 0o666),
    'chown': lambda: os.chown(path, os.geteuid(), -1),
    'truncate': lambda: os.truncate(path, 0),
    'write': lambda: open(path, 'r+b'),
    'touch': lambda: os.utime(path),
    'unlink': lambda: os.unlink(path),
    'rename': lambda: os.rename(path, own),
    'replace': lambda: os.replace(own, path),
    'add': lambda: os.symlink(own, folder + '/11111111-2222-3333-4444-555555555555.qcow2'),
    'open folder': lambda: os.chmod(folder, 0o777),
}
done = []
for name, way in tries.items():
    try:
        way()
    except PermissionError:
        continue
    done.append(name)
print(json.dumps(done))
"""

# A client of NBD that does not care what the server says of itself.
_WRITE_OVER_NBD = """
import json, sys
import nbd
handle = nbd.NBD()
handle.connect_uri(sys.argv[1])
handle.set_strict_mode(handle.get_strict_mode() & ~nbd.STRICT_COMMANDS)
answers = {'read-only': handle.is_read_only()}
tries = {
    'write': lambda: handle.pwrite(b'x' * 512, 0),
    'zero': lambda: handle.zero(4096, 0),
    'trim': lambda: handle.trim(4096, 0),
}
for name, way in tries.items():
    try:
        way()
        answers[name] = 'done'
    except nbd.Error as e:
        answers[name] = e.errno
print(json.dumps(answers))
"""


@pytest.fixture
def bare(site: Site) -> Site:
    """A site in whose folders everything is made by the product."""
    var = site.make_folder('var')
    site.cache_path, site.run_path = var / 'cache', var / 'run'
    site.configure(
        cache_path=site.cache_path,
        run_path=site.run_path,
        guest_grace_seconds=0,
    )
    return site


def _run(site: Site, umask: int, *arguments: str) -> Any:
    with site.start(site.command(*arguments, '-f', 'json'), umask=umask) as process:
        stdout, stderr = process.communicate(timeout=waiting.PATIENCE)
    assert process.returncode == 0, stderr
    return json.loads(stdout)


def _python(
    site: Site, user: users.User, program: str, *arguments: str, say: object = None
) -> Any:
    """Run a program with the distribution's Python and return the JSON that it says."""
    command = ['/usr/bin/python3', '-c', program, *arguments]
    with site.start(command, stdin=subprocess.PIPE, **user.arguments()) as process:
        stdout, stderr = process.communicate(json.dumps(say), timeout=waiting.PATIENCE)
    assert (process.returncode, stderr) == (0, '')
    return json.loads(stdout)


def _made(site: Site) -> dict[str, pathlib.Path]:
    """Return all that there is in the product's folders, as the table calls it."""
    found = {}
    for name, folder in (('cache', site.cache_path), ('run', site.run_path)):
        for path in (folder, *folder.rglob('*')):
            found[str(pathlib.PurePath(name, path.relative_to(folder)))] = path
    counters = site.bases / '.nova-qcache'
    for path in (counters, *counters.rglob('*')):
        found[f'bases/{path.relative_to(site.bases)}'] = path
    return found


def _row(name: str) -> str:
    rows = [row for row in _RIGHTS if pathlib.PurePath('/', name).match(f'/{row}')]
    assert len(rows) == 1, f'{name}: {rows}'
    return rows[0]


def _require_rights(site: Site, *there: str) -> None:
    """Compare all files with the table.

    :param there: rows that must have a file now, beside those that always do
    """
    seen = set()
    for name, path in _made(site).items():
        row = _row(name)
        seen.add(row)
        mode, group = _RIGHTS[row]
        facts = path.lstat()
        assert (facts.st_uid, facts.st_gid) == (users.PRODUCT.uid, group), name
        assert mode in (_ANY, stat.filemode(facts.st_mode)), (name, oct(facts.st_mode))
        if mode is _ANY:
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700, name
    assert {*_ALWAYS, *there} <= seen, seen


def _require_reach(site: Site) -> None:
    """Try what others can do with all of it: the user of qemu little, a stranger nothing."""
    made = {name: path for name, path in _made(site).items() if not name.startswith('bases/')}
    paths = [str(path) for path in made.values()]
    assert _python(site, users.STRANGER, _REACH, say=paths) == {}
    wanted = {
        'run/guests': ['read', 'list'],
        'run/guests/*.nbd': ['connect'],
        'cache/*.qcow2': ['read'],
    }
    expected = {
        str(path): wanted[_row(name)] for name, path in made.items() if _row(name) in wanted
    }
    assert _python(site, users.GUEST, _REACH, say=paths) == expected
    # The counters of bases are for all hosts to read, and their locks for nobody else.
    counters = [str(path) for path in (site.bases / '.nova-qcache').iterdir()]
    can = _python(site, users.STRANGER, _REACH, say=counters)
    assert can == {path: ['read'] for path in counters if path.endswith('.json')}


def _require_no_write(site: Site, plan: dict[str, Any]) -> None:
    answers = _python(site, users.GUEST, _WRITE_OVER_NBD, guests.uri(plan))
    assert answers.pop('read-only') is True
    assert set(answers) == {'write', 'zero', 'trim'}
    # "Operation not permitted" in words, but qemu sends the number of an invalid argument.
    assert set(answers.values()) <= {'EPERM', 'EINVAL'}, answers


@pytest.mark.core
@pytest.mark.parametrize('umask', [0o000, 0o077], ids=oct)
def test_rights(bare: Site, base: pathlib.Path, umask: int) -> None:
    """Of everything, in each state of a cache, and whatever umask the caller has."""
    site = bare
    content = base.read_bytes()
    plan = _run(site, umask, 'record', site.image_id, f'--base={base}')
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, MIB)
        _require_rights(site, 'cache/*.recording', *_SOCKETS)
        _require_reach(site)
        _require_no_write(site, plan)
        shown = _run(site, umask, 'seal', site.image_id, '--wait')
        _require_rights(site, 'cache/*.qcow2', *_SOCKETS)
        _require_reach(site)
        _require_no_write(site, plan)
        guest.require(base, 0, 2 * MIB)
    site.see_off()
    _require_rights(site, 'cache/*.qcow2')
    _require_reach(site)
    _run(site, umask, 'verify', site.image_id)
    _require_rights(site, 'cache/*.qcow2')
    guests.require_equal(site, guests.play_chain(shown['path'], guests.file_node(base)), base)
    assert base.read_bytes() == content
    _run(site, umask, 'invalidate', site.image_id)
    _require_rights(site, 'cache/*.qcow2')
    _require_reach(site)


@pytest.mark.core
def test_what_the_user_of_qemu_cannot_do(
    site: Site, base: pathlib.Path, cache: dict[str, Any]
) -> None:
    path = pathlib.Path(cache['path'])
    before = (path.lstat(), path.read_bytes(), sorted(site.cache_path.iterdir()))
    mine = site.make_folder('mine', users.GUEST)
    for user in (users.GUEST, users.STRANGER):
        mine.chmod(0o777)
        assert _python(site, user, _HARM, str(path), str(mine / str(user.uid))) == []
    facts = path.lstat()
    assert path.read_bytes() == before[1]
    for name in ('st_mode', 'st_uid', 'st_gid', 'st_ino', 'st_size', 'st_mtime_ns', 'st_nlink'):
        assert getattr(facts, name) == getattr(before[0], name), name
    assert sorted(site.cache_path.iterdir()) == before[2]
    assert site.plan(base)['kind'] == 'PLAY'


# -- one image never gets the cache of another


@contextlib.contextmanager
def _image(site: Site, image_id: str) -> Iterator[None]:
    mine, site.image_id = site.image_id, image_id
    try:
        yield
    finally:
        site.image_id = mine


@pytest.mark.core
def test_two_images_of_one_base(site: Site, base: pathlib.Path, cache: dict[str, Any]) -> None:
    """They may belong to two tenants: each records for itself, though the bytes are the same."""
    with _image(site, str(uuid.uuid4())):
        assert site.plan(base)['kind'] == 'RECORD'
        plan = site.record(base)
        assert site.image_id in plan['socket']
        with NbdGuest(site, plan) as guest:
            guest.require(base, 8 * MIB, 4 * MIB)
            other = site.ask('seal', site.image_id, '--wait')
        # What the first one has read is not in it.
        assert other['cache_bytes'] < 5 * MIB < cache['cache_bytes']
        assert site.plan(base)['cache'] == other['path']
    assert site.plan(base)['cache'] == cache['path'] != other['path']


def _give(site: Site, cache: dict[str, Any], image_id: str, *, linked: bool) -> pathlib.Path:
    """Give the files of a cache to another image, and return the path of the new record.

    :param linked: whether its file is the very same one
    """
    path = pathlib.Path(cache['path'])
    new, record = (
        old.with_name(old.name.replace(site.image_id, image_id))
        for old in (path, path.with_suffix('.json'))
    )
    if linked:
        os.link(path, new)
    else:
        shutil.copy2(path, new)
    shutil.copy2(path.with_suffix('.json'), record)
    for made in (new, record):
        os.chown(made, users.PRODUCT.uid, users.PRODUCT.gid)
    return record


@pytest.mark.parametrize('says', ['the other', 'its own'])
def test_a_copied_record(site: Site, base: pathlib.Path, cache: dict[str, Any], says: str) -> None:
    """Under the name of another image: as it was, or changed so that it speaks of that one."""
    other = str(uuid.uuid4())
    record = _give(site, cache, other, linked=says == 'the other')
    if says == 'its own':
        record.write_text(record.read_text().replace(site.image_id, other))
    with _image(site, other):
        plan = site.boot_plan(base)
        assert plan['cache'] is None, plan
        if says == 'its own':
            assert (plan['kind'], other in plan['reason']) == ('PLAIN', True), plan
        else:
            assert (plan['kind'], plan['revision']) == ('RECORD', 2), 'the record is passed over'
    assert site.plan(base)['cache'] == cache['path']
    site.ask('remove', other)
    site.ask('remove', site.image_id)
    require_nothing_left(site)


def test_a_linked_cache(site: Site, base: pathlib.Path, cache: dict[str, Any]) -> None:
    """A name of the image's own that leads to the cache of another one is no cache."""
    other = str(uuid.uuid4())
    record = _give(site, cache, other, linked=False)
    record.write_text(record.read_text().replace(site.image_id, other))
    link = record.with_suffix('.qcow2')
    link.unlink()
    link.symlink_to(cache['path'])
    os.chown(link, users.PRODUCT.uid, users.PRODUCT.gid, follow_symlinks=False)
    with _image(site, other):
        plan = site.boot_plan(base)
        assert (plan['kind'], plan['cache']) == ('PLAIN', None), plan


@pytest.mark.parametrize('field', ['base', 'base_format'])
def test_a_record_of_another_base(
    site: Site, base: pathlib.Path, cache: dict[str, Any], field: str
) -> None:
    record = pathlib.Path(cache['path']).with_suffix('.json')
    said = json.loads(record.read_text())
    said[field] = 'qcow2' if field == 'base_format' else f'{base}.other'
    record.write_text(json.dumps(said))
    plan = site.boot_plan(base)
    assert (plan['kind'], plan['cache'], plan['revision']) == ('RECORD', None, 2), plan
    assert site.show()['state'] == 'RECORDING'
    assert {row['state'] for row in site.ask('list')} == {'RECORDING', 'STALE'}


def test_an_image_on_another_base(site: Site, base: pathlib.Path, cache: dict[str, Any]) -> None:
    """Nova hands a file to us that is not the one of before: its caches have a key of its own."""
    other = bases.make_raw(site, 16 * MIB, 'other.raw')
    plan = site.boot_plan(other)
    assert plan['kind'] == 'RECORD', plan
    assert plan['socket'] != site.plan(base)['socket']
    with NbdGuest(site, {**plan, 'export': 'top'}) as guest:
        guest.require(other, 0, 4 * MIB)
    site.qcache('remove', site.image_id, '--force')
