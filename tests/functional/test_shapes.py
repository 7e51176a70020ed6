# SPDX-License-Identifier: Apache-2.0
"""Bases of all shapes, and what bases and caches may lie on: a guest reads each byte as it is in
the base while it is recorded and when it is played, and the cache alone has all that was read.

Internal snapshots and bitmaps are in test_hostile_images.py.
"""

from collections.abc import Callable
import hashlib
import json
import mmap
import os
import pathlib
import subprocess
from typing import Any

import pytest

from tests.functional import bases
from tests.functional import file_systems
from tests.functional import guests
from tests.functional import sealed
from tests.functional import users
from tests.functional import waiting
from tests.functional.file_systems import FileSystem
from tests.functional.guests import NbdGuest
from tests.functional.site import MIB
from tests.functional.site import Site

_SECTOR = 512
_LONGEST_READ = 16 * MIB
_ODD = 5 * MIB + 511


def _require_recorded_and_played(
    site: Site, base: pathlib.Path, base_format: str, content: pathlib.Path
) -> dict[str, Any]:
    """Record all of a base, and play it.

    :param content: what guests must read of it, as a raw file
    """
    size = content.stat().st_size
    parts = [(at, min(_LONGEST_READ, size - at)) for at in range(0, size, _LONGEST_READ)]
    with NbdGuest(site, site.record(base, base_format)) as guest:
        for _ in range(2):
            for at, length in parts:
                guest.require(content, at, length)
        shown: dict[str, Any] = site.ask('seal', site.image_id, '--wait')
        for at, length in parts:
            guest.require(content, at, length)
    plan = site.boot_plan(base, base_format)
    assert (plan['kind'], plan['cache']) == ('PLAY', shown['path'])
    node = _direct(base)
    sealed.require_sound(site, shown, content, node, base_format)
    assert site.qcache('verify', site.image_id).returncode == 0
    # The proof that the bytes are the cache's: without its base it has them all.
    alone = {**guests.play_chain(shown['path'], None), 'backing': None}
    guests.require_equal(site, alone, content)
    # As a guest with cache=none has it.
    chain = guests.play_chain(shown['path'], node, base_format)
    chain['file'] = _direct(pathlib.Path(shown['path']))
    guests.require_equal(site, chain, content)
    return shown


def _direct(path: pathlib.Path) -> dict[str, Any]:
    return {'driver': 'file', 'filename': str(path), 'cache': {'direct': True}}


# -- raw


@pytest.mark.parametrize('size', [513, 1000, 20 * MIB + 511])
def test_a_raw_base_of_an_odd_size(site: Site, size: int) -> None:
    base = bases.make_raw(site, size)
    _require_recorded_and_played(site, base, 'raw', base)


# -- qcow2


@pytest.mark.parametrize(
    ('size', 'options'),
    [
        (5 * MIB, ('-o', 'compat=0.10')),
        (5 * MIB, ('-c', '-o', 'compression_type=zlib')),
        (5 * MIB, ('-c', '-o', 'compression_type=zstd')),
        (5 * MIB, ('-o', 'cluster_size=512')),
        (5 * MIB, ('-o', 'cluster_size=2M')),
        (3 * _SECTOR, ()),
        (5 * MIB + 7 * _SECTOR, ('-o', 'cluster_size=2M')),
    ],
    ids=lambda value: '-'.join(value[-1:]) if isinstance(value, tuple) else str(value),
)
def test_a_qcow2_base(site: Site, size: int, options: tuple[str, ...]) -> None:
    content = bases.make_raw(site, size)
    base = bases.make_qcow2(site, content, options=options)
    _require_recorded_and_played(site, base, 'qcow2', content)


def test_a_qcow2_base_of_64_tib(site: Site) -> None:
    """With data at its beginning, in its middle and at its end."""
    size = 64 << 40
    base = site.bases / 'base.qcow2'
    places = {0: 0x61, size // 2: 0x62, size - 65536: 0x63}
    command = ['qemu-img', 'create', '-q', '-f', 'qcow2', str(base), str(size)]
    subprocess.run(command, check=True, timeout=waiting.PATIENCE)
    command = ['qemu-io', '-f', 'qcow2', str(base)]
    for at, letter in places.items():
        command += ['-c', f'write -q -P {letter} {at} 65536']
    subprocess.run(command, check=True, timeout=waiting.PATIENCE)
    os.chown(base, users.PRODUCT.uid, users.PRODUCT.gid)

    def require(guest: NbdGuest) -> None:
        for at, letter in places.items():
            assert guest.read(at, 65536) == hashlib.sha256(bytes([letter]) * 65536).hexdigest()
        assert guest.read(size // 4, 65536) == hashlib.sha256(bytes(65536)).hexdigest()

    with NbdGuest(site, site.record(base, 'qcow2')) as guest:
        assert guest.greeting == f'connected {size}'
        require(guest)
        shown = site.ask('seal', site.image_id, '--wait')
        require(guest)
    assert site.plan(base, 'qcow2')['kind'] == 'PLAY'
    assert site.qcache('verify', site.image_id).returncode == 0
    chain = guests.play_chain(shown['path'], _direct(base), 'qcow2')
    for each in (chain, {**chain, 'backing': None}):
        command = ['qemu-io', '-r', f'json:{json.dumps(each)}']
        for at, letter in places.items():
            command += ['-c', f'read -P {letter} {at} 65536']
        done = site.run(command, users.GUEST)
        assert done.returncode == 0, done
        assert done.stdout.count('65536/65536') == len(places), done
        assert 'failed' not in done.stdout, done


# -- file systems

_EXT4 = FileSystem('ext4', 64, ('-q', '-b', '4096'))
_XFS = FileSystem('xfs', 320, ('-q', '-s', 'size=4096'))
_BTRFS = FileSystem('btrfs', 128, ('-q',))
_Make = Callable[[Site], tuple[pathlib.Path, str, pathlib.Path]]


def _raw(site: Site) -> tuple[pathlib.Path, str, pathlib.Path]:
    base = bases.make_raw(site, _ODD)
    return base, 'raw', base


def _qcow2_of_small_clusters(site: Site) -> tuple[pathlib.Path, str, pathlib.Path]:
    content = bases.make_raw(site, 5 * MIB + _SECTOR)
    return bases.make_qcow2(site, content, options=('-o', 'cluster_size=512')), 'qcow2', content


@pytest.mark.parametrize(
    'make', [_raw, _qcow2_of_small_clusters], ids=lambda make: make.__name__.removeprefix('_')
)
@pytest.mark.parametrize('kind', [_EXT4, _XFS], ids=str)
def test_a_base_on_4kn(site: Site, kind: FileSystem, make: _Make) -> None:
    """The recorder, and who plays, read it past the page cache, in whole sectors."""
    file_systems.mount(site, site.bases, kind)
    base, base_format, content = make(site)
    with pytest.raises(OSError, match='Invalid argument'):
        _read_directly(base, _SECTOR)
    assert len(_read_directly(base, 4096)) == 4096
    _require_recorded_and_played(site, base, base_format, content)


def _read_directly(path: pathlib.Path, length: int) -> bytes:
    """Read the beginning of a file with O_DIRECT."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, length) as aligned:
            return aligned[: os.readv(fd, [aligned])]
    finally:
        os.close(fd)


@pytest.mark.parametrize('kind', [_EXT4, _BTRFS], ids=str)
def test_a_cache_on(site: Site, kind: FileSystem) -> None:
    site.configure(quota=16)
    file_systems.mount(site, site.cache_path, kind)
    base = bases.make_raw(site, _ODD)
    shown = _require_recorded_and_played(site, base, 'raw', base)
    assert pathlib.Path(shown['path']).parent == site.cache_path
    assert os.path.ismount(site.cache_path)
