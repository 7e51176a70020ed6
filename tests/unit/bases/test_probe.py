# SPDX-License-Identifier: Apache-2.0
"""What a base must be before a guest reads it through a cache."""

import struct
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.bases import probe
from nova_qcache.qemu.img import QemuImg
from tests.unit.builders import MemorySource
from tests.unit.builders import MIB

BACKING_FILE = b'/etc/passwd'


def qcow2(backing=b'', incompatible=0, version=3):
    """The header of a qcow2 image of 1 MiB."""
    offset = 104 if backing else 0
    header = struct.pack(
        '>4sIQIIQIIQQIIQQQQII',
        b'QFI\xfb',
        version,
        offset,
        len(backing),
        16,
        MIB,
        0,
        1,
        0,
        0,
        1,
        0,
        0,
        incompatible,
        0,
        0,
        4,
        104,
    )
    return (header + backing).ljust(1024, b'\0')


GOOD = {'raw': b'\x33\xc0'.ljust(1024, b'\0'), 'qcow2': qcow2()}


@pytest.fixture
def tool():
    made = mock.create_autospec(QemuImg, instance=True)
    made.info.return_value = {'virtual-size': MIB}
    return made


def refusal(source, tool):
    with pytest.raises(exception.InvalidBase) as caught:
        probe.inspect(source, tool)
    said = str(caught.value)
    assert f'The base {source.reference!r} cannot be cached' in said
    return said


@pytest.mark.parametrize('base_format', GOOD)
def test_a_good_base(tool, base_format):
    source = MemorySource(base_format, GOOD[base_format])
    assert probe.inspect(source, tool) == MIB
    tool.info.assert_called_once_with(source.image_node())
    tool.first_bytes.assert_not_called()


@pytest.mark.parametrize('base_format', GOOD)
def test_first_bytes_that_take_qemu(tool, base_format):
    tool.first_bytes.return_value = GOOD[base_format]
    source = MemorySource(base_format, None)
    assert probe.inspect(source, tool) == MIB
    assert tool.first_bytes.call_args.args[0] == source.protocol_node()


@pytest.mark.parametrize(
    ('said', 'header', 'words'),
    [
        ('raw', GOOD['qcow2'], 'its format is given as raw, but it begins like qcow2'),
        ('qcow2', GOOD['raw'], 'its format is given as qcow2, but it does not begin like qcow2'),
        ('qcow2', b'QFI', 'does not begin like qcow2'),
    ],
)
def test_a_format_that_is_not_true(tool, said, header, words):
    refused = refusal(MemorySource(said, header), tool)
    assert words in refused
    assert 'Give its real format' in refused
    tool.info.assert_not_called()


@pytest.mark.parametrize(
    'header',
    [qcow2(BACKING_FILE), qcow2(incompatible=4), qcow2(BACKING_FILE, version=2)],
    ids=['backing file', 'data file', 'backing file of version 2'],
)
def test_an_image_that_names_other_files_is_never_opened(tool, header):
    refused = refusal(MemorySource('qcow2', header), tool)
    assert 'Convert it to an image that stands alone' in refused
    tool.info.assert_not_called()


@pytest.mark.parametrize(
    ('features', 'backing', 'words'),
    [
        (
            1 << 4,
            b'',
            '(extended_l2). Convert it with `qemu-img convert -O qcow2 -o extended_l2=off`',
        ),
        (1 << 4, BACKING_FILE, 'Convert it with `qemu-img convert -O qcow2 -o extended_l2=off`'),
        (1 << 5, b'', 'Convert it with `qemu-img convert -O qcow2`.'),
        (1 << 63, b'', 'Convert it with `qemu-img convert -O qcow2`.'),
    ],
)
def test_features_that_are_not_known(tool, features, backing, words):
    refused = refusal(MemorySource('qcow2', qcow2(backing, features)), tool)
    assert words in refused
    tool.info.assert_not_called()


def test_a_header_that_breaks_off(tool):
    refusal(MemorySource('qcow2', b'QFI\xfb\0\0'), tool)
    tool.info.assert_not_called()


@pytest.mark.parametrize('size', [0, -1, None, '4096'])
def test_no_size(tool, size):
    tool.info.return_value = {'virtual-size': size}
    refused = refusal(MemorySource('raw', GOOD['raw']), tool)
    assert 'it is empty' in refused
    assert 'Give an image with content' in refused


def test_an_encrypted_image(tool):
    tool.info.return_value = {'virtual-size': MIB, 'encrypted': True}
    refused = refusal(MemorySource('qcow2', GOOD['qcow2']), tool)
    assert 'it is encrypted' in refused
    assert 'Boot it without a cache' in refused


@pytest.mark.parametrize('asked', ['info', 'first_bytes'])
def test_what_qemu_cannot_reach(tool, asked):
    error = exception.ToolFailed(command='x', code=1, reason='Connection refused')
    getattr(tool, asked).side_effect = error
    header = None if asked == 'first_bytes' else GOOD['raw']
    refused = refusal(MemorySource('raw', header), tool)
    assert 'Connection refused' in refused
    assert 'Check whether it can be reached' in refused
