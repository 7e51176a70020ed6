# SPDX-License-Identifier: Apache-2.0
"""Leases: they end by time or by word, and nothing in their folder stops a boot or a question."""

import errno
import json
import os
import pathlib
import shutil
import time
from unittest import mock

import pytest

from nova_qcache.cache.leases import Lease
from nova_qcache.cache.leases import Leases
from nova_qcache.model.key import CacheKey
from tests.unit.builders import GENERATION
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE

OTHER = CacheKey(OTHER_IMAGE, GENERATION)
ONE = '11111111-1111-1111-1111-111111111111'
TWO = '22222222-2222-2222-2222-222222222222'


@pytest.fixture
def clock():
    """The monotonic clock, at 1000 seconds; ``clock.return_value`` sets it."""
    with mock.patch.object(time, 'monotonic', autospec=True, return_value=1000.0) as made:
        yield made


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / 'leases'
    path.mkdir()
    return path


@pytest.fixture
def leases(folder, clock):
    return Leases(folder, 300)


def active(leases):
    return list(leases.active())


def names(folder):
    """Whose lease each file is, or its name if it is none."""
    return sorted(name.partition('.lease-')[0] or name for name in os.listdir(folder))


def plant(folder, consumer, content):
    path = folder / f'{consumer}.lease-00000000.json'
    path.write_bytes(content)
    return path


def test_none(leases):
    assert active(leases) == []


def test_take(leases, folder):
    leases.take(ONE, KEY)
    assert active(leases) == [Lease(ONE, KEY, 1300.0)]
    assert names(folder) == [ONE]


def test_no_boot_waits_for_a_disk(leases):
    with mock.patch.object(os, 'fsync', autospec=True) as fsync:
        leases.take(ONE, KEY)
    fsync.assert_not_called()


def test_another_process_sees_it(leases, folder):
    leases.take(ONE, KEY)
    assert active(Leases(folder, 300)) == [Lease(ONE, KEY, 1300.0)]


def test_consumers_have_one_each(leases):
    leases.take(TWO, KEY)
    leases.take(ONE, OTHER)
    assert active(leases) == [Lease(ONE, OTHER, 1300.0), Lease(TWO, KEY, 1300.0)]


def test_a_consumer_may_be_named_like_the_file_of_another(leases):
    leases.take('one', KEY)
    leases.take('one.lease-two', OTHER)
    leases.release('one')
    assert active(leases) == [Lease('one.lease-two', OTHER, 1300.0)]


def test_a_lease_begins_anew(leases, clock):
    leases.take(ONE, KEY)
    clock.return_value = 1200.0
    leases.take(ONE, OTHER)
    clock.return_value = 1400.0
    assert active(leases) == [Lease(ONE, OTHER, 1500.0)]


@pytest.mark.parametrize(('seconds', 'there'), [(0, 1), (299.9, 1), (300, 0), (1e6, 0)])
def test_it_ends_by_time_and_is_cleared_away(leases, folder, clock, seconds, there):
    leases.take(ONE, KEY)
    clock.return_value = 1000.0 + seconds
    assert len(active(leases)) == there
    assert len(names(folder)) == 1, 'looking changes nothing'
    leases.clear_ended()
    assert len(names(folder)) == there


def test_one_that_begins_anew_while_ended_ones_are_cleared_away_stays(leases, folder, clock):
    leases.take(ONE, KEY)
    clock.return_value = 2000.0
    unlink = pathlib.Path.unlink

    def begin_anew(path, missing_ok=False):
        # Another process takes a new one at the worst moment.
        if len(names(folder)) == 1:
            Leases(folder, 300).take(TWO, OTHER)
            (new,) = folder.glob(f'{TWO}.*')
            data = json.loads(new.read_bytes())
            new.write_text(json.dumps({**data, 'consumer': ONE}))
            new.rename(folder / f'{ONE}.lease-ffffffff.json')
        unlink(path, missing_ok=missing_ok)

    with mock.patch.object(pathlib.Path, 'unlink', autospec=True, side_effect=begin_anew):
        leases.clear_ended()
    assert active(leases) == [Lease(ONE, OTHER, 2300.0)]
    assert names(folder) == [ONE]


@pytest.mark.parametrize('moment', range(6))
def test_one_that_is_new_while_ended_ones_are_cleared_away_stays(leases, folder, clock, moment):
    """Of a consumer whom nobody knew, before any step that looks at the folder or at a file."""
    leases.take(ONE, KEY)
    clock.return_value = 2000.0
    left = iter(range(100))

    def before(original):
        def step(*arguments):
            if next(left) == moment:
                take(TWO, OTHER)
            return original(*arguments)

        return step

    def take(consumer, key):
        with mock.patch.object(Leases, '_files', listing):
            Leases(folder, 300).take(consumer, key)

    listing = Leases._files
    with (
        mock.patch.object(pathlib.Path, 'read_bytes', before(pathlib.Path.read_bytes)),
        mock.patch.object(Leases, '_files', before(listing)),
    ):
        leases.clear_ended()
    if moment >= next(left):  # there are fewer steps
        leases.take(TWO, OTHER)
    assert active(leases) == [Lease(TWO, OTHER, 2300.0)]
    assert names(folder) == [TWO]


def test_one_that_begins_anew_while_it_is_looked_at_is_seen(leases, folder):
    """Its old file goes after the folder was listed."""
    leases.take(ONE, KEY)
    read, once = pathlib.Path.read_bytes, iter([True])

    def begin_anew(path):
        if next(once, False):
            Leases(folder, 300).take(ONE, OTHER)
        return read(path)

    with mock.patch.object(pathlib.Path, 'read_bytes', begin_anew):
        assert active(leases) == [Lease(ONE, OTHER, 1300.0)]


def test_the_date_of_the_host_says_nothing(leases):
    leases.take(ONE, KEY)
    with mock.patch.object(time, 'time', autospec=True, return_value=9e9):
        assert len(active(leases)) == 1


def test_release(leases, folder):
    leases.take(ONE, KEY)
    leases.take(TWO, KEY)
    leases.release(ONE)
    assert [lease.consumer for lease in active(leases)] == [TWO]
    assert names(folder) == [TWO]


@pytest.mark.parametrize('consumer', [ONE, '', 'no such/one', 'x\0y', '\ud800', 'x' * 300])
def test_release_of_none(leases, consumer):
    leases.release(consumer)


def text(stem=KEY.stem, until=1100.0, **more):
    boot_id = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    data = {'consumer': ONE, 'stem': stem, 'until': until, 'boot_id': boot_id, **more}
    return json.dumps(data).encode()


def test_what_a_lease_looks_like(leases, folder):
    plant(folder, ONE, text())
    assert active(leases) == [Lease(ONE, KEY, 1100.0)]


FOREIGN = {
    'empty': b'',
    'cut': text()[:-3],
    'no JSON': b'nonsense',
    'no text': b'\xff\xfe\0',
    'a list': b'[]',
    'a number': b'7',
    'nothing': b'null',
    'no stem': b'{"until": 1100}',
    'no time': json.dumps({'stem': KEY.stem}).encode(),
    'of another boot of the host': text(boot_id='11111111-2222-3333-4444-555555555555'),
    'no such stem': text('../../x'),
    'a stem that is a number': text(7),
    'a stem of a generation that is none': text(f'{KEY.image_id}.{GENERATION.epoch}.{10**30}'),
    'a time that is text': text(until='soon'),
    'a time that is a list': text(until=[]),
    'a time that is not': text(until=None),
    'NaN': text(until=float('nan')),
    'for ever': text(until=float('inf')),
    'a long number': text(until=10**400),
    'a number too long': b'{"until": ' + b'9' * 5000 + b'}',
    'deep': b'[' * 100_000,
    'before': text(until=999.0),
    'just now': text(until=1000.0),
}


@pytest.mark.parametrize('content', FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_is_no_lease_is_cleared_away(leases, folder, content):
    plant(folder, ONE, content)
    leases.take(TWO, KEY)
    assert [lease.consumer for lease in active(leases)] == [TWO]
    leases.clear_ended()
    assert names(folder) == [TWO]


def test_files_of_other_names_are_left_alone(leases, folder):
    for name in ('README', f'{ONE}.json~', '.lease-abc'):
        (folder / name).write_bytes(text())
    assert active(leases) == []
    leases.clear_ended()
    assert len(names(folder)) == 3


def test_a_folder_in_place_of_a_lease(leases, folder):
    (folder / f'{ONE}.lease-00000000.json').mkdir()
    leases.take(ONE, KEY)
    assert [lease.consumer for lease in active(leases)] == [ONE]
    leases.release(ONE)
    leases.clear_ended()
    assert active(leases) == []
    assert names(folder) == [ONE]


def test_a_lease_that_is_released_while_it_is_looked_at(leases, folder):
    leases.take(ONE, KEY)
    leases.take(TWO, KEY)
    read = pathlib.Path.read_bytes

    def release_and_read(path):
        leases.release(ONE)
        return read(path)

    with mock.patch.object(
        pathlib.Path, 'read_bytes', autospec=True, side_effect=release_and_read
    ):
        assert [lease.consumer for lease in active(leases)] == [TWO]


def test_a_lease_that_cannot_be_read_or_cleared_away(leases, folder):
    leases.take(ONE, KEY)
    denied = PermissionError(errno.EACCES, 'Permission denied')
    with (
        mock.patch.object(pathlib.Path, 'read_bytes', autospec=True, side_effect=denied),
        mock.patch.object(pathlib.Path, 'unlink', autospec=True, side_effect=denied),
    ):
        assert active(leases) == []
        leases.release(ONE)
    assert len(active(leases)) == 1


def test_a_vanished_folder(leases, folder):
    leases.take(ONE, KEY)
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError) as caught:
        leases.take(ONE, KEY)
    assert caught.value.filename == str(folder), 'each time the same'
    leases.release(ONE)
    assert active(leases) == []


def test_a_folder_that_is_a_file(leases, folder):
    folder.rmdir()
    folder.write_bytes(b'')
    with pytest.raises(NotADirectoryError):
        leases.take(ONE, KEY)
    leases.release(ONE)
    assert active(leases) == []


def test_a_lease_that_cannot_be_written(leases, folder):
    leases.take(ONE, KEY)
    full = OSError(errno.ENOSPC, 'No space left on device', '/with/a/random/name')
    with (
        mock.patch.object(os, 'rename', autospec=True, side_effect=full),
        pytest.raises(OSError, match='No space left') as caught,
    ):
        leases.take(ONE, OTHER)
    assert caught.value.filename == str(folder), 'each time the same'
    assert names(folder) == [ONE]
    assert active(leases) == [Lease(ONE, KEY, 1300.0)], 'the one before stands'


def test_nobody_ever_sees_half_a_lease(leases, folder):
    rename = os.rename

    def look(source, target):
        assert active(leases) == []
        assert json.loads(pathlib.Path(source).read_bytes())['stem'] == KEY.stem
        return rename(source, target)

    with mock.patch.object(os, 'rename', autospec=True, side_effect=look):
        leases.take(ONE, KEY)
    assert len(active(leases)) == 1
