# SPDX-License-Identifier: Apache-2.0
"""The backing file in a qcow2 header: as qemu-img writes it, and as nobody should."""

import os
import shutil
import struct
import subprocess

from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from nova_qcache import exception
from nova_qcache.qemu import overlay
from nova_qcache.qemu.overlay import Backing
from tests.unit.builders import MIB

BACKING_FORMAT = 0xE2792ACA
FEATURE_NAMES = 0x6803F857
VERSIONS = {'v2': 'compat=0.10', 'v3': 'compat=1.1'}
NAME = b'/base/image'

real = pytest.mark.skipif(shutil.which('qemu-img') is None, reason='qemu-img is not installed')


def create(path, *arguments, size='64M'):
    """Make an image with qemu-img; ``-u``: the base need not exist."""
    command = ['qemu-img', 'create', '-q', '-f', 'qcow2', *arguments, str(path), size]
    subprocess.run(command, check=True, capture_output=True)
    return path


def extension(kind, content, length=None):
    length = len(content) if length is None else length
    return struct.pack('>II', kind, length) + content + b'\0' * (-len(content) % 8)


END = extension(0, b'')
RAW = extension(BACKING_FORMAT, b'raw')


def header(extensions=RAW + END, name=NAME, version=3, **fields):
    """A header as small as can be, of which ``fields`` may be lies."""
    header_length = fields.get('header_length', 104)
    start = 72 if version == 2 else 104
    offset = fields.get('offset', start + len(extensions))
    length = fields.get('length', len(name))
    first = struct.pack('>4sIQIIQ', b'QFI\xfb', version, offset, length, 16, 64 * MIB)
    rest = first.ljust(72, b'\0')
    if version != 2:
        rest = rest.ljust(100, b'\0') + struct.pack('>I', header_length)
    return rest + extensions + name


@pytest.fixture
def image(tmp_path):
    """Write some bytes to a file and return what it stands on."""

    def look(content):
        path = tmp_path / 'disk'
        path.write_bytes(content)
        return overlay.backing(path)

    return look


def refusal(look, *arguments):
    with pytest.raises(exception.InvalidBase) as caught:
        look(*arguments)
    assert 'Its instance boots without a cache' in str(caught.value)
    return str(caught.value)


# -- as qemu-img writes it


@real
@pytest.mark.parametrize('base_format', ['raw', 'qcow2'])
@pytest.mark.parametrize('version', VERSIONS.values(), ids=VERSIONS)
def test_backing_file_and_format(tmp_path, version, base_format):
    path = create(tmp_path / 'disk', '-o', version, '-u', '-b', '/base/image', '-F', base_format)
    assert overlay.backing(path) == Backing('/base/image', base_format)


@real
@pytest.mark.parametrize('version', VERSIONS.values(), ids=VERSIONS)
def test_no_backing_file(tmp_path, version):
    assert overlay.backing(create(tmp_path / 'disk', '-o', version)) is None


@real
@pytest.mark.parametrize('version', VERSIONS.values(), ids=VERSIONS)
def test_no_backing_format(tmp_path, version):
    path = create(tmp_path / 'disk', '-o', version, '-u', '-b', '/base/image', '-F', 'raw')
    content = path.read_bytes()
    kind = struct.pack('>I', BACKING_FORMAT)
    assert content.count(kind) == 1
    path.write_bytes(content.replace(kind, struct.pack('>I', 0x12345678)))
    assert overlay.backing(path) == Backing('/base/image', '')


@real
@pytest.mark.parametrize(
    'name',
    [
        '/x',
        '/' + 'x' * 1022,
        '/' + '\N{SNOWMAN}' * 340,
        '/with blank "and" <more>',
        'relative.raw',
        'nbd://host/export',
    ],
    ids=lambda name: name[:9],
)
@pytest.mark.parametrize('version', VERSIONS.values(), ids=VERSIONS)
def test_names(tmp_path, version, name):
    path = create(tmp_path / 'disk', '-o', version, '-u', '-b', name, '-F', 'raw')
    assert overlay.backing(path) == Backing(name, 'raw')


@real
@pytest.mark.parametrize('options', ['cluster_size=512', 'cluster_size=2M', 'extended_l2=on'])
def test_layouts(tmp_path, options):
    path = create(tmp_path / 'disk', '-o', options, '-u', '-b', '/base/image', '-F', 'raw')
    assert overlay.backing(path) == Backing('/base/image', 'raw')


@real
def test_a_rebased_image(tmp_path):
    path = create(tmp_path / 'disk', '-u', '-b', '/base/image', '-F', 'raw')
    rebase = ['qemu-img', 'rebase', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b', '/other', str(path)]
    subprocess.run(rebase, check=True)
    assert overlay.backing(path) == Backing('/other', 'qcow2')
    subprocess.run([*rebase[:5], '-b', '', str(path)], check=True)
    assert overlay.backing(path) is None


# -- as nobody should write it


def test_the_smallest_header(image):
    assert image(header()) == Backing('/base/image', 'raw')
    assert image(header(version=2)) == Backing('/base/image', 'raw')


def test_a_longer_header_of_a_later_qemu(image):
    content = header(extensions=b'\1' * 8 + RAW + END, header_length=112)
    assert image(content) == Backing('/base/image', 'raw')


@pytest.mark.parametrize('extensions', [b'', END, RAW[:4], END + RAW])
def test_nothing_said_of_the_format(image, extensions):
    assert image(header(extensions)) == Backing('/base/image', '')


@pytest.mark.parametrize('length', [0, 1, 7, 8, 9])
def test_other_extensions_are_passed_over(image, length):
    other = extension(FEATURE_NAMES, b'\xe2' * length)
    assert image(header(other + RAW + END)) == Backing('/base/image', 'raw')


@pytest.mark.parametrize('length', [0, 1, 103, 104])
def test_a_header_length_that_is_too_small(image, length):
    try:
        found = image(header(header_length=length))
    except exception.InvalidBase:
        return
    assert found.path == '/base/image'


@pytest.mark.parametrize('length', [10**6, 2**32 - 1])
def test_a_header_length_that_is_too_large(image, length):
    assert image(header(header_length=length)) == Backing('/base/image', '')


@pytest.mark.parametrize('kind', [BACKING_FORMAT, FEATURE_NAMES])
@pytest.mark.parametrize('length', [17, 1000, 2**31, 2**32 - 1])
def test_an_extension_that_is_longer_than_the_header(image, kind, length):
    lie = extension(kind, b'raw', length) + END
    assert 'its header is damaged' in refusal(image, header(lie))


@pytest.mark.parametrize('length', [17, 1024, 2**32 - 1])
def test_a_name_that_is_longer_than_the_file(image, length):
    said = refusal(image, header(length=length))
    assert ('its header is damaged' in said) or (f'{length} bytes' in said)


@pytest.mark.parametrize('offset', [2**20, 2 * MIB + 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_name_beyond_the_file(image, offset):
    assert 'its header is damaged' in refusal(image, header(offset=offset))


def test_a_name_far_beyond_the_first_cluster_is_not_read(tmp_path):
    path = tmp_path / 'disk'
    path.write_bytes(header(offset=2**40))
    os.truncate(path, 2**41)
    assert 'its header is damaged' in refusal(overlay.backing, path)


@pytest.mark.parametrize('name', [b'/base\0/image', b'\xff\xfe', b'/\xed\xa0\x80'])
def test_no_name(image, name):
    assert 'its header is damaged' in refusal(image, header(name=name))


def test_a_name_without_a_letter_is_none(image):
    assert image(header(name=b'')) is None


def test_a_format_that_is_no_text(image):
    assert image(header(extension(BACKING_FORMAT, b'\xff\xfe') + END)).format not in (
        'raw',
        'qcow2',
        '',
    )


@real
def test_every_truncation(tmp_path, image):
    """Whatever the length, a base that is not the overlay's is never named."""
    whole = create(tmp_path / 'x', '-u', '-b', '/base/image', '-F', 'raw').read_bytes()
    end = whole.index(NAME) + len(NAME)
    for length in range(end):
        refusal(image, whole[:length])
    assert image(whole[:end]) == Backing('/base/image', 'raw')


OTHERS = {
    'empty': b'',
    'raw': b'\0' * 4096,
    'an MBR': b'\xeb\x63\x90'.ljust(510, b'\0') + b'\x55\xaa',
    'VMDK': b'KDMV'.ljust(512, b'\0'),
    'another magic': b'QFI\xfa' + header()[4:],
    'qcow': header(version=1),
    'version 0': header(version=0),
}


@pytest.mark.parametrize('content', OTHERS.values(), ids=OTHERS)
def test_no_qcow2(image, content):
    said = refusal(image, content)
    assert ('it is not a qcow2 image' in said) or not content


def test_what_cannot_be_read(tmp_path):
    assert 'No such file' in refusal(overlay.backing, tmp_path / 'gone')
    assert 'Is a directory' in refusal(overlay.backing, tmp_path)
    assert 'too long' in refusal(overlay.backing, tmp_path / ('x' * 300))
    refusal(overlay.backing, tmp_path / 'x\0y')
    refusal(overlay.backing, tmp_path / '\ud800')


def look_without_surprise(image, content):
    try:
        found = image(content)
    except exception.InvalidBase:
        return
    assert found is None or (found.path and '\0' not in found.path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 5),
    st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1)),
    st.one_of(st.integers(0, 1100), st.integers(0, 2**32 - 1)),
    st.one_of(st.integers(0, 300), st.integers(0, 2**32 - 1)),
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, BACKING_FORMAT, FEATURE_NAMES]),
            st.binary(max_size=20),
            st.none() | st.integers(0, 2**32 - 1),
        ),
        max_size=4,
    ),
    st.binary(max_size=30),
)
def test_any_lies(image, version, offset, length, header_length, extensions, name):
    parts = b''.join(extension(*each) for each in extensions)
    lies = {'offset': offset, 'length': length, 'header_length': header_length}
    look_without_surprise(image, header(parts, name, version, **lies))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes(image, content):
    look_without_surprise(image, content)
    look_without_surprise(image, b'QFI\xfb\0\0\0\3' + content)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 160), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_damage(image, changes):
    content = bytearray(header().ljust(256, b'\0'))
    for at, value in changes:
        content[at] = value
    look_without_surprise(image, bytes(content))
