# SPDX-License-Identifier: Apache-2.0
"""Quotas, bases, image IDs and tools that make no sense: one line that says so, nothing left."""

import os
import pathlib
import subprocess

import pytest

from tests.functional import bases
from tests.functional import hostile
from tests.functional import users
from tests.functional.refusals import require_nothing_left
from tests.functional.refusals import require_plain_boot
from tests.functional.refusals import require_refused
from tests.functional.refusals import require_unfit
from tests.functional.site import MIB
from tests.functional.site import Site


def _record(
    site: Site, base: object, base_format: str = 'raw', *more: str
) -> 'subprocess.CompletedProcess[str]':
    arguments = [f'--base={base}', f'--base-format={base_format}', *more]
    return site.qcache('record', site.image_id, *arguments)


# -- quotas


@pytest.mark.parametrize(
    ('mib', 'said'),
    [
        ('0', 'quota of 0 bytes'),
        (str(10**15), str(10**15 * MIB)),
        ('9999999P', str(9999999 << 50)),
    ],
)
def test_quota(site: Site, base: pathlib.Path, mib: str, said: str) -> None:
    require_refused(site, _record(site, base, 'raw', f'--quota={mib}'), said, '[qcache] quota')
    site.configure(quota=mib)
    require_refused(site, _record(site, base), '[qcache] quota')
    site.configure(quota=64)


def test_quota_of_less_than_a_cluster(site: Site, base: pathlib.Path) -> None:
    site.configure(quota=1, cluster_size=2 * MIB)
    require_refused(site, _record(site, base), str(MIB), str(2 * MIB), 'quota', 'cluster_size')


def test_quota_of_less_than_the_tables(site: Site) -> None:
    base = bases.make_raw(site, 4096)
    os.truncate(base, 1 << 40)
    require_refused(site, _record(site, base, 'raw', '--quota=1'), str(MIB), 'quota')


@pytest.mark.core
def test_quota_of_more_than_the_file_system(site: Site, base: pathlib.Path) -> None:
    site.mount(site.cache_path, '-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', user=users.PRODUCT)
    done = _record(site, base, 'raw', '--quota=17')
    require_refused(site, done, str(17 * MIB), str(site.cache_path), 'lower [qcache] quota')
    require_plain_boot(site, base)
    require_nothing_left(site)


# -- bases


def _missing(site: Site) -> tuple[pathlib.Path, str, str]:
    return site.bases / 'nowhere.raw', 'raw', 'No such file'


def _unreadable(site: Site) -> tuple[pathlib.Path, str, str]:
    path = bases.make_raw(site, MIB)
    os.chown(path, 0, 0)
    path.chmod(0o600)
    return path, 'raw', 'Permission denied'


def _empty(site: Site) -> tuple[pathlib.Path, str, str]:
    return bases.make_raw(site, 0), 'raw', 'empty'


def _folder(site: Site) -> tuple[pathlib.Path, str, str]:
    return site.bases, 'raw', 'not a regular file'


def _fifo(site: Site) -> tuple[pathlib.Path, str, str]:
    path = site.bases / 'fifo'
    os.mkfifo(path)
    path.chmod(0o666)
    return path, 'raw', 'not a regular file'


def _qcow2_said_to_be_raw(site: Site) -> tuple[pathlib.Path, str, str]:
    return bases.make_qcow2(site, bases.make_raw(site, MIB)), 'raw', 'format'


def _raw_said_to_be_qcow2(site: Site) -> tuple[pathlib.Path, str, str]:
    return bases.make_raw(site, MIB), 'qcow2', 'format'


def _broken_qcow2(site: Site) -> tuple[pathlib.Path, str, str]:
    path = bases.make_raw(site, MIB)
    with open(path, 'r+b') as file:
        file.write(b'QFI\xfb')
    return path, 'qcow2', ''


def _backing_file(site: Site) -> tuple[pathlib.Path, str, str]:
    lower = bases.make_raw(site, MIB)
    path = hostile.create(site, 'b.qcow2', '-f', 'qcow2', '-b', str(lower), '-F', 'raw', '1M')
    return path, 'qcow2', 'backing'


def _data_file(site: Site) -> tuple[pathlib.Path, str, str]:
    option = f'data_file={site.bases / "data.raw"},data_file_raw=on'
    return hostile.create(site, 'd.qcow2', '-f', 'qcow2', '-o', option, '1M'), 'qcow2', 'data'


def _encrypted(site: Site) -> tuple[pathlib.Path, str, str]:
    return hostile.make_luks(site), 'qcow2', 'encrypt'


def _extended_l2(site: Site) -> tuple[pathlib.Path, str, str]:
    path = hostile.create(site, 'e.qcow2', '-f', 'qcow2', '-o', 'extended_l2=on', '1M')
    return path, 'qcow2', '`qemu-img convert -O qcow2 -o extended_l2=off`'


_BASES = [
    *(_missing, _unreadable, _empty, _folder, _fifo),
    *(_qcow2_said_to_be_raw, _raw_said_to_be_qcow2, _broken_qcow2),
    *(_backing_file, _data_file, _encrypted, _extended_l2),
]


@pytest.mark.parametrize('make', _BASES, ids=lambda make: make.__name__[1:])
def test_base(site: Site, make: bases.Maker) -> None:
    base, base_format, said = make(site)
    require_refused(site, _record(site, base, base_format), str(base), said)


def test_a_boot_with_a_bad_base_is_plain(site: Site) -> None:
    for make in (_empty, _backing_file):
        base, base_format, said = make(site)
        plan = site.boot_plan(base, base_format)
        assert plan['kind'] == 'PLAIN'
        assert str(base) in plan['reason']
        assert said in plan['reason']
        require_nothing_left(site)


_SERVED = [
    *(_empty, _qcow2_said_to_be_raw, _raw_said_to_be_qcow2, _broken_qcow2),
    *(_backing_file, _data_file, _encrypted),
]


@pytest.mark.parametrize('make', _SERVED, ids=lambda make: make.__name__[1:])
def test_base_over_nbd(site: Site, serve: bases.Serve, make: bases.Maker) -> None:
    base, base_format, said = make(site)
    uri = serve(base).uri
    require_refused(site, _record(site, uri, base_format), uri, said)


@pytest.mark.parametrize('kind', ['tcp', 'unix', 'export'])
def test_no_nbd_server(site: Site, serve: bases.Serve, kind: str) -> None:
    if kind == 'export':
        # nbdkit's file plugin serves one file under any name: qemu-nbd is the one that refuses.
        uri = bases.QemuNbd(site, bases.make_raw(site, MIB), 'here').uri.replace('here', 'gone')
    else:
        server = serve(bases.make_raw(site, MIB), tcp=kind == 'tcp')
        server.stop()
        uri = server.uri
    require_refused(site, _record(site, uri), uri)


@pytest.mark.parametrize(
    ('base', 'said'),
    [
        ('base.raw', 'absolute'),
        ('', 'absolute'),
        ('/two\nlines.raw', ''),
        ('ftp://host/base.raw', 'ftp'),
        ('nbd://', 'host'),
        ('nbd://host:port/', 'port'),
        ('nbd+unix:///export', 'socket'),
        ('json:{"driver": "null-co", "size": 1048576}', 'absolute'),
        ('file://host/base.raw', 'absolute'),
        ('/no\udcffutf-8', 'not UTF-8'),
    ],
)
def test_reference(site: Site, base: str, said: str) -> None:
    require_refused(site, _record(site, base), said, repr(base))


# -- image IDs

_IDS = ['../x', 'a/b', 'a' * 300, '', '.', '11111111/2222-3333-4444-555555555555', 'x' * 36]
_VERBS = [
    *(('record', '--base=/b'), ('plan', '--base=/b'), ('show',), ('seal',), ('verify',)),
    *(('invalidate',), ('remove',), ('remove', '--force')),
]


@pytest.mark.parametrize('image_id', _IDS)
def test_image_id(site: Site, image_id: str) -> None:
    done = site.qcache('record', '--base=/b', image_id)
    require_refused(site, done, repr(image_id[:70])[:-1], 'UUID')


@pytest.mark.parametrize('verb', _VERBS, ids=' '.join)
def test_image_id_everywhere(site: Site, verb: tuple[str, ...]) -> None:
    require_refused(site, site.qcache(*verb, '../x'), "'../x'", 'UUID')


@pytest.mark.parametrize('image_id', ['\0', 'x\0y', '11111111-2222-3333-4444-55555555555\0'])
def test_image_id_with_a_nul(site: Site, base: pathlib.Path, image_id: str) -> None:
    site.image_id = image_id
    plan = site.boot_plan(base)
    assert plan['kind'] == 'PLAIN'
    assert 'UUID' in plan['reason']
    require_nothing_left(site)


# -- options


@pytest.mark.parametrize('name', ['cache_path', 'run_path', 'instances_path'])
def test_a_folder_that_is_not_absolute(site: Site, base: pathlib.Path, name: str) -> None:
    site.configure(**{name: 'here'})
    for done in (_record(site, base), site.qcache('list'), site.qcache('remove', site.image_id)):
        require_refused(site, done, f"[qcache] {name} = 'here'", 'Give a path from the root')


def test_a_libvirt_that_does_not_tell(site: Site) -> None:
    site.configure(libvirt_uri='nowhere:///')
    kept = site.cache_path / f'{site.image_id}.0123456789ab.1.qcow2'
    kept.touch()
    done = site.qcache('remove', site.image_id)
    assert (done.returncode, done.stdout) == (1, ''), done
    (line,) = done.stderr.splitlines()
    for words in (str(kept), 'nowhere:///', '[qcache] libvirt_uri', '--force'):
        assert words in line, done
    assert kept.exists()
    site.ask('remove', site.image_id, '--force')
    require_nothing_left(site)


def test_a_misspelt_option(site: Site) -> None:
    site.configure(qouta=5)
    found = {row['subject']: row for row in site.ask('check')}
    assert found['options']['grade'] == 'warning'
    assert f'no option qouta ({site.config}); ' in found['options']['found']
    assert found['options']['remedy'] == 'Did you mean quota?'
    assert found['configuration']['found'] == f'read from {site.config}'


@pytest.mark.parametrize(
    ('option', 'value', 'said'),
    [
        (
            'quota',
            '512Mb',
            'it is not an amount. Give a number of MiB, or one with a unit, such as',
        ),
        ('max_recorders', 'many', 'it is not a whole number from 1. '),
        ('start_keeper', 'perhaps', 'it is not True or False. '),
    ],
)
def test_a_value_that_is_none(
    site: Site, base: pathlib.Path, option: str, value: str, said: str
) -> None:
    site.configure(**{option: value})
    require_refused(site, _record(site, base), f'[qcache] {option} = {value!r}: {said}')
    require_refused(site, site.qcache('list'), f'[qcache] {option} = {value!r}: {said}')


# -- tools


@pytest.mark.parametrize('tool', ['qemu_storage_daemon', 'qemu_img'])
def test_a_tool_is_missing(site: Site, base: pathlib.Path, tool: str) -> None:
    site.configure(**{tool: '/nowhere/tool'})
    require_refused(site, _record(site, base), '/nowhere/tool', f'[qcache] {tool}')
    require_unfit(site, tool, '/nowhere/tool')


def test_the_comparing_tool_is_missing(site: Site) -> None:
    site.configure(qemu_io='/nowhere/tool')
    require_unfit(site, 'qemu_io', '/nowhere/tool')


def test_a_daemon_is_too_old(site: Site, base: pathlib.Path) -> None:
    script = '#!/bin/sh\necho "qemu-storage-daemon version 6.0.0 (old)"\n'
    path = str(site.program('old', script))
    site.configure(qemu_storage_daemon=path)
    require_unfit(site, 'qemu_storage_daemon', '6.0.0', path)
    require_refused(site, _record(site, base), path)


@pytest.mark.parametrize('tool', ['qemu_img', 'qemu_io'])
def test_a_tool_is_too_old(site: Site, tool: str) -> None:
    name = tool.replace('_', '-')
    script = f'#!/bin/sh\n[ "$1" = --version ] || exec {name} "$@"\necho "{name} version 6.0.0"\n'
    path = str(site.program('old', script))
    site.configure(**{tool: path})
    require_unfit(site, tool, '6.0.0', path)


def test_a_qemu_without_a_driver(site: Site) -> None:
    wrapper = '#!/bin/sh\nqemu-img "$@" | sed "s/ quorum / /"\n'
    site.configure(qemu_img=str(site.program('without', wrapper)))
    require_unfit(site, 'block drivers', 'quorum')


_OTHER_GRAPH = """
import sys
from nova_qcache.qemu import block_graph
from nova_qcache.cmd import recorder
recording = block_graph.recording
def other(*arguments):
    return [
        {**node, 'driver': 'no-such-driver'} if node['driver'] == 'quorum' else node
        for node in recording(*arguments)
    ]
block_graph.recording = other
sys.exit(recorder.main(sys.argv[1:]))
"""


def test_a_daemon_without_a_driver(site: Site, base: pathlib.Path) -> None:
    """The daemon is asked for a driver that no qemu has: what it says is understood."""
    done = site.run(
        [
            *(site.product.python, '-c', _OTHER_GRAPH, f'--config-file={site.config}'),
            *(f'--base={base}', site.image_id),
        ]
    )
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert 'no-such-driver' in line
    assert 'Install' in line
    require_nothing_left(site)
