# SPDX-License-Identifier: Apache-2.0
"""The commands of nova-qcache: what they say, and what they do to caches that guests use."""

import contextlib
import json
import pathlib
import re
import signal
import subprocess
from typing import Any

import pytest

from nova_qcache.system import files
from tests.functional import generations
from tests.functional import guests
from tests.functional import sealed
from tests.functional import users
from tests.functional import waiting
from tests.functional.guests import NbdGuest
from tests.functional.site import MIB
from tests.functional.site import Site

pytestmark = pytest.mark.core


@contextlib.contextmanager
def _reader(site: Site, cache: str, base: pathlib.Path) -> Any:
    """A qemu-io of the guest's user that has a sealed cache open, and reads when it is told to."""
    chain = guests.play_chain(cache, guests.file_node(base))
    with site.start(
        ['qemu-io', '-r', f'json:{json.dumps(chain)}'],
        stdin=subprocess.PIPE,
        **users.GUEST.arguments(),
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write('read 0 4096\n')
            process.stdin.flush()
            yield process
        finally:
            process.kill()
            process.communicate()


def _read(process: 'subprocess.Popen[str]') -> str:
    """Let a reader read once more and end; return all that it said."""
    stdout, _ = process.communicate('read 1M 4M\nquit\n', timeout=waiting.PATIENCE)
    assert process.returncode == 0
    return stdout


# -- what is said


def test_nothing_there(site: Site) -> None:
    assert site.ask('list') == []
    for verb in (
        ['show'],
        ['seal'],
        ['verify'],
        ['invalidate'],
        ['remove'],
        ['remove', '--force'],
    ):
        done = site.qcache(*verb, site.image_id)
        assert (done.returncode, done.stdout) == (1, ''), done
        (line,) = done.stderr.splitlines()
        assert site.image_id in line
        assert 'nova-qcache list' in line


def test_help_and_version(site: Site) -> None:
    done = site.qcache('--version')
    assert re.fullmatch(r'nova-qcache \S+\n', done.stdout), done
    done = site.qcache('--help')
    verbs = {'list', 'show', 'plan', 'record', 'seal', 'verify', 'invalidate', 'remove', 'check'}
    assert verbs <= set(re.findall(r'^  (\w+) ', done.stdout, re.MULTILINE)), done
    done = site.qcache('record', '--help')
    assert (done.returncode, '--base-format' in done.stdout) == (0, True), done


@pytest.mark.parametrize('program', ['nova-qcache', 'nova-qcache-status'])
def test_ctrl_c_in_the_first_moments(site: Site, program: str) -> None:
    """In the middle of an import, in a destructor: from there no exception comes out."""
    modules = site.make_folder('modules')
    (modules / 'oslo_config').mkdir()
    (modules / 'oslo_config' / '__init__.py').write_text("""
import os, signal
class Gone:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
Gone()
print('It goes on.')
""")
    paths = filter(None, [str(modules), site.environment.get('PYTHONPATH')])
    site.environment['PYTHONPATH'] = ':'.join(paths)
    done = site.run([str(site.product.scripts / program), '--help'])
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, '', '')


def test_list_and_show(site: Site, base: pathlib.Path) -> None:
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, 2 * MIB)
        (row,) = site.ask('list')
        shown = site.show()
        (counted,) = site.ask('stats')
        for name in ('is_pinned', 'state', 'quota_bytes'):
            assert row[name] == shown[name] == counted[name], name
        assert (row['image_id'], row['state'], row['guests']) == (site.image_id, 'RECORDING', 1)
        assert (row['generation'], row['base']) == (shown['generation'], str(base))
        assert (shown['state'], shown['phase'], shown['guests']) == ('RECORDING', 'recording', 1)
        # What its file system needs for it may change at any time while it is written.
        for each in (row, shown, counted):
            assert 63 * MIB < each['allocated_bytes'] <= each['quota_bytes'] == 64 * MIB
        assert shown['virtual_size'] == 16 * MIB
        site.ask('seal', site.image_id, '--wait')
        (row,) = site.ask('list')
        assert (row['state'], row['guests'], row['quota_bytes']) == ('READY', 1, 64 * MIB)
        assert 2 * MIB <= row['allocated_bytes'] < 4 * MIB
    site.see_off()
    shown = site.show()
    (counted,) = site.ask('stats')
    assert row['allocated_bytes'] == shown['allocated_bytes'] == counted['allocated_bytes']
    assert shown['phase'] is None
    assert shown['sealed_at'] >= shown['created_at']
    table = site.qcache('list')
    assert (table.returncode, table.stderr) == (0, '')
    assert [cell for line in table.stdout.splitlines() for cell in line.split('|')[1:2]][0:1]
    assert re.search(rf'\| {site.image_id} \| READY ', table.stdout), table.stdout
    table = site.qcache('show', site.image_id)
    assert re.search(r'\| state +\| READY +\|', table.stdout), table.stdout


def test_plan_starts_nothing(site: Site, base: pathlib.Path) -> None:
    plan = site.plan(base)
    assert (plan['kind'], plan['cache'], plan['base']) == ('RECORD', None, str(base))
    assert not site.recorders()
    assert not site.files()
    assert not generations.counter(base).exists()
    table = site.qcache('plan', site.image_id, f'--base={base}')
    assert re.search(r'\| kind +\| RECORD +\|', table.stdout), table.stdout


def test_an_image_id_in_capitals_is_the_same(site: Site, cache: dict[str, Any]) -> None:
    assert site.ask('show', site.image_id.upper()) == site.show()


def test_record_of_what_is_ready(site: Site, base: pathlib.Path, cache: dict[str, Any]) -> None:
    done = site.qcache('record', site.image_id, f'--base={base}')
    assert (done.returncode, done.stdout) == (1, ''), done
    (line,) = done.stderr.splitlines()
    assert 'READY' in line
    assert f'nova-qcache remove {site.image_id}' in line
    shown = site.show()
    assert {name: shown[name] for name in ('path', 'digest', 'sealed_at')} == {
        name: cache[name] for name in ('path', 'digest', 'sealed_at')
    }
    assert site.plan(base)['kind'] == 'PLAY'


def test_check(site: Site) -> None:
    findings = site.ask('check')
    *others, glance = findings
    assert {finding['grade'] for finding in others} == {'ok'}, findings
    assert (glance['subject'], glance['grade']) == ('glance', 'warning')
    assert 'glance_auth_section' in glance['remedy']  # there are no credentials here
    subjects = {finding['subject'] for finding in findings}
    assert {'qemu_storage_daemon', 'block drivers', 'reservation', 'O_DIRECT'} <= subjects
    assert not [path for path in site.cache_path.iterdir() if path.is_file()]
    table = site.qcache('check')
    assert table.returncode == 0
    assert 'qemu-img' in table.stdout


def test_root_acts_as_the_owner_of_the_caches(site: Site, base: pathlib.Path) -> None:
    """What root makes there, nova-compute could not read."""
    site.configure(qemu_group='')
    done = site.run(site.command('record', site.image_id, f'--base={base}'), users.ROOT)
    assert done.returncode == 0, done
    plan = {**site.show(), **site.plan(base)}
    assert [each.uids().effective for each in site.recorders()] == [users.PRODUCT.uid] * 2
    with NbdGuest(site, plan, users.PRODUCT) as guest:
        guest.require(base, 0, MIB)
        done = site.run(site.command('seal', site.image_id, '--wait'), users.ROOT)
        assert done.returncode == 0, done
    for path in (*site.cache_path.rglob('*'), *site.run_path.rglob('*')):
        facts = path.lstat()
        assert (facts.st_uid, facts.st_gid) == (users.PRODUCT.uid, users.PRODUCT.gid), path


# -- remove


def test_remove(site: Site, base: pathlib.Path, cache: dict[str, Any]) -> None:
    (row,) = site.ask('remove', site.image_id)
    assert row == {'image_id': site.image_id, 'generation': cache['generation']}
    assert not site.files()
    assert site.plan(base)['kind'] == 'RECORD'
    assert generations.counter(base).exists(), (
        'the generation goes with its base, not with a cache'
    )


def test_remove_under_a_playing_guest(
    site: Site, base: pathlib.Path, cache: dict[str, Any]
) -> None:
    before = site.files()
    with _reader(site, cache['path'], base) as reader:
        path = pathlib.Path(cache['path'])
        waiting.until(lambda: files.used_by_qemu(path), 'the reader')
        done = site.qcache('remove', site.image_id)
        assert (done.returncode, done.stdout) == (1, ''), done
        (line,) = done.stderr.splitlines()
        assert cache['path'] in line
        assert '--force' in line
        assert site.files() == before
        site.ask('remove', site.image_id, '--force')
        assert not site.files()
        assert 'read 4194304/4194304 bytes' in _read(reader)


@pytest.mark.parametrize('state', ['RECORDING', 'READY'])
def test_remove_under_a_recorder(site: Site, base: pathlib.Path, state: str) -> None:
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, 2 * MIB)
        if state == 'READY':
            site.ask('seal', site.image_id, '--wait')
        before = site.files()
        done = site.qcache('remove', site.image_id)
        assert (done.returncode, done.stdout) == (1, ''), done
        assert '--force' in done.stderr
        assert site.files() == before
        site.ask('remove', site.image_id, '--force')
        assert not site.files()
        guest.require(base, 0, 16 * MIB)
    site.see_off()
    assert not site.files()


def test_remove_of_a_recording_without_guests(site: Site, base: pathlib.Path) -> None:
    site.record(base)
    site.ask('remove', site.image_id)
    assert not site.files()
    waiting.until(lambda: not site.recorders(), 'the end of the recorder')


# -- invalidate


def test_invalidate(site: Site, base: pathlib.Path, cache: dict[str, Any]) -> None:
    before = generations.number(base)
    with _reader(site, cache['path'], base) as reader:
        (row,) = site.ask('invalidate', site.image_id, warnings=1)
        assert row['generation'] == cache['generation']
        assert generations.number(base) == before + 1
        assert site.show()['state'] == 'STALE'
        assert 'read 4194304/4194304 bytes' in _read(reader)
    plan = site.record(base)
    assert plan['kind'] == 'RECORD'
    assert plan['generation'] == cache['generation'].rpartition('.')[0] + f'.{before + 1}'
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, MIB)
        shown = site.ask('seal', site.image_id, '--wait')
    assert shown['generation'] == plan['generation']
    sealed.require_sound(site, shown, base, guests.file_node(base))
    assert site.plan(base)['cache'] == shown['path']


def test_invalidate_while_it_is_recorded(site: Site, base: pathlib.Path) -> None:
    plan = site.record(base)
    with NbdGuest(site, plan) as guest:
        guest.require(base, 0, 2 * MIB)
        site.ask('invalidate', site.image_id)
        guest.require(base, 2 * MIB, 2 * MIB)
        again = site.record(base)
        assert (again['kind'], again['socket'] == plan['socket']) == ('RECORD', False)
        with NbdGuest(site, again) as other:
            other.require(base, 0, MIB)
            shown = site.ask('seal', site.image_id, '--wait')
            assert shown['generation'] == again['generation']
    site.see_off()
    assert {row['state'] for row in site.ask('list')} == {'READY'}, 'half a recording was kept'


def test_invalidate_without_a_cache(site: Site, base: pathlib.Path) -> None:
    assert site.ask('invalidate', site.image_id, f'--base={base}') == []
    before = generations.number(base)
    assert site.ask('invalidate', site.image_id, f'--base={base}') == []
    assert generations.number(base) == before + 1
