# SPDX-License-Identifier: Apache-2.0
"""qemu-img: what is asked of it, and how its answers and failures are understood."""

import itertools
import json
import os
import pathlib
import subprocess
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.qemu import img
from nova_qcache.qemu.img import QemuImg
from nova_qcache.system import processes

PATH = pathlib.Path('/cache/file.recording')
RAW = {'driver': 'raw', 'read-only': True, 'file': {'driver': 'file', 'filename': '/base'}}
HELP = {
    # As Debian 12 has it; 8.2 and 9.2 print the same line.
    '7.2': """qemu-img version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)
Copyright (c) 2003-2022 Fabrice Bellard and the QEMU Project developers
usage: qemu-img [standard options] command [command options]

  'skip=N' skip N bs-sized blocks at the start of input

Supported formats: blkverify copy-on-read file nvme qcow2 quorum raw vvfat

See <https://qemu.org/contribute/report-a-bug> for how to report bugs.
More information on the QEMU project at <https://qemu.org>.
""",
    # As Debian 13 has it.
    '10.0': """qemu-img version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)
Copyright (c) 2003-2025 Fabrice Bellard and the QEMU Project developers
QEMU disk image utility.  Usage:

  snapshot - List or manipulate snapshots within image

Supported image formats:

  blkverify
  copy-on-read file nvme
  qcow2 quorum raw vvfat

See <https://qemu.org/contribute/report-a-bug> for how to report bugs.
More information on the QEMU project at <https://qemu.org>.
""",
}
DRIVERS = {'blkverify', 'copy-on-read', 'file', 'nvme', 'qcow2', 'quorum', 'raw', 'vvfat'}


@pytest.fixture
def run():
    with mock.patch.object(processes, 'run', autospec=True) as mocked:
        mocked.return_value = done()
        yield mocked


def done(stdout='', stderr='', code=0):
    return subprocess.CompletedProcess([], code, stdout, stderr)


def ran(run):
    """The one command that ran, with the JSON of its file names as objects."""
    run.assert_called_once()
    command = run.call_args.args[0]
    return [
        json.loads(word.removeprefix('json:')) if word.startswith('json:') else word
        for word in command
    ]


def test_run_returns_what_was_printed(run):
    run.return_value = done('an answer', 'a warning')
    assert img.run(['tool', 'x'], option='qemu_img') == 'an answer'
    assert run.call_args.kwargs['stdin'] is None


def test_run_gives_input(run):
    img.run(['tool'], option='qemu_img', stdin='read 0 1')
    assert run.call_args.kwargs['stdin'] == 'read 0 1'


@pytest.mark.parametrize(
    'error', [FileNotFoundError(2, 'No such file'), PermissionError(13, 'Permission denied')]
)
def test_a_tool_that_cannot_be_run(run, error):
    run.side_effect = error
    with pytest.raises(exception.ToolMissing) as caught:
        img.run(['/opt/qemu-io'], option='qemu_io')
    said = str(caught.value)
    assert f"'/opt/qemu-io' cannot be run: {error.strerror}" in said
    assert 'set [qcache] qemu_io to its path' in said
    assert 'qemu-utils' in said


def test_a_tool_that_hangs(run):
    run.side_effect = subprocess.TimeoutExpired('x', 7)
    with pytest.raises(exception.DeadlinePassed) as caught:
        img.run(['tool', 'check'], option='qemu_img', seconds=7)
    assert run.call_args.kwargs['seconds'] == 7
    assert 'tool check took longer than 7 s' in str(caught.value)
    assert 'Check whether the storage of its files hangs' in str(caught.value)


@pytest.mark.parametrize(
    ('answer', 'reason'),
    [
        (done(stderr='one\ntwo\n\n three \nfour\n', code=1), 'two / three / four'),
        (done(stdout='only here\n', code=1), 'only here'),
        (done(code=1), 'it printed no error'),
    ],
)
def test_a_tool_that_fails(run, answer, reason):
    run.return_value = answer
    with pytest.raises(exception.ToolFailed) as caught:
        img.run(['tool', 'check'], option='qemu_img')
    assert str(caught.value) == f"'tool check' failed with code 1: {reason}"


@pytest.mark.parametrize(
    ('banner', 'version'),
    [
        ('qemu-img version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright', (7, 2, 22)),
        ('qemu-img version 7.0', (7, 0)),
        ('qemu-img version 10.0.13', (10, 0, 13)),
        ('qemu-img version 8.2.0-rc1', (8, 2, 0)),
    ],
)
def test_versions(run, banner, version):
    run.return_value = done(banner)
    assert QemuImg('img').version() == version
    assert ran(run) == ['img', '--version']


@pytest.mark.parametrize('version', ['6.2.0', '2.11', '6.99.99'])
def test_versions_that_are_too_old(run, version):
    run.return_value = done(f'qemu-img version {version}')
    with pytest.raises(exception.ToolTooOld) as caught:
        QemuImg('img').version()
    assert (
        str(caught.value)
        == f"'img' is version {version}, but 7.0 or newer is needed. Upgrade QEMU."
    )


@pytest.mark.parametrize('banner', ['', 'BusyBox', 'version seven'])
def test_a_tool_that_is_another(run, banner):
    run.return_value = done(banner)
    with pytest.raises(exception.ToolMissing) as caught:
        img.require_version('img', 'qemu_img')
    assert repr(banner) in str(caught.value)
    assert 'set [qcache] qemu_img' in str(caught.value)


@pytest.mark.parametrize('version', HELP)
def test_drivers(run, version):
    run.return_value = done(HELP[version])
    assert QemuImg().drivers() == DRIVERS


def test_no_list_of_drivers(run):
    run.return_value = done('usage')
    assert QemuImg().drivers() == set()


def test_json_filename_has_no_node_name_and_changes_nothing():
    node = {'node-name': 'x', 'driver': 'file', 'filename': '/a "b"\n\udcff'}
    filename = img.json_filename(node)
    assert filename.startswith('json:')
    assert json.loads(filename[5:]) == {'driver': 'file', 'filename': '/a "b"\n\udcff'}
    assert node['node-name'] == 'x'


def test_info(run):
    run.return_value = done('{"virtual-size": 4096}')
    assert QemuImg('img').info(RAW) == {'virtual-size': 4096}
    assert ran(run) == ['img', 'info', '--output=json', RAW]


@pytest.mark.parametrize('answer', ['[]', 'null', 'nonsense', ''])
def test_info_that_is_no_object(run, answer):
    run.return_value = done(answer)
    with pytest.raises((exception.ToolFailed, ValueError)):
        QemuImg().info(RAW)


def test_first_bytes(run):
    QemuImg('img').first_bytes({'driver': 'nbd'}, 512)
    program, command, *options = run.call_args.args[0]
    assert (program, command) == ('img', 'dd')
    assert {'bs=512', 'count=1'} < set(options)
    source = next(option for option in options if option.startswith('if=json:'))
    assert json.loads(source[8:]) == {
        'driver': 'raw',
        'read-only': True,
        'file': {'driver': 'nbd'},
    }
    assert options[options.index('-f') + 1] == 'raw', 'a header is never interpreted here'


@pytest.mark.parametrize('there', [100_000, 700])
def test_first_bytes_wait_for_no_disk(tmp_path, monkeypatch, there):
    """qemu-img syncs what it has written."""
    base = tmp_path / 'base'
    base.write_bytes(bytes(range(100)) * (there // 100))
    places = []

    def look(command, **arguments):
        (place,) = (word[3:] for word in command if word.startswith('of='))
        places.append(os.readlink(place))
        return real(command, **arguments)

    real = img.run
    monkeypatch.setattr(img, 'run', look)
    node = {'driver': 'file', 'filename': str(base)}
    assert QemuImg().first_bytes(node, 65536).rstrip(b'\0') == base.read_bytes()[:65536]
    assert [place.startswith('/memfd:') for place in places] == [True]


def test_first_bytes_where_memory_is_never_run(run):
    """vm.memfd_noexec=2."""

    def memfd_create(name, flags=os.MFD_CLOEXEC):
        if not flags & 0x8:
            raise PermissionError(13, 'Permission denied')
        return os.open(os.devnull, os.O_RDONLY)

    with mock.patch.object(os, 'memfd_create', autospec=True, side_effect=memfd_create):
        assert QemuImg().first_bytes({'driver': 'nbd'}, 512) == b''


@pytest.mark.parametrize(('extended', 'word'), [(True, 'on'), (False, 'off')])
def test_create_cache(run, extended, word):
    QemuImg('img').create_cache(
        PATH,
        4096,
        backing='/base',
        backing_format='qcow2',
        cluster_size=65536,
        extended_l2=extended,
    )
    command = ran(run)
    assert command[:2] == ['img', 'create']
    assert command[-2:] == [str(PATH), '4096']
    options = dict(itertools.pairwise(command))
    assert {'cluster_size=65536', f'extended_l2={word}'} < set(options['-o'].split(','))
    assert (options['-f'], options['-b'], options['-F']) == ('qcow2', '/base', 'qcow2')
    assert '-u' in command, 'the base is not opened'


def test_check_repairs_nothing_and_needs_no_base(run):
    run.return_value = done('{"image-end-offset": 327680, "check-errors": 0}')
    assert QemuImg('img').check(PATH) == 327680
    command = ran(run)
    assert command[:2] == ['img', 'check']
    assert '-r' not in command
    assert command[-1] == {
        'driver': 'qcow2',
        'backing': None,
        'file': {'driver': 'file', 'filename': str(PATH)},
    }


@pytest.mark.parametrize('code', [1, 2, 3], ids=['failed', 'corrupt', 'leaks'])
def test_check_that_is_not_clean(run, code):
    run.return_value = done(stderr='1 errors were found', code=code)
    with pytest.raises(exception.ToolFailed, match='1 errors were found'):
        QemuImg().check(PATH)


def test_cached_extents_are_those_present(run):
    run.return_value = done(
        json.dumps(
            [
                {'start': 0, 'length': 4096, 'present': True, 'zero': False, 'data': True},
                {'start': 4096, 'length': 8192, 'present': False, 'zero': True, 'data': False},
                {'start': 12288, 'length': 4096, 'present': True, 'zero': True, 'data': False},
            ]
        )
    )
    assert QemuImg('img').cached_extents(PATH) == [(0, 4096), (12288, 4096)]
    assert ran(run)[:3] == ['img', 'map', '--output=json']


def test_extents_of_a_file_that_is_written(run):
    run.return_value = done('[]')
    assert QemuImg().cached_extents(PATH, is_written=True, seconds=9) == []
    assert ran(run)[-1] == {
        'driver': 'qcow2',
        'backing': None,
        'read-only': True,
        'force-share': True,
        'file': {'driver': 'file', 'filename': str(PATH)},
    }
    assert run.call_args.kwargs['seconds'] == 9


@pytest.mark.parametrize('answer', ['', 'nonsense', '[{"start": 0, "length": 4096}]', '{}x'])
def test_extents_that_cannot_be_understood(run, answer):
    run.return_value = done(answer)
    with pytest.raises(exception.ToolFailed):
        QemuImg().cached_extents(PATH)
