# SPDX-License-Identifier: Apache-2.0
"""Images that would harm the host: what stock Nova refuses is refused here, and what it takes is
read as it reads it. Whatever an image names, nothing but the image is opened.

Stock Nova's judgement is ``safety_check()`` of oslo.utils' image inspector, which these tests ask
beside the product. The plainest ones are in test_bad_input.py: backing and data file, LUKS, an
image of another format than it is said to be.
"""

from collections.abc import Callable
import json
import pathlib
import subprocess

from oslo_utils.imageutils import format_inspector
import pytest

from tests.functional import bases
from tests.functional import guests
from tests.functional import hostile
from tests.functional import sealed
from tests.functional.guests import NbdGuest
from tests.functional.refusals import require_nothing_left
from tests.functional.refusals import require_refused
from tests.functional.site import MIB
from tests.functional.site import Site

_DATA_FILE = 0x44415441
_BACKING_FORMAT = 0xE2792ACA
_BACKING_FILE_AT = 8
_L1_AT = 40
_SNAPSHOTS_AT = 60
_FEATURES_AT = 72

Harm = Callable[[Site, pathlib.Path], pathlib.Path]
"""Makes an image that names the canary if it names anything."""


def _empty(site: Site) -> pathlib.Path:
    return hostile.create(site, 'hostile.qcow2', '-f', 'qcow2', '4M')


def _full(site: Site) -> pathlib.Path:
    return bases.make_qcow2(site, bases.make_raw(site, 4 * MIB, 'full.raw'), 'hostile.qcow2')


def _name_backing_file(path: pathlib.Path, name: bytes, length: int | None = None) -> pathlib.Path:
    # In the first cluster, behind the extensions of the header.
    hostile.patch(path, 1024, f'>{len(name)}s', name)
    size = len(name) if length is None else length
    hostile.patch(path, _BACKING_FILE_AT, '>QI', 1024, size)
    return path


# -- what stock Nova refuses


def _backing_file_by_hand(site: Site, canary: pathlib.Path) -> pathlib.Path:
    return _name_backing_file(_empty(site), str(canary).encode())


def _backing_file_in_json(site: Site, canary: pathlib.Path) -> pathlib.Path:
    name = json.dumps({'driver': 'raw', 'file': guests.file_node(canary)})
    return _name_backing_file(_empty(site), f'json:{name}'.encode())


def _backing_file_of_an_old_version(site: Site, canary: pathlib.Path) -> pathlib.Path:
    path = hostile.create(site, 'hostile.qcow2', '-f', 'qcow2', '-o', 'compat=0.10', '4M')
    return _name_backing_file(path, str(canary).encode())


def _backing_file_with_a_long_name(site: Site, canary: pathlib.Path) -> pathlib.Path:
    """1023 bytes is qemu's limit."""
    return _name_backing_file(_empty(site), str(canary).encode().rjust(1024, b'/'))


def _backing_file_with_an_endless_name(site: Site, canary: pathlib.Path) -> pathlib.Path:
    return _name_backing_file(_empty(site), str(canary).encode(), 0xFFFFFFFF)


def _patched(at: int, form: str, *values: int) -> Harm:
    """Make an empty image with other numbers at a place of its header."""

    def make(site: Site, canary: pathlib.Path) -> pathlib.Path:
        path = _empty(site)
        hostile.patch(path, at, form, *values)
        return path

    return make


_data_file_without_a_name = _patched(_FEATURES_AT, '>Q', 1 << 2)


def _data_file_by_hand(site: Site, canary: pathlib.Path) -> pathlib.Path:
    path = _data_file_without_a_name(site, canary)
    hostile.add_extension(path, _DATA_FILE, str(canary).encode())
    return path


def _version_of_the_past(site: Site, canary: pathlib.Path) -> pathlib.Path:
    return hostile.create(site, 'hostile.qcow2', '-f', 'qcow', '4M')


_REFUSED: dict[str, Harm] = {
    'backing_file_by_hand': _backing_file_by_hand,
    'backing_file_in_json': _backing_file_in_json,
    'backing_file_of_an_old_version': _backing_file_of_an_old_version,
    'backing_file_with_a_long_name': _backing_file_with_a_long_name,
    'backing_file_with_an_endless_name': _backing_file_with_an_endless_name,
    # Its name is said to lie far behind the end of the image.
    'backing_file_elsewhere': _patched(_BACKING_FILE_AT, '>QI', 1 << 62, 100),
    'data_file_without_a_name': _data_file_without_a_name,
    'data_file_by_hand': _data_file_by_hand,
    'unknown_features': _patched(_FEATURES_AT, '>Q', 1 << 63),
    'unknown_feature_next_to_the_known': _patched(_FEATURES_AT, '>Q', 1 << 5),
    'version_of_the_future': _patched(4, '>I', 4),
    'version_of_the_past': _version_of_the_past,
}


def _is_safe_for_nova(path: pathlib.Path) -> bool:
    inspector = format_inspector.detect_file_format(str(path))
    assert inspector is not None
    assert str(inspector) == 'qcow2'
    try:
        inspector.safety_check()
    except format_inspector.SafetyCheckFailed:
        return False
    return True


def _record(site: Site, base: pathlib.Path) -> 'subprocess.CompletedProcess[str]':
    return site.qcache('record', site.image_id, f'--base={base}', '--base-format=qcow2')


def _require_plain(site: Site, base: pathlib.Path) -> None:
    plan = site.boot_plan(base, 'qcow2')
    assert (plan['kind'], plan['cache'], plan['socket']) == ('PLAIN', None, None), plan
    assert str(base) in plan['reason'], plan
    require_nothing_left(site)


@pytest.mark.core
@pytest.mark.parametrize('make', _REFUSED.values(), ids=_REFUSED)
def test_what_nova_refuses(site: Site, make: Harm) -> None:
    with hostile.Canary(site) as canary:
        base = make(site, canary.path)
        canary.was_opened()  # by qemu-img, perhaps, when it made the image
        assert not _is_safe_for_nova(base)
        require_refused(site, _record(site, base), str(base), 'cannot be cached')
        _require_plain(site, base)
        assert not canary.was_opened()


@pytest.mark.core
def test_the_canary_notices(site: Site) -> None:
    """Or else the others prove nothing."""
    with hostile.Canary(site) as canary:
        assert not canary.was_opened()
        base = _backing_file_by_hand(site, canary.path)
        site.run(['qemu-io', '-r', '-f', 'qcow2', '-c', 'read 0 512', str(base)])
        assert canary.was_opened()


# -- what stock Nova takes, and qemu does not


def _huge(site: Site, canary: pathlib.Path) -> pathlib.Path:
    """The largest disk that qcow2 has with clusters of this size: no cache has room for it."""
    return hostile.create(site, 'hostile.qcow2', '-f', 'qcow2', '-o', 'cluster_size=2M', '64P')


_IMPOSSIBLE: dict[str, Harm] = {
    'huge': _huge,
    'largest_number': _patched(24, '>Q', (1 << 64) - 1),
    'encrypted_the_old_way': _patched(32, '>I', 1),
    'unknown_encryption': _patched(32, '>I', 77),
    'endless_table': _patched(_L1_AT - 4, '>I', 0x7FFFFFFF),
    'no_table': _patched(_L1_AT - 4, '>IQ', 0, 0),
    'endless_snapshots': _patched(_SNAPSHOTS_AT, '>IQ', 0xFFFFFFFF, 0x10000),
    'clusters_of_2_to_the_63': _patched(20, '>I', 63),
}


@pytest.mark.parametrize('make', _IMPOSSIBLE.values(), ids=_IMPOSSIBLE)
def test_what_qemu_refuses(site: Site, make: Harm) -> None:
    with hostile.Canary(site) as canary:
        base = make(site, canary.path)
        assert _is_safe_for_nova(base)
        done = _record(site, base)
        require_refused(site, done)
        plan = site.boot_plan(base, 'qcow2')
        assert plan['kind'] == 'PLAIN', plan
        require_nothing_left(site)
        assert not canary.was_opened()


# -- what stock Nova takes, and a guest can read


def _snapshots(site: Site, canary: pathlib.Path) -> pathlib.Path:
    """An older state in the same file. Nothing opens it: it is no other file, and a guest's chain
    names no snapshot. What a guest reads is the state of now."""
    path = _full(site)
    subprocess.run(['qemu-img', 'snapshot', '-c', 'before', str(path)], check=True)
    command = ['qemu-io', '-f', 'qcow2', '-c', 'write -P 0x5a 0 1M', str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def _bitmaps(site: Site, canary: pathlib.Path) -> pathlib.Path:
    """Notes on which clusters were written. They have no data, and are only changed by who writes
    to the image; nobody does."""
    path = _full(site)
    subprocess.run(['qemu-img', 'bitmap', '--add', '--enable', str(path), 'notes'], check=True)
    return path


def _data_file_that_is_not_used(site: Site, canary: pathlib.Path) -> pathlib.Path:
    """The name of a data file, but the header does not say that there is one."""
    path = _full(site)
    hostile.add_extension(path, _DATA_FILE, str(canary).encode())
    return path


def _format_of_no_backing_file(site: Site, canary: pathlib.Path) -> pathlib.Path:
    path = _full(site)
    hostile.add_extension(path, _BACKING_FORMAT, b'raw')
    return path


def _table_behind_the_end(site: Site, canary: pathlib.Path) -> pathlib.Path:
    """What is behind the end of a file is zeros: a table without entries, a disk of zeros."""
    path = _full(site)
    table = hostile.read_number(path, _L1_AT, '>Q')
    hostile.patch(path, table, '>Q', (1 << 63) | (1 << 40))
    return path


def _left_dirty(site: Site, canary: pathlib.Path) -> pathlib.Path:
    """Its counts of references may be wrong; only who writes needs them."""
    path = _full(site)
    hostile.patch(path, _FEATURES_AT, '>Q', 1)
    return path


_HARMLESS: dict[str, Harm] = {
    'snapshots': _snapshots,
    'bitmaps': _bitmaps,
    'data_file_that_is_not_used': _data_file_that_is_not_used,
    'format_of_no_backing_file': _format_of_no_backing_file,
    'table_behind_the_end': _table_behind_the_end,
    'left_dirty': _left_dirty,
}


def _content(base: pathlib.Path) -> pathlib.Path:
    """Return what a guest of stock Nova reads of it, as a raw file."""
    raw = base.with_suffix('.content')
    command = ['qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', str(base), str(raw)]
    subprocess.run(command, check=True)
    return raw


@pytest.mark.parametrize('make', _HARMLESS.values(), ids=_HARMLESS)
def test_what_is_harmless(site: Site, make: Harm) -> None:
    """Guests read the bytes that they would read without a cache, and nothing else is opened."""
    with hostile.Canary(site) as canary:
        base = make(site, canary.path)
        content = _content(base)
        before = base.read_bytes()
        canary.was_opened()
        assert _is_safe_for_nova(base)
        with NbdGuest(site, site.record(base, 'qcow2')) as guest:
            guest.require(content, 0, 4 * MIB)
            shown = site.ask('seal', site.image_id, '--wait')
            guest.require(content, 0, 4 * MIB)
        assert site.plan(base, 'qcow2')['kind'] == 'PLAY'
        node = guests.file_node(base)
        sealed.require_sound(site, shown, content, node, base_format='qcow2')
        assert base.read_bytes() == before
        assert not canary.was_opened()


def test_a_table_that_is_corrupt(site: Site) -> None:
    """An entry that points into the middle of a cluster: stock qemu answers reads with an error,
    and so does a recorder. What can be read is right, and such a base is left as it is."""
    base = _full(site)
    # The second table of the disk: for its upper half, with clusters of 4 KiB.
    raw = base.parent / 'full.raw'
    command = ['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', '-o', 'cluster_size=4k']
    subprocess.run([*command, str(raw), str(base)], check=True)
    table = hostile.read_number(base, _L1_AT, '>Q')
    entry = hostile.read_number(base, table + 8, '>Q')
    hostile.patch(base, table + 8, '>Q', entry | 0x200)
    before = base.read_bytes()
    with NbdGuest(site, site.record(base, 'qcow2')) as guest:
        guest.require(raw, 0, 2 * MIB)
        assert guest.read(2 * MIB, 65536).startswith('error')
        plan = site.boot_plan(base, 'qcow2')
        assert plan['kind'] in ('RECORD', 'PLAIN')
    assert base.read_bytes() == before


def test_an_image_of_yet_another_format(site: Site) -> None:
    """Said to be raw, its first bytes name another file to who looks for formats. Nobody does."""
    with hostile.Canary(site) as canary:
        base = bases.make_raw(site, 4 * MIB)
        said = (
            '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n'
            f'createType="monolithicFlat"\n\nRW 2048 FLAT "{canary.path}" 0\n'
        )
        hostile.patch(base, 0, '512s', said.encode())
        with NbdGuest(site, site.record(base)) as guest:
            guest.require(base, 0, 4 * MIB)
            shown = site.ask('seal', site.image_id, '--wait')
        node = guests.file_node(base)
        sealed.require_sound(site, shown, base, node)
        guests.read_chain(site, guests.play_chain(shown['path'], node), [(0, 65536)])
        assert not canary.was_opened()
