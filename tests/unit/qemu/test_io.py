# SPDX-License-Identifier: Apache-2.0
"""qemu-io as a comparer, played by a script that notes what it is asked and says what it must."""

import json
import pathlib
import subprocess
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.qemu import io
from nova_qcache.system import processes

ONE = {'driver': 'null-co', 'size': 1}
OTHER = {'driver': 'null-co', 'size': 2}
CHUNK = 1024 * 1024


def was_read(offset, length):
    """What qemu-io says of a range that is equal."""
    return f'read {length}/{length} bytes at offset {offset}\n4 KiB, 1 ops; 0 sec (1 GiB/sec)\n'


EQUAL = was_read(0, 4096)


class Player:
    """Makes a qemu-io that prints ``says``, keeps what it was told and ends with ``code``."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.program = folder / 'qemu-io'
        self.arguments = folder / 'arguments'
        self.commands = folder / 'commands'
        self.says = folder / 'says'

    def play(self, says: str, code: int = 0, ending: str = '') -> io.QemuIo:
        self.says.write_text(says)
        self.program.write_text(
            '#!/bin/sh\n'
            f'cat >{self.commands}\n'
            f'printf "%s\\n" "$@" >{self.arguments}\n'
            f'cat {self.says}\n'
            f'{ending}\n'
            f'exit {code}\n'
        )
        self.program.chmod(0o700)
        return io.QemuIo(str(self.program))


@pytest.fixture
def player(tmp_path):
    return Player(tmp_path)


def compare(tool, extents=((0, 4096),)):
    return tool.first_difference(ONE, OTHER, extents)


def test_equal(player):
    assert compare(player.play(EQUAL)) is None
    read_only, filename = player.arguments.read_text().splitlines()
    assert read_only == '-r'
    assert json.loads(filename.removeprefix('json:')) == {
        'driver': 'blkverify',
        'test': ONE,
        'raw': OTHER,
        'read-only': True,
    }


def test_the_other_one_is_read_slowly(player):
    assert player.play(EQUAL).first_difference(ONE, OTHER, [(0, 4096)], rate=5000) is None
    option, group, read_only, filename = player.arguments.read_text().splitlines()
    assert (option, read_only) == ('--object', '-r')
    assert group == 'throttle-group,id=rate,x-bps-read=5000'
    nodes = json.loads(filename.removeprefix('json:'))
    assert nodes['test'] == ONE
    assert nodes['raw'] == {'driver': 'throttle', 'throttle-group': 'rate', 'file': OTHER}


def test_every_byte_of_every_extent_is_read_once(player):
    extents = [(0, 4096), (8192, CHUNK), (10 * CHUNK, 2 * CHUNK + 512)]
    pieces = [
        (0, 4096),
        (8192, CHUNK),
        (10 * CHUNK, CHUNK),
        (11 * CHUNK, CHUNK),
        (12 * CHUNK, 512),
    ]
    assert compare(player.play(''.join(was_read(*piece) for piece in pieces)), extents) is None
    asked = player.commands.read_text().splitlines()
    assert asked == [f'read {offset} {length}' for offset, length in pieces]


def test_more_commands_than_a_pipe_holds(player):
    extents = [(8192 * i, 4096) for i in range(20_000)]
    says = ''.join(was_read(*extent) for extent in extents)
    assert compare(player.play(says), extents) is None
    assert len(player.commands.read_text().splitlines()) == 20_000


def test_what_was_not_read_was_not_compared(player):
    with pytest.raises(exception.ToolFailed, match='it compared 4096 of 8192 bytes'):
        compare(player.play(EQUAL), [(0, 4096), (8192, 4096)])


def test_nothing_to_compare(player):
    assert compare(player.play(''), []) is None
    assert player.commands.read_text() == ''


@pytest.mark.parametrize('offset', [0, 65536])
def test_a_difference(player, offset):
    says = (
        f'{EQUAL}blkverify: read sector_num=128 nb_sectors=8 '
        f'contents mismatch at offset {offset}\n'
    )
    assert compare(player.play(says, code=1)) == offset


def test_a_difference_is_told_at_once(player):
    says = 'blkverify: read offset=0 bytes=4096 contents mismatch at offset 512\n'
    assert compare(player.play(says, ending='exec sleep 1000')) == 512


def test_progress(player):
    seen: list[float] = []
    says = was_read(0, 4096) + was_read(8192, 512)
    player.play(says).first_difference(ONE, OTHER, [(0, 4096), (8192, 512)], seen.append)
    assert seen == [4096, 512]


@pytest.mark.parametrize(
    ('says', 'code'),
    [
        ('read failed: Input/output error\n', 0),
        ("qemu-io: can't open: Error reading\n", 1),
        ("qemu-io: can't open device /x: Permission denied\n", 1),
        ('', 1),
        (f'{EQUAL}read failed: No space', 0),
    ],
)
def test_what_cannot_be_read_is_no_answer(player, says, code):
    with pytest.raises(exception.ToolFailed) as caught:
        compare(player.play(says, code))
    assert says.strip().splitlines()[-1:] in ([], [caught.value.attributes['reason']])
    assert str(player.program) in str(caught.value)


def test_killed(player):
    with pytest.raises(exception.ToolFailed):
        compare(player.play(EQUAL, ending='kill -9 $$'))


def test_silence_has_an_end(player):
    with (
        mock.patch.object(io, '_STALL_SECONDS', 0.05),
        pytest.raises(exception.DeadlinePassed, match='Check whether the base hangs'),
    ):
        compare(player.play('', ending='exec sleep 1000'))


def test_no_program(tmp_path):
    with pytest.raises(exception.ToolMissing) as caught:
        compare(io.QemuIo(str(tmp_path / 'qemu-io')))
    assert f"'{tmp_path / 'qemu-io'}' cannot be run: No such file" in str(caught.value)
    assert 'set [qcache] qemu_io to its path' in str(caught.value)


# -- what can be read


def test_one_that_cannot_be_killed_is_left_behind(player):
    """Its disk hangs: whoever waited for it would never return."""
    wait = subprocess.Popen.wait

    def in_time(process, timeout=None):
        assert timeout is not None, 'for ever'
        return wait(process, timeout)

    with (
        mock.patch.object(subprocess.Popen, 'wait', autospec=True, side_effect=in_time),
        mock.patch.object(io, '_STALL_SECONDS', 0.1),
        pytest.raises(exception.DeadlinePassed),
    ):
        compare(player.play('', ending='exec sleep 60'))


def test_which_ranges_can_be_read(player):
    tool = player.play(
        f'{was_read(0, 4096)}read failed: Input/output error\n{was_read(8192, 512)}'
    )
    found = tool.readable(ONE, [(0, 4096), (4096, 4096), (8192, 512)], 60)
    assert found == {0: True, 4096: False, 8192: True}
    assert player.commands.read_text() == 'read 0 4096\nread 4096 4096\nread 8192 512\n'
    read_only, filename = player.arguments.read_text().splitlines()
    assert read_only == '-r'
    assert json.loads(filename.removeprefix('json:')) == ONE


def test_an_image_that_cannot_be_opened_gives_nothing(player):
    assert player.play('', code=1).readable(ONE, [(0, 4096)], 60) == {0: False}


@pytest.mark.parametrize('says', [None, f'{was_read(0, 512)}read failed: Input/output error\n'])
def test_what_was_said_before_an_image_hung_counts(says):
    """And of what comes after that nobody can say anything."""
    hung = subprocess.TimeoutExpired('qemu-io', 9, says and says.encode() + b'\xff')
    extents = [(at, 512) for at in range(0, 2560, 512)]
    with mock.patch.object(processes, 'run', autospec=True, side_effect=hung):
        found = io.QemuIo().readable(ONE, extents, 9)
    assert found == ({0: True, 512: False, 1024: False} if says else {0: False})


def test_readable_without_the_program():
    with pytest.raises(exception.ToolMissing, match='qemu_io'):
        io.QemuIo('/nonexistent/qemu-io').readable(ONE, [(0, 4096)], 60)
